// Values that may be missing or of several types, tuples, and any value at all.
#include <tvm/ffi/any.h>
#include <tvm/ffi/container/tuple.h>
#include <tvm/ffi/container/variant.h>
#include <tvm/ffi/function.h>
#include <tvm/ffi/optional.h>
#include <tvm/ffi/string.h>

namespace ffi = tvm::ffi;

static int64_t OrZero(ffi::Optional<int64_t> n) { return n.value_or(0); }
static ffi::Optional<ffi::String> Some(bool is_there) {
  if (is_there) return ffi::String("something, longer than seven");
  return std::nullopt;
}
static ffi::String Which(ffi::Variant<int64_t, ffi::String> value) {
  return value.as<int64_t>() ? "number" : "text";
}
static int64_t First() { return ffi::Tuple<int64_t, ffi::String>(7, "seven").get<0>(); }
static ffi::Any Same(ffi::Any value) { return value; }
static ffi::String TypeOf(ffi::AnyView value) { return value.GetTypeKey(); }

TVM_FFI_DLL_EXPORT_TYPED_FUNC(or_zero, OrZero);
TVM_FFI_DLL_EXPORT_TYPED_FUNC(some, Some);
TVM_FFI_DLL_EXPORT_TYPED_FUNC(which, Which);
TVM_FFI_DLL_EXPORT_TYPED_FUNC(first, First);
TVM_FFI_DLL_EXPORT_TYPED_FUNC(same, Same);
TVM_FFI_DLL_EXPORT_TYPED_FUNC(type_of, TypeOf);
