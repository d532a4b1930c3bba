/* What a C file needs to be a kernel that TVM's runtime, or ours, can load and call.
 *
 * A function NAME of a module is an exported symbol __tvm_ffi_NAME with the signature below: the
 * arguments come as an array of tagged values, the return value is 0, or -1 after an error was
 * recorded. Nothing has to be linked: what the runtime offers is found through the pointer
 * variable at the end, which the loader fills. Not a copy of TVM's headers, only their layout.
 */
#ifndef KERNEL_H_
#define KERNEL_H_

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

typedef struct {
  int32_t type_index;
  uint32_t zero_padding;
  union {
    int64_t v_int64;
    double v_float64;
    void* v_ptr;
  } as;
} TVMFFIAny;

typedef struct {
  int32_t device_type;
  int32_t device_id;
} DLDevice;

typedef struct {
  uint8_t code;
  uint8_t bits;
  uint16_t lanes;
} DLDataType;

typedef struct {
  void* data;
  DLDevice device;
  int32_t ndim;
  DLDataType dtype;
  int64_t* shape;
  int64_t* strides; /* NULL: C order without gaps */
  uint64_t byte_offset;
} DLTensor;

enum {
  KIND_INT = 1,
  KIND_BOOL = 2,
  KIND_FLOAT = 3,
  KIND_DLTENSOR = 7, /* a pointer to a DLTensor: so tensors arrive over RPC */
  KIND_TENSOR = 70   /* an object with a DLTensor behind its header: so they arrive locally */
};

enum { OBJECT_HEADER = 24, FLOAT32 = 2 };

#define KERNEL(name)                                                                    \
  __attribute__((visibility("default"))) int __tvm_ffi_##name(                          \
      void* self, const TVMFFIAny* args, int32_t num_args, TVMFFIAny* result)

/* The loader stores TVMFFIErrorSetRaisedFromCStr here: kind of error, message. One copy for each
 * library, also if several of its C files include this. */
__attribute__((visibility("default"), weak)) void (*__TVMFFIErrorSetRaisedFromCStr)(const char*,
                                                                                   const char*);

static inline int fail(const char* kind, const char* message) {
  if (__TVMFFIErrorSetRaisedFromCStr != NULL) __TVMFFIErrorSetRaisedFromCStr(kind, message);
  return -1;
}

static inline int expect_count(const char* name, int32_t num_args, int32_t expected) {
  char message[160];
  if (num_args == expected) return 0;
  snprintf(message, sizeof(message), "%s takes %d arguments, not %d", name, (int)expected,
           (int)num_args);
  return fail("TypeError", message);
}

/* The tensor in args[index], which must be float32 with ndim dimensions, without gaps and on the
 * CPU; NULL after an error was recorded. */
static inline const DLTensor* float_tensor(const char* name, const TVMFFIAny* args, int index,
                                           int ndim) {
  char message[200];
  const DLTensor* tensor = NULL;
  int64_t stride = 1;
  int axis;
  if (args[index].type_index == KIND_DLTENSOR) {
    tensor = (const DLTensor*)args[index].as.v_ptr;
  } else if (args[index].type_index == KIND_TENSOR) {
    tensor = (const DLTensor*)((const char*)args[index].as.v_ptr + OBJECT_HEADER);
  }
  if (tensor == NULL) {
    snprintf(message, sizeof(message), "argument %d of %s must be a tensor", index, name);
    fail("TypeError", message);
    return NULL;
  }
  if (tensor->dtype.code != FLOAT32 || tensor->dtype.bits != 32 || tensor->dtype.lanes != 1 ||
      tensor->ndim != ndim) {
    snprintf(message, sizeof(message),
             "argument %d of %s must be float32 with %d dimensions; this one has %d, type code %d, "
             "%d bits",
             index, name, ndim, (int)tensor->ndim, (int)tensor->dtype.code,
             (int)tensor->dtype.bits);
    fail("TypeError", message);
    return NULL;
  }
  for (axis = ndim - 1; tensor->strides != NULL && axis >= 0; stride *= tensor->shape[axis--]) {
    if (tensor->shape[axis] != 1 && tensor->strides[axis] != stride) {
      snprintf(message, sizeof(message), "argument %d of %s must be contiguous", index, name);
      fail("ValueError", message);
      return NULL;
    }
  }
  if (tensor->device.device_type != 1) {
    snprintf(message, sizeof(message), "argument %d of %s must be on the CPU", index, name);
    fail("ValueError", message);
    return NULL;
  }
  return tensor;
}

static inline float* floats(const DLTensor* tensor) {
  return (float*)((char*)tensor->data + tensor->byte_offset);
}

/* 0 if axis `axis` of `tensor` is `expected` long, else -1 after an error was recorded. */
static inline int expect_length(const char* name, const char* what, const DLTensor* tensor,
                                int axis, int64_t expected) {
  char message[200];
  if (tensor->shape[axis] == expected) return 0;
  snprintf(message, sizeof(message), "%s: axis %d of %s must be %lld long, not %lld", name, axis,
           what, (long long)expected, (long long)tensor->shape[axis]);
  return fail("ValueError", message);
}

/* 0 and the number in *value if args[index] is an int or bool, else -1 after an error. */
static inline int expect_int(const char* name, const TVMFFIAny* args, int index, int64_t* value) {
  char message[160];
  if (args[index].type_index == KIND_INT || args[index].type_index == KIND_BOOL) {
    *value = args[index].as.v_int64;
    return 0;
  }
  snprintf(message, sizeof(message), "argument %d of %s must be an int", index, name);
  return fail("TypeError", message);
}

#endif /* KERNEL_H_ */
