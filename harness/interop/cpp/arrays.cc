// Arrays: made, filled, copied on write, converted; one is handed out and taken back.
#include <tvm/ffi/container/array.h>
#include <tvm/ffi/container/list.h>
#include <tvm/ffi/function.h>
#include <tvm/ffi/string.h>

namespace ffi = tvm::ffi;

static ffi::Array<int64_t> Range(int64_t n) {
  ffi::Array<int64_t> numbers;
  for (int64_t i = 0; i < n; ++i) numbers.push_back(i);
  return numbers;
}

static int64_t Sum(ffi::Array<int64_t> numbers) {
  int64_t sum = 0;
  for (int64_t number : numbers) sum += number;
  return sum;
}

static int64_t SumOfRange(int64_t n) { return Sum(Range(n)); }

static ffi::String Mixed() {
  ffi::Array<ffi::Any> values{1, 2.5, ffi::String("three, which is longer than seven")};
  ffi::Array<ffi::Any> copy = values;
  copy.push_back(true);
  ffi::List<ffi::Any> list;
  list.push_back(values);
  return values[2].cast<ffi::String>() + "/" + std::to_string(values.size()) + "/" +
         std::to_string(copy.size()) + "/" + std::to_string(list.size());
}

TVM_FFI_DLL_EXPORT_TYPED_FUNC(range, Range);
TVM_FFI_DLL_EXPORT_TYPED_FUNC(sum, Sum);
TVM_FFI_DLL_EXPORT_TYPED_FUNC(sum_of_range, SumOfRange);
TVM_FFI_DLL_EXPORT_TYPED_FUNC(mixed, Mixed);
