/* The C API of TVM up to 0.20 for libraries: functions, errors and arrays. The call of a function is
 * legacy.c. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "legacy.h"

/* -------------------------------------------------------------------------------- functions */

typedef int (*packed_call)(TVMValue *args, int *codes, int num_args, void *result, void *resource);

/* A C function that gives its result by TVMCFuncSetReturn. */
typedef struct {
  packed_call call;
  void *resource;
  void (*end)(void *resource);
} callback;

static int call_callback(void *self, const TVMFFIAny *args, int32_t num_args, TVMFFIAny *result) {
  const callback *function = self;
  mrpc_legacy_args packed;
  int failure;
  if (mrpc_pack_legacy(args, num_args, &packed))
    return -1;
  failure = function->call(packed.values, packed.codes, num_args, result, function->resource);
  mrpc_free_legacy(&packed);
  return failure ? mrpc_unsaid("a C function", failure, "TVMAPISetLastError") : 0;
}

static void end_callback(void *self) {
  callback *function = self;
  if (function->end)
    function->end(function->resource);
  free(function);
}

MRPC_EXPORT int TVMFuncCreateFromCFunc(packed_call call, void *resource,
                                       void (*end)(void *resource), void **out) {
  callback *made = malloc(sizeof *made);
  TVMFFIObject *function;
  if (!made)
    return mrpc_out_of_memory();
  made->call = call;
  made->resource = resource;
  made->end = end;
  function = mrpc_function_new(call_callback, made, end_callback);
  if (!function) {
    free(made);
    return -1;
  }
  *out = function;
  return mrpc_give(function);
}

MRPC_EXPORT int TVMCFuncSetReturn(TVMFFIAny *place, TVMValue *values, int *codes, int count) {
  mrpc_legacy_room room;
  TVMFFIAny lent, made;
  if (count != 1)
    return mrpc_raise("ValueError", "compiled code returns %d values; expected one", count);
  if (mrpc_from_legacy(values[0], codes[0], &lent, &room))
    return -1;
  if (lent.type_index == MRPC_TYPE_DL_TENSOR_PTR)
    return mrpc_raise("LibraryError",
                      "compiled code returned a tensor that is lent; expected None, a number, text, "
                      "bytes, a data type, a device, a function or a module");
  if (mrpc_own(&lent, &made))
    return -1;
  mrpc_drop(place);
  *place = made;
  return 0;
}

MRPC_EXPORT int TVMFuncRegisterGlobal(const char *name, TVMFFIObject *function, int override) {
  if (!function || function->type_index != MRPC_TYPE_FUNCTION)
    return mrpc_raise("ValueError",
                      "compiled code registers %p as '%.200s', which is no function of this runtime; "
                      "expected one that it made or looked up",
                      (void *)function, name);
  return mrpc_global_register(name, strlen(name), function, override);
}

/* NULL, if there is none, is no error. */
MRPC_EXPORT int TVMFuncGetGlobal(const char *name, void **out) {
  TVMFFIObject *function = mrpc_global_get(name, strlen(name));
  *out = function;
  if (!function || !mrpc_give(function))
    return 0;
  mrpc_release(function);
  return -1;
}

MRPC_EXPORT int TVMFuncRemoveGlobal(const char *name) {
  mrpc_global_remove(name, strlen(name));
  return 0;
}

/* They stay until the thread asks again. */
MRPC_EXPORT int TVMFuncListGlobalNames(int *count, const char ***out) {
  static __thread const char **names;
  free((void *)names);
  *out = names = mrpc_global_names(count);
  return names ? 0 : -1;
}

MRPC_EXPORT int TVMFuncFree(void *handle) {
  if (!handle)
    return 0;
  if (!mrpc_take_back(handle))
    return mrpc_raise("ValueError",
                      "compiled code frees %p, which it does not own; expected the result of a call: "
                      "what was passed to it or looked up is not freed",
                      handle);
  mrpc_release(handle);
  return 0;
}

MRPC_EXPORT int TVMModFree(void *handle) { return TVMFuncFree(handle); }

/* ----------------------------------------------------------------------------------- errors */

/* The kind of an error, if its text begins with one. */
MRPC_EXPORT void TVMAPISetLastError(const char *text) {
  size_t nbytes = 0, all;
  text = text ? text : "";
  all = strlen(text);
  while ((text[nbytes] >= 'A' && text[nbytes] <= 'Z') || (text[nbytes] >= 'a' && text[nbytes] <= 'z'))
    nbytes++;
  if (nbytes > 5 && memcmp(text + nbytes - 5, "Error", 5) == 0 && strncmp(text + nbytes, ": ", 2) == 0)
    mrpc_raise_text(mrpc_bytes_of(text, nbytes),
                    mrpc_bytes_of(text + nbytes + 2, all - nbytes - 2));
  else
    mrpc_raise_text(mrpc_bytes_of("RuntimeError", 12), mrpc_bytes_of(text, all));
}

