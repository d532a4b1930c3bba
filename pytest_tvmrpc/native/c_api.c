/* TVM's C API for libraries (libtvm_ffi): objects, values, functions and errors. That of types is
 * types.c, that of tensors and of the environment exchange.c. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "objects.h"

typedef struct {
  uint32_t major, minor, patch;
} TVMFFIVersion;

MRPC_EXPORT void TVMFFIGetVersion(TVMFFIVersion *out) {
  out->major = 0;
  out->minor = 1;
  out->patch = 14;
}

/* ---------------------------------------------------------------------------------- objects */

MRPC_EXPORT int TVMFFIObjectIncRef(TVMFFIObject *object) {
  mrpc_retain(object);
  return 0;
}

MRPC_EXPORT int TVMFFIObjectDecRef(TVMFFIObject *object) {
  mrpc_release(object);
  return 0;
}

typedef struct {
  TVMFFIObject object;
  void *resource;
  void (*end)(void *resource);
} opaque_object;

static void drop_opaque(void *object) {
  opaque_object *opaque = object;
  if (opaque->end)
    opaque->end(opaque->resource);
}

static void delete_opaque(void *self, int flags) { mrpc_end(self, flags, drop_opaque); }

MRPC_EXPORT int TVMFFIObjectCreateOpaque(void *resource, int32_t type_index,
                                         void (*end)(void *resource), void **out) {
  opaque_object *made = mrpc_object_new(sizeof *made, type_index, delete_opaque);
  if (!made)
    return -1;
  made->resource = resource;
  made->end = end;
  *out = made;
  return 0;
}

MRPC_EXPORT int TVMFFIAnyViewToOwnedAny(const TVMFFIAny *view, TVMFFIAny *out) {
  return mrpc_own(view, out);
}

MRPC_EXPORT int TVMFFIStringFromByteArray(const TVMFFIByteArray *text, TVMFFIAny *out) {
  return mrpc_put_text(out, 1, text->data, text->data ? text->size : 0);
}

MRPC_EXPORT int TVMFFIBytesFromByteArray(const TVMFFIByteArray *bytes, TVMFFIAny *out) {
  return mrpc_put_text(out, 0, bytes->data, bytes->data ? bytes->size : 0);
}

/* -------------------------------------------------------------------------------- functions */

MRPC_EXPORT int TVMFFIFunctionCreate(void *self, TVMFFISafeCallType call, void (*end)(void *self),
                                     void **out) {
  *out = mrpc_function_new(call, self, end);
  return *out ? 0 : -1;
}

MRPC_EXPORT int TVMFFIFunctionCall(TVMFFIObject *function, const TVMFFIAny *args, int32_t num_args,
                                   TVMFFIAny *result) {
  return mrpc_call_within(function, args, num_args, result);
}

MRPC_EXPORT int TVMFFIFunctionGetGlobal(const TVMFFIByteArray *name, void **out) {
  *out = mrpc_global_get(name->data, name->size);
  return 0;
}

MRPC_EXPORT int TVMFFIFunctionSetGlobal(const TVMFFIByteArray *name, TVMFFIObject *function,
                                        int override) {
  if (!function || function->type_index != MRPC_TYPE_FUNCTION)
    return mrpc_raise("LibraryError", "global function '%.*s' is no function",
                      name->size < 200 ? (int)name->size : 200, name->data);
  return mrpc_global_register(name->data, name->size, function, override);
}

/* ----------------------------------------------------------------------------------- errors */

MRPC_EXPORT void TVMFFIErrorSetRaised(TVMFFIObject *error) {
  if (!error)
    return;
  mrpc_retain(error);
  mrpc_set_raised(error);
}

MRPC_EXPORT void TVMFFIErrorMoveFromRaised(void **out) { *out = mrpc_move_raised(); }

static TVMFFIByteArray text_or(const char *text, const char *otherwise) {
  text = text ? text : otherwise;
  return mrpc_bytes_of(text, strlen(text));
}

MRPC_EXPORT void TVMFFIErrorSetRaisedFromCStr(const char *kind, const char *message) {
  mrpc_raise_text(text_or(kind, "RuntimeError"), text_or(message, ""));
}

MRPC_EXPORT void TVMFFIErrorSetRaisedFromCStrParts(const char *kind, const char **parts,
                                                   int32_t num_parts) {
  size_t nbytes = 0;
  char *message;
  int32_t index;
  for (index = 0; parts && index < num_parts; index++)
    nbytes += text_or(parts[index], "").size;
  message = malloc(nbytes + 1);
  if (!message) {
    mrpc_out_of_memory();
    return;
  }
  nbytes = 0;
  for (index = 0; parts && index < num_parts; index++) {
    TVMFFIByteArray part = text_or(parts[index], "");
    memcpy(message + nbytes, part.data, part.size);
    nbytes += part.size;
  }
  mrpc_raise_text(text_or(kind, "RuntimeError"), mrpc_bytes_of(message, nbytes));
  free(message);
}

static TVMFFIByteArray text_in(const TVMFFIByteArray *text) {
  return text && text->data ? *text : mrpc_bytes_of(NULL, 0);
}

MRPC_EXPORT int TVMFFIErrorCreateWithCauseAndExtraContext(
    const TVMFFIByteArray *kind, const TVMFFIByteArray *message, const TVMFFIByteArray *backtrace,
    TVMFFIObject *cause, TVMFFIObject *context, void **out) {
  *out = mrpc_error_new(text_in(kind), text_in(message), text_in(backtrace), cause, context);
  return 0;
}

MRPC_EXPORT int TVMFFIErrorCreate(const TVMFFIByteArray *kind, const TVMFFIByteArray *message,
                                  const TVMFFIByteArray *backtrace, void **out) {
  return TVMFFIErrorCreateWithCauseAndExtraContext(kind, message, backtrace, NULL, NULL, out);
}

/* The place itself; TVM's own runtime adds the callers. Good until the thread's next one. */
MRPC_EXPORT const TVMFFIByteArray *TVMFFIBacktrace(const char *file, int line, const char *function,
                                                   int crosses) {
  static __thread char text[512];
  static __thread TVMFFIByteArray array;
  int size = 0;
  (void)crosses;
  if (file || function)
    size = snprintf(text, sizeof text, "  File \"%.200s\", line %d%s%.200s\n",
                    file ? file : "<unknown>", line, function ? ", in " : "",
                    function ? function : "");
  array = mrpc_bytes_of(text, (size_t)size);
  return &array;
}
