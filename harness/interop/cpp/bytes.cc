// Bytes, among them NUL, short and long.
#include <tvm/ffi/function.h>
#include <tvm/ffi/string.h>

#include <algorithm>
#include <string>

namespace ffi = tvm::ffi;

static ffi::Bytes Reversed(ffi::Bytes bytes) {
  std::string content(bytes.data(), bytes.size());
  std::reverse(content.begin(), content.end());
  return ffi::Bytes(content);
}

static int64_t Sum(ffi::Bytes bytes) {
  int64_t sum = 0;
  for (size_t i = 0; i < bytes.size(); ++i) sum += static_cast<unsigned char>(bytes.data()[i]);
  return sum;
}

TVM_FFI_DLL_EXPORT_TYPED_FUNC(reversed, Reversed);
TVM_FFI_DLL_EXPORT_TYPED_FUNC(sum, Sum);
