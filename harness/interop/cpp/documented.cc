// A function with its documentation and the description of its signature.
#include <tvm/ffi/function.h>

static double Scaled(double value, int64_t by) { return value * static_cast<double>(by); }

TVM_FFI_DLL_EXPORT_TYPED_FUNC(scaled, Scaled);
TVM_FFI_DLL_EXPORT_TYPED_FUNC_DOC(scaled, R"(A value, that many times.)");
