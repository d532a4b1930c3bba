// Functions that are returned, kept, taken and called.
#include <tvm/ffi/function.h>

namespace ffi = tvm::ffi;

static ffi::Function Adder(int64_t n) {
  return ffi::Function::FromTyped([n](int64_t m) { return n + m; });
}

static int64_t Twice(ffi::Function f, int64_t n) { return f(f(n)).cast<int64_t>(); }
static ffi::Function Composed(ffi::Function f, ffi::Function g) {
  return ffi::Function::FromTyped([f, g](int64_t n) { return f(g(n)).cast<int64_t>(); });
}

TVM_FFI_DLL_EXPORT_TYPED_FUNC(adder, Adder);
TVM_FFI_DLL_EXPORT_TYPED_FUNC(twice, Twice);
TVM_FFI_DLL_EXPORT_TYPED_FUNC(composed, Composed);
