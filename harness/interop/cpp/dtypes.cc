// Data types and their names.
#include <tvm/ffi/dtype.h>
#include <tvm/ffi/function.h>
#include <tvm/ffi/string.h>

namespace ffi = tvm::ffi;

static DLDataType Parsed(ffi::String text) { return ffi::StringToDLDataType(text); }
static ffi::String Printed(DLDataType dtype) { return ffi::DLDataTypeToString(dtype); }
static DLDataType Wider(DLDataType dtype, int64_t lanes) {
  dtype.lanes = static_cast<uint16_t>(lanes);
  return dtype;
}

TVM_FFI_DLL_EXPORT_TYPED_FUNC(parsed, Parsed);
TVM_FFI_DLL_EXPORT_TYPED_FUNC(printed, Printed);
TVM_FFI_DLL_EXPORT_TYPED_FUNC(wider, Wider);
