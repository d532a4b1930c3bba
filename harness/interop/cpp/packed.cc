// Functions without a signature, and in plain C.
#include <tvm/ffi/c_api.h>
#include <tvm/ffi/function.h>

#include <cstring>

namespace ffi = tvm::ffi;

static double SumOf(const TVMFFIAny* args, int32_t count) {
  ffi::PackedArgs packed(reinterpret_cast<const ffi::AnyView*>(args), count);
  double sum = 0;
  for (int i = 0; i < packed.size(); ++i) sum += packed[i].cast<double>();
  return sum;
}

extern "C" {
TVM_FFI_DLL_EXPORT int __tvm_ffi_sum(void*, const TVMFFIAny* args, int32_t count,
                                     TVMFFIAny* result) {
  TVM_FFI_SAFE_CALL_BEGIN();
  reinterpret_cast<ffi::Any*>(result)[0] = SumOf(args, count);
  TVM_FFI_SAFE_CALL_END();
}

TVM_FFI_DLL_EXPORT int __tvm_ffi_fail(void*, const TVMFFIAny* args, int32_t count,
                                      TVMFFIAny* result) {
  TVMFFIErrorSetRaisedFromCStr("IndexError", "said in plain C");
  return -1;
}

TVM_FFI_DLL_EXPORT int __tvm_ffi_text(void*, const TVMFFIAny* args, int32_t count,
                                      TVMFFIAny* result) {
  const char* text = "text that plain C returns";
  TVMFFIByteArray bytes{text, std::strlen(text)};
  return TVMFFIStringFromByteArray(&bytes, result);
}

static int Square(void*, const TVMFFIAny* args, int32_t count, TVMFFIAny* result) {
  result->type_index = kTVMFFIInt;
  result->v_int64 = args[0].v_int64 * args[0].v_int64;
  return 0;
}

TVM_FFI_DLL_EXPORT int __tvm_ffi_function(void*, const TVMFFIAny* args, int32_t count,
                                          TVMFFIAny* result) {
  TVMFFIObjectHandle made = nullptr;
  int code = TVMFFIFunctionCreate(nullptr, Square, nullptr, &made);
  if (code != 0) return code;
  result->type_index = kTVMFFIFunction;
  result->v_obj = static_cast<TVMFFIObject*>(made);
  return 0;
}
}
