// Errors of every kind, thrown here, thrown by a callback, caught and thrown on.
#include <tvm/ffi/error.h>
#include <tvm/ffi/function.h>

#include <stdexcept>

namespace ffi = tvm::ffi;

static void RaiseValue(int64_t n) { TVM_FFI_THROW(ValueError) << "the number is " << n; }
static void RaiseOwn() { TVM_FFI_THROW(KernelFault) << "a kind of its own"; }
static void RaiseStd() { throw std::runtime_error("of the standard library"); }
static int64_t TakeInt(int64_t n) { return n; }

static ffi::String Caught(ffi::Function callback) {
  try {
    callback();
  } catch (const ffi::Error& error) {
    return error.kind() + ": " + error.message();
  }
  return "nothing";
}

static void ThrownOn(ffi::Function callback) { callback(); }

TVM_FFI_DLL_EXPORT_TYPED_FUNC(raise_value, RaiseValue);
TVM_FFI_DLL_EXPORT_TYPED_FUNC(raise_own, RaiseOwn);
TVM_FFI_DLL_EXPORT_TYPED_FUNC(raise_std, RaiseStd);
TVM_FFI_DLL_EXPORT_TYPED_FUNC(take_int, TakeInt);
TVM_FFI_DLL_EXPORT_TYPED_FUNC(caught, Caught);
TVM_FFI_DLL_EXPORT_TYPED_FUNC(thrown_on, ThrownOn);
