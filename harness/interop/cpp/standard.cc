// Containers of C++'s standard library as arguments and results.
#include <tvm/ffi/extra/stl.h>
#include <tvm/ffi/function.h>

#include <numeric>
#include <string>
#include <vector>

namespace ffi = tvm::ffi;

static std::vector<int64_t> Doubled(std::vector<int64_t> numbers) {
  for (auto& number : numbers) number *= 2;
  return numbers;
}
static int64_t Total(int64_t n) {
  std::vector<int64_t> numbers(static_cast<size_t>(n), 3);
  ffi::Any any = Doubled(numbers);
  auto doubled = any.cast<std::vector<int64_t>>();
  return std::accumulate(doubled.begin(), doubled.end(), int64_t{0});
}

TVM_FFI_DLL_EXPORT_TYPED_FUNC(doubled, Doubled);
TVM_FFI_DLL_EXPORT_TYPED_FUNC(total, Total);
