// Global functions: registered as the library loads, looked up, listed, replaced.
#include <tvm/ffi/container/array.h>
#include <tvm/ffi/function.h>
#include <tvm/ffi/reflection/registry.h>

namespace ffi = tvm::ffi;

TVM_FFI_STATIC_INIT_BLOCK() {
  namespace refl = tvm::ffi::reflection;
  refl::GlobalDef()
      .def("interop.multiply", [](int64_t a, int64_t b) { return a * b; })
      .def_packed("interop.count", [](ffi::PackedArgs args, ffi::Any* result) {
        *result = args.size();
      });
}

static int64_t ByName(ffi::String name, int64_t n) {
  return ffi::Function::GetGlobalRequired(name)(n).cast<int64_t>();
}
static bool IsThere(ffi::String name) { return ffi::Function::GetGlobal(name).has_value(); }
static bool IsListed(ffi::String name) {
  for (const auto& known : ffi::Function::ListGlobalNames()) {
    if (known == name) return true;
  }
  return false;
}
static int64_t Replaced(int64_t n) {
  ffi::Function::SetGlobal("interop.replaced",
                           ffi::Function::FromTyped([n](int64_t m) { return n * m; }), true);
  return ByName("interop.replaced", 2);
}

TVM_FFI_DLL_EXPORT_TYPED_FUNC(by_name, ByName);
TVM_FFI_DLL_EXPORT_TYPED_FUNC(is_there, IsThere);
TVM_FFI_DLL_EXPORT_TYPED_FUNC(is_listed, IsListed);
TVM_FFI_DLL_EXPORT_TYPED_FUNC(replaced, Replaced);