/* The text that was recorded, as TVMAPISetLastError takes it; good until the thread's next one. */
MRPC_EXPORT const char *TVMGetLastError(void) {
  static __thread char *text;
  const mrpc_error *error = mrpc_peek_raised();
  size_t kind;
  free(text);
  text = NULL;
  if (!error)
    return "";
  kind = error->kind.size == 12 && memcmp(error->kind.data, "RuntimeError", 12) == 0
             ? 0
             : error->kind.size + 2;
  text = malloc(kind + error->message.size + 1);
  if (!text)
    return "out of memory";
  if (kind) {
    memcpy(text, error->kind.data, kind - 2);
    memcpy(text + kind - 2, ": ", 2);
  }
  memcpy(text + kind, error->message.data, error->message.size);
  text[kind + error->message.size] = 0;
  return text;
}

/* ----------------------------------------------------------------------------------- arrays */

MRPC_EXPORT int TVMArrayAlloc(const int64_t *shape, int ndim, int code, int bits, int lanes,
                              int device_type, int device_id, void **out) {
  mrpc_tensor *made;
  TVMValue value;
  TVMFFIAny any;
  mrpc_legacy_room room;
  value.v_int64 = 0;
  value.v_type.code = (uint8_t)code;
  value.v_type.bits = (uint8_t)bits;
  value.v_type.lanes = (uint16_t)lanes;
  if (mrpc_check_device(device_type) || mrpc_from_legacy(value, MRPC_ARG_DATA_TYPE, &any, &room))
    return -1;
  made = mrpc_tensor_new(any.as.v_dtype, ndim, shape);
  if (!made)
    return -1;
  made->tensor.device.device_id = device_id;
  *out = &made->tensor;
  return mrpc_give(&made->object);
}

static void *object_of(DLTensor *array) { return (char *)array - offsetof(mrpc_tensor, tensor); }

MRPC_EXPORT int TVMArrayFree(DLTensor *array) {
  if (!array)
    return 0;
  if (!mrpc_take_back(object_of(array)))
    return mrpc_raise("ValueError", "compiled code frees an array at %p that it does not have",
                      (void *)array);
  mrpc_release(object_of(array));
  return 0;
}

/* The bytes of an array, which are in one piece in this process; -1 with an error. */
static int64_t bytes_of(const DLTensor *array) {
  if (!array)
    return mrpc_raise("ValueError", "compiled code copies an array at NULL; expected a DLTensor");
  if (mrpc_check_device(array->device.device_type) || mrpc_check_tensor(array))
    return -1;
  if (!mrpc_is_dense(array))
    return mrpc_raise("LibraryError",
                      "an array has gaps between its elements; expected elements in C order without "
                      "gaps; copy it first");
  return mrpc_nbytes_of(MRPC_FFI, array->dtype, array->shape, array->ndim);
}

static char *content_of(const DLTensor *array) {
  return (char *)array->data + (size_t)array->byte_offset;
}

static int check_size(const DLTensor *array, size_t nbytes) {
  int64_t size = bytes_of(array);
  if (size < 0)
    return -1;
  if ((uint64_t)size != nbytes)
    return mrpc_raise("ValueError", "compiled code copies %llu bytes of an array of %lld",
                      (unsigned long long)nbytes, (long long)size);
  return 0;
}

MRPC_EXPORT int TVMArrayCopyFromBytes(DLTensor *array, const void *content, size_t nbytes) {
  if (check_size(array, nbytes))
    return -1;
  if (nbytes)
    memcpy(content_of(array), content, nbytes);
  return 0;
}

MRPC_EXPORT int TVMArrayCopyToBytes(const DLTensor *array, void *content, size_t nbytes) {
  if (check_size(array, nbytes))
    return -1;
  if (nbytes)
    memcpy(content, content_of(array), nbytes);
  return 0;
}

MRPC_EXPORT int TVMArrayCopyFromTo(const DLTensor *source, DLTensor *target, void *stream) {
  int64_t nbytes = bytes_of(source);
  (void)stream;
  if (nbytes < 0 || check_size(target, (size_t)nbytes))
    return -1;
  if (nbytes)
    memmove(content_of(target), content_of(source), (size_t)nbytes);
  return 0;
}

MRPC_EXPORT int TVMSynchronize(int device_type, int device_id, void *stream) {
  (void)device_id, (void)stream;
  return mrpc_check_device(device_type);
}
