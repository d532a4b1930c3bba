// Maps by text and by number, small and large.
#include <tvm/ffi/container/dict.h>
#include <tvm/ffi/container/map.h>
#include <tvm/ffi/function.h>
#include <tvm/ffi/string.h>

namespace ffi = tvm::ffi;

static ffi::Map<ffi::String, int64_t> Squares(int64_t n) {
  ffi::Map<ffi::String, int64_t> squares;
  for (int64_t i = 0; i < n; ++i) squares.Set("number " + std::to_string(i), i * i);
  return squares;
}

static int64_t SquareOf(int64_t n, int64_t i) {
  return Squares(n)["number " + std::to_string(i)];
}

static int64_t Sum(ffi::Map<ffi::String, int64_t> map) {
  int64_t sum = 0;
  for (const auto& pair : map) sum += pair.second;
  return sum;
}

static int64_t SumOfSquares(int64_t n) { return Sum(Squares(n)); }

static int64_t Counted(ffi::String text) {
  ffi::Dict<ffi::String, int64_t> counts;
  for (size_t i = 0; i < text.size(); ++i) {
    ffi::String letter(text.data() + i, 1);
    counts.Set(letter, counts.count(letter) ? counts[letter] + 1 : 1);
  }
  return static_cast<int64_t>(counts.size());
}

TVM_FFI_DLL_EXPORT_TYPED_FUNC(squares, Squares);
TVM_FFI_DLL_EXPORT_TYPED_FUNC(square_of, SquareOf);
TVM_FFI_DLL_EXPORT_TYPED_FUNC(sum, Sum);
TVM_FFI_DLL_EXPORT_TYPED_FUNC(sum_of_squares, SumOfSquares);
TVM_FFI_DLL_EXPORT_TYPED_FUNC(counted, Counted);
