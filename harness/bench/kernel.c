/* The functions that the bench calls on a device: plain C with the calling convention of TVM's
 * FFI. One library for every server. */
#include <stdint.h>

typedef struct {
  int32_t type_index;
  uint32_t padding;
  union {
    int64_t integer;
    void *pointer;
  } value;
} Any;

typedef struct {
  void *data;
  int32_t device_type;
  int32_t device_id;
  int32_t ndim;
  uint8_t code;
  uint8_t bits;
  uint16_t lanes;
  int64_t *shape;
  int64_t *strides;
  uint64_t byte_offset;
} Tensor;

enum { INT = 1, TENSOR_POINTER = 7, TENSOR_OBJECT = 70, OBJECT_HEADER = 24 };

typedef void (*RaiseError)(const char *kind, const char *message);

/* Filled by whoever loads this library. */
__attribute__((visibility("default"))) RaiseError __TVMFFIErrorSetRaisedFromCStr;

static int refuse(const char *message) {
  if (__TVMFFIErrorSetRaisedFromCStr) __TVMFFIErrorSetRaisedFromCStr("TypeError", message);
  return -1;
}

static Tensor *tensor_of(const Any *argument) {
  if (argument->type_index == TENSOR_POINTER) return (Tensor *)argument->value.pointer;
  if (argument->type_index == TENSOR_OBJECT)
    return (Tensor *)((char *)argument->value.pointer + OBJECT_HEADER);
  return 0;
}

static float *floats_of(const Tensor *tensor) {
  return (float *)((char *)tensor->data + tensor->byte_offset);
}

/* bench_touch(source, target, n): target[0] = source[0] + n */
int __tvm_ffi_bench_touch(void *self, const Any *arguments, int32_t count, Any *result) {
  (void)self;
  (void)result;
  if (count != 3 || arguments[2].type_index != INT) return refuse("want two tensors and an int");
  Tensor *source = tensor_of(&arguments[0]);
  Tensor *target = tensor_of(&arguments[1]);
  if (!source || !target) return refuse("want two tensors and an int");
  floats_of(target)[0] = floats_of(source)[0] + (float)arguments[2].value.integer;
  return 0;
}

/* bench_add(a, b, sum): sum = a + b, for vectors of one length */
int __tvm_ffi_bench_add(void *self, const Any *arguments, int32_t count, Any *result) {
  (void)self;
  (void)result;
  if (count != 3) return refuse("want three tensors");
  Tensor *a = tensor_of(&arguments[0]);
  Tensor *b = tensor_of(&arguments[1]);
  Tensor *sum = tensor_of(&arguments[2]);
  if (!a || !b || !sum) return refuse("want three tensors");
  for (int64_t i = 0; i < sum->shape[0]; ++i)
    floats_of(sum)[i] = floats_of(a)[i] + floats_of(b)[i];
  return 0;
}

/* bench_nothing() */
int __tvm_ffi_bench_nothing(void *self, const Any *arguments, int32_t count, Any *result) {
  (void)self;
  (void)arguments;
  (void)count;
  (void)result;
  return 0;
}
