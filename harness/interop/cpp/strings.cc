// Text, short and long, in and out, in each of the forms that C++ has for it.
#include <tvm/ffi/function.h>
#include <tvm/ffi/string.h>

#include <string>

namespace ffi = tvm::ffi;

static ffi::String Joined(ffi::String a, ffi::String b) { return a + b; }
static std::string Repeated(std::string text, int64_t times) {
  std::string all;
  for (int64_t i = 0; i < times; ++i) all += text;
  return all;
}
static int64_t Length(ffi::String text) { return static_cast<int64_t>(text.size()); }
static bool Same(ffi::String a, ffi::String b) { return a == b; }

TVM_FFI_DLL_EXPORT_TYPED_FUNC(joined, Joined);
TVM_FFI_DLL_EXPORT_TYPED_FUNC(repeated, Repeated);
TVM_FFI_DLL_EXPORT_TYPED_FUNC(length, Length);
TVM_FFI_DLL_EXPORT_TYPED_FUNC(same, Same);
