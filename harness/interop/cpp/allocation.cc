// Tensors that are made here: in memory of the environment, and in its own.
#include <tvm/ffi/container/tensor.h>
#include <tvm/ffi/extra/c_env_api.h>
#include <tvm/ffi/function.h>

#include <cstdlib>

namespace ffi = tvm::ffi;

static ffi::Tensor Fill(ffi::Tensor tensor, double value) {
  for (int64_t i = 0; i < tensor.numel(); ++i) {
    static_cast<float*>(tensor.data_ptr())[i] = static_cast<float>(value) + i;
  }
  return tensor;
}

static ffi::Tensor OfEnvironment(int64_t rows, int64_t columns, double value) {
  DLDataType f32{kDLFloat, 32, 1};
  DLDevice cpu{kDLCPU, 0};
  return Fill(ffi::Tensor::FromEnvAlloc(TVMFFIEnvTensorAlloc, ffi::Shape({rows, columns}), f32, cpu),
              value);
}

struct Memory {
  void AllocData(DLTensor* tensor) { tensor->data = std::malloc(ffi::GetDataSize(*tensor)); }
  void FreeData(DLTensor* tensor) { std::free(tensor->data); }
};

static ffi::Tensor OfItsOwn(int64_t length, double value) {
  DLDataType f32{kDLFloat, 32, 1};
  DLDevice cpu{kDLCPU, 0};
  return Fill(ffi::Tensor::FromNDAlloc(Memory(), ffi::Shape({length}), f32, cpu), value);
}

static ffi::Tensor OnDevice(int64_t type) {
  DLDataType f32{kDLFloat, 32, 1};
  return ffi::Tensor::FromEnvAlloc(TVMFFIEnvTensorAlloc, ffi::Shape({2}), f32,
                                   DLDevice{static_cast<DLDeviceType>(type), 0});
}

TVM_FFI_DLL_EXPORT_TYPED_FUNC(of_environment, OfEnvironment);
TVM_FFI_DLL_EXPORT_TYPED_FUNC(of_its_own, OfItsOwn);
static bool Made() { return OnDevice(kDLCPU).defined(); }

TVM_FFI_DLL_EXPORT_TYPED_FUNC(made, Made);
TVM_FFI_DLL_EXPORT_TYPED_FUNC(on_device, OnDevice);
