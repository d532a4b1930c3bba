// The stream of a device, as kernels ask for it; devices as arguments.
#include <tvm/ffi/container/tensor.h>
#include <tvm/ffi/extra/c_env_api.h>
#include <tvm/ffi/function.h>

namespace ffi = tvm::ffi;

static int64_t StreamOf(DLDevice device) {
  return reinterpret_cast<int64_t>(TVMFFIEnvGetStream(device.device_type, device.device_id));
}

static int64_t SetStream(DLDevice device, int64_t stream) {
  TVMFFIStreamHandle before = nullptr;
  TVM_FFI_CHECK_SAFE_CALL(TVMFFIEnvSetStream(device.device_type, device.device_id,
                                             reinterpret_cast<void*>(stream), &before));
  return reinterpret_cast<int64_t>(before);
}

static DLDevice Same(DLDevice device) { return device; }

TVM_FFI_DLL_EXPORT_TYPED_FUNC(stream_of, StreamOf);
TVM_FFI_DLL_EXPORT_TYPED_FUNC(set_stream, SetStream);
TVM_FFI_DLL_EXPORT_TYPED_FUNC(same, Same);
