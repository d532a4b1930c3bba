/* What a file of C (C99) or C++ (C++11) needs to be a kernel that TVM's runtime, or ours, can load.
 *
 *     #include "kernel.h"
 *     KERNEL(add_one) { return return_int(result, args[0].as.v_int64 + 1); }
 *
 * A function NAME of a module is an exported symbol __tvm_ffi_NAME with the signature of KERNEL: the
 * arguments come as an array of tagged values, and it returns 0, or -1 after an error was recorded.
 * In C++, KERNEL also gives the symbol C's name, and turns an exception into such an error. Nothing
 * has to be linked: the loader fills the pointer variable below. This is no copy of TVM's headers,
 * only their layout, and it takes their place.
 */
#ifndef PYTEST_TVMRPC_KERNEL_H_
#define PYTEST_TVMRPC_KERNEL_H_

#ifdef TVM_FFI_C_API_H_
#error "kernel.h declares what tvm/ffi/c_api.h declares: include one of them"
#endif

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#ifdef __cplusplus
#include <exception>
#include <new>
#include <stdexcept>
extern "C" {
#endif

typedef struct {
  int32_t type_index;
  uint32_t zero_padding;
  union {
    int64_t v_int64;
    double v_float64;
    void* v_ptr;
  } as;
} TVMFFIAny;

#ifndef DLPACK_DLPACK_H_ /* the same three, for those who include dlpack.h before */
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
#endif

/* Values of TVMFFIAny.type_index. */
enum {
  KIND_NONE = 0,
  KIND_INT = 1,
  KIND_BOOL = 2,
  KIND_FLOAT = 3,
  KIND_OPAQUE = 4,
  KIND_DLTENSOR = 7, /* a pointer to a DLTensor: so tensors arrive */
  KIND_STRING = 8,   /* a pointer to characters with a NUL behind them */
  KIND_TENSOR = 70   /* a tensor object: so they arrive in a library that needs libtvm_ffi */
};

/* Values of DLDataType.code. */
enum { TYPE_INT = 0, TYPE_UINT = 1, TYPE_FLOAT = 2, TYPE_BFLOAT = 4, TYPE_BOOL = 6 };

enum { OBJECT_HEADER = 24 };

#define KERNEL_EXPORT __attribute__((visibility("default")))

/* The loader stores TVMFFIErrorSetRaisedFromCStr here: kind of error, message. One copy for each
 * library, also if several of its files include this. */
KERNEL_EXPORT __attribute__((weak)) void (*__TVMFFIErrorSetRaisedFromCStr)(const char*,
                                                                          const char*);

/* Records an error of a kind such as "ValueError", for the kernel to return. */
static inline int fail(const char* kind, const char* message) {
  if (__TVMFFIErrorSetRaisedFromCStr != NULL) __TVMFFIErrorSetRaisedFromCStr(kind, message);
  return -1;
}

/* 0 if the kernel was given as many arguments as it takes, else -1 after an error was recorded. */
static inline int expect_count(const char* name, int32_t num_args, int32_t expected) {
  char message[160];
  if (num_args == expected) return 0;
  snprintf(message, sizeof(message), "%s takes %d argument%s, not %d", name, (int)expected,
           expected == 1 ? "" : "s", (int)num_args);
  return fail("TypeError", message);
}

static inline const char* type_name(uint8_t code) {
  switch (code) {
    case TYPE_INT:
      return "int";
    case TYPE_UINT:
      return "uint";
    case TYPE_FLOAT:
      return "float";
    case TYPE_BFLOAT:
      return "bfloat";
    case TYPE_BOOL:
      return "bool";
    default:
      return "unknown";
  }
}

/* The tensor in args[index], which must have this type and number of dimensions (-1: any), without
 * gaps and on the CPU; NULL after an error was recorded. */
static inline const DLTensor* tensor_of(const char* name, const TVMFFIAny* args, int index,
                                        uint8_t code, uint8_t bits, int ndim) {
  char message[240];
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
  if (tensor->dtype.code != code || tensor->dtype.bits != bits || tensor->dtype.lanes != 1) {
    snprintf(message, sizeof(message), "argument %d of %s must be %s%d, not %s%dx%d", index, name,
             type_name(code), (int)bits, type_name(tensor->dtype.code), (int)tensor->dtype.bits,
             (int)tensor->dtype.lanes);
    if (tensor->dtype.lanes == 1) *strrchr(message, 'x') = '\0';
    fail("TypeError", message);
    return NULL;
  }
  if (ndim >= 0 && tensor->ndim != ndim) {
    snprintf(message, sizeof(message), "argument %d of %s must have %d dimensions, not %d", index,
             name, ndim, (int)tensor->ndim);
    fail("ValueError", message);
    return NULL;
  }
  for (axis = tensor->ndim - 1; tensor->strides != NULL && axis >= 0;
       stride *= tensor->shape[axis--]) {
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

/* Likewise for float32. */
static inline const DLTensor* float_tensor(const char* name, const TVMFFIAny* args, int index,
                                           int ndim) {
  return tensor_of(name, args, index, TYPE_FLOAT, 32, ndim);
}

/* The first element of a tensor. */
static inline void* elements(const DLTensor* tensor) {
  return (char*)tensor->data + tensor->byte_offset;
}

static inline float* floats(const DLTensor* tensor) { return (float*)elements(tensor); }

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

/* Likewise for a float; an int is one, too. */
static inline int expect_float(const char* name, const TVMFFIAny* args, int index, double* value) {
  char message[160];
  if (args[index].type_index == KIND_FLOAT) {
    *value = args[index].as.v_float64;
    return 0;
  }
  if (args[index].type_index == KIND_INT) {
    *value = (double)args[index].as.v_int64;
    return 0;
  }
  snprintf(message, sizeof(message), "argument %d of %s must be a float", index, name);
  return fail("TypeError", message);
}

/* What the kernel returns to its caller; without one of these it is None. */
static inline int return_int(TVMFFIAny* result, int64_t value) {
  result->type_index = KIND_INT;
  result->zero_padding = 0;
  result->as.v_int64 = value;
  return 0;
}

static inline int return_float(TVMFFIAny* result, double value) {
  result->type_index = KIND_FLOAT;
  result->zero_padding = 0;
  result->as.v_float64 = value;
  return 0;
}

#ifdef __cplusplus
} /* extern "C" */
#endif

#define KERNEL_ARGUMENTS \
  void *self, const TVMFFIAny *args, int32_t num_args, TVMFFIAny *result

#if defined(__cplusplus) && (defined(__cpp_exceptions) || defined(__EXCEPTIONS))

typedef int (*KernelBody)(KERNEL_ARGUMENTS);

/* An exception must not leave a function of C: it becomes the error of the call. */
static inline int kernel_call(KernelBody body, KERNEL_ARGUMENTS) {
  try {
    return body(self, args, num_args, result);
  } catch (const std::bad_alloc& error) {
    return fail("MemoryError", error.what());
  } catch (const std::out_of_range& error) {
    return fail("IndexError", error.what());
  } catch (const std::invalid_argument& error) {
    return fail("ValueError", error.what());
  } catch (const std::exception& error) {
    return fail("RuntimeError", error.what());
  } catch (...) {
    return fail("RuntimeError", "the kernel threw something that is no std::exception");
  }
}

#define KERNEL(name)                                                  \
  static int kernel_body_##name(KERNEL_ARGUMENTS);                    \
  extern "C" KERNEL_EXPORT int __tvm_ffi_##name(KERNEL_ARGUMENTS) {   \
    return kernel_call(kernel_body_##name, self, args, num_args, result); \
  }                                                                   \
  static int kernel_body_##name(KERNEL_ARGUMENTS)

#elif defined(__cplusplus)

#define KERNEL(name) extern "C" KERNEL_EXPORT int __tvm_ffi_##name(KERNEL_ARGUMENTS)

#else

#define KERNEL(name) KERNEL_EXPORT int __tvm_ffi_##name(KERNEL_ARGUMENTS)

#endif

#endif /* PYTEST_TVMRPC_KERNEL_H_ */
