// Tensors over DLPack, in both forms, and views of them.
#include <tvm/ffi/container/tensor.h>
#include <tvm/ffi/extra/c_env_api.h>
#include <tvm/ffi/function.h>

namespace ffi = tvm::ffi;

static ffi::Tensor Numbers() {
  DLDataType f32{kDLFloat, 32, 1};
  auto tensor = ffi::Tensor::FromEnvAlloc(TVMFFIEnvTensorAlloc, ffi::Shape({4}), f32,
                                          DLDevice{kDLCPU, 0});
  for (int i = 0; i < 4; ++i) static_cast<float*>(tensor.data_ptr())[i] = 10.0f * i;
  return tensor;
}

static ffi::Tensor ThereAndBack() { return ffi::Tensor::FromDLPack(Numbers().ToDLPack()); }
static ffi::Tensor ThereAndBackVersioned() {
  return ffi::Tensor::FromDLPackVersioned(Numbers().ToDLPackVersioned());
}
static ffi::Tensor OfArgument(ffi::Tensor tensor) {
  return ffi::Tensor::FromDLPack(tensor.ToDLPack());
}
static ffi::Tensor Viewed() { return Numbers().as_strided({2, 2}, {2, 1}); }

static bool Made() { return Numbers().defined(); }

TVM_FFI_DLL_EXPORT_TYPED_FUNC(made, Made);
TVM_FFI_DLL_EXPORT_TYPED_FUNC(there_and_back, ThereAndBack);
TVM_FFI_DLL_EXPORT_TYPED_FUNC(there_and_back_versioned, ThereAndBackVersioned);
TVM_FFI_DLL_EXPORT_TYPED_FUNC(of_argument, OfArgument);
TVM_FFI_DLL_EXPORT_TYPED_FUNC(viewed, Viewed);
