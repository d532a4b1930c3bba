// Classes of its own: a base and a derived one, with fields, methods and constructors registered.
#include <tvm/ffi/function.h>
#include <tvm/ffi/memory.h>
#include <tvm/ffi/object.h>
#include <tvm/ffi/reflection/registry.h>
#include <tvm/ffi/string.h>

namespace ffi = tvm::ffi;

class CounterObj : public ffi::Object {
 public:
  int64_t value;
  ffi::String label;
  explicit CounterObj(int64_t value, ffi::String label) : value(value), label(label) {}
  int64_t Add(int64_t n) { return value += n; }
  static constexpr bool _type_mutable = true;
  TVM_FFI_DECLARE_OBJECT_INFO("interop.Counter", CounterObj, ffi::Object);
};

class Counter : public ffi::ObjectRef {
 public:
  explicit Counter(int64_t value, ffi::String label) {
    data_ = ffi::make_object<CounterObj>(value, label);
  }
  TVM_FFI_DEFINE_OBJECT_REF_METHODS_NOTNULLABLE(Counter, ffi::ObjectRef, CounterObj);
};

class StepObj : public CounterObj {
 public:
  int64_t step;
  StepObj(int64_t value, int64_t step) : CounterObj(value, "step"), step(step) {}
  TVM_FFI_DECLARE_OBJECT_INFO_FINAL("interop.Step", StepObj, CounterObj);
};

TVM_FFI_STATIC_INIT_BLOCK() {
  namespace refl = tvm::ffi::reflection;
  refl::ObjectDef<CounterObj>()
      .def(refl::init<int64_t, ffi::String>())
      .def_rw("value", &CounterObj::value, "how far it is")
      .def_ro("label", &CounterObj::label)
      .def("add", &CounterObj::Add);
  refl::ObjectDef<StepObj>().def_ro("step", &StepObj::step);
}

static ffi::ObjectRef MakeCounter(int64_t value) { return Counter(value, "a counter of its own"); }
static ffi::ObjectRef MakeStep(int64_t value, int64_t step) {
  return ffi::ObjectRef(ffi::make_object<StepObj>(value, step));
}
static int64_t Value(Counter counter) { return counter->value; }
static ffi::String Key(ffi::ObjectRef object) { return object->GetTypeKey(); }

static ffi::String Checks() {
  ffi::ObjectRef counter = MakeCounter(1), step = MakeStep(2, 3);
  std::string said;
  said += counter->IsInstance<CounterObj>() ? "1" : "0";
  said += step->IsInstance<CounterObj>() ? "1" : "0";
  said += step->IsInstance<StepObj>() ? "1" : "0";
  said += counter->IsInstance<StepObj>() ? "1" : "0";
  said += ffi::Any(ffi::String("text of some length")).as<CounterObj>() ? "1" : "0";
  return said;
}

TVM_FFI_DLL_EXPORT_TYPED_FUNC(make_counter, MakeCounter);
TVM_FFI_DLL_EXPORT_TYPED_FUNC(make_step, MakeStep);
TVM_FFI_DLL_EXPORT_TYPED_FUNC(value, Value);
TVM_FFI_DLL_EXPORT_TYPED_FUNC(key, Key);
TVM_FFI_DLL_EXPORT_TYPED_FUNC(checks, Checks);
