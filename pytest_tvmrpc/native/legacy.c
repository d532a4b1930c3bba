/* Functions of libraries that TVM up to 0.20 compiled: their values, their calls, and what they were
 * given for good. */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "legacy.h"

enum { BOOL = 6, FLOAT8_E3M4 = 7, FLOAT8_E4M3FN = 10, FLOAT8_E5M2 = 12, FIRST_CUSTOM = 129 };

/* -------------------------------------------------------------------------------- data types */

static mrpc_dtype dtype_of(int code, int bits, uint16_t lanes) {
  mrpc_dtype dtype;
  dtype.code = (uint8_t)code;
  dtype.bits = (uint8_t)bits;
  dtype.lanes = lanes;
  return dtype;
}

/* The type under the numbers of that age, to which a 6 is a float8, and bool is uint1. */
static int renumber(mrpc_dtype *dtype) {
  char name[MRPC_DTYPE_NAME];
  if (dtype->code < BOOL || dtype->code >= FIRST_CUSTOM)
    return 0;
  if (dtype->bits == 8 && dtype->code == BOOL && dtype->lanes == 1)
    *dtype = dtype_of(1, 1, 1);
  else if (dtype->bits == 8 && dtype->code == FLOAT8_E4M3FN)
    dtype->code = BOOL;
  else if (dtype->bits == 8 && dtype->code == FLOAT8_E5M2)
    dtype->code = FLOAT8_E3M4;
  else {
    mrpc_dtype_name(*dtype, name);
    return mrpc_raise("ValueError",
                      "TVM up to 0.20 has no %s; send the bytes through a view: "
                      "tensor._create_view((tensor.nbytes,), 'uint8')",
                      name);
  }
  return 0;
}

static mrpc_dtype of_today(mrpc_dtype dtype) {
  if (dtype.bits == 8 && dtype.code == BOOL)
    dtype.code = FLOAT8_E4M3FN;
  else if (dtype.bits == 8 && dtype.code == FLOAT8_E3M4)
    dtype.code = FLOAT8_E5M2;
  return dtype;
}

/* -------------------------------------------------------------------------- values to the code */

static int text_to_legacy(const TVMFFIAny *any, const char *what, TVMValue *value, int *code,
                          mrpc_legacy_room *room) {
  TVMFFIByteArray content;
  if (mrpc_content_of(any, &content))
    return 1; /* none */
  if (!mrpc_is_text(any)) {
    room->bytes = content;
    value->v_handle = &room->bytes;
    *code = MRPC_ARG_BYTES;
    return 0;
  }
  if (content.size && memchr(content.data, 0, content.size))
    return mrpc_raise("ValueError",
                      "%s holds a NUL character, at which C ends a str; expected text without it; "
                      "pass bytes",
                      what);
  value->v_str = content.data ? content.data : "";
  *code = MRPC_ARG_STR;
  return 0;
}

static int tensor_to_legacy(DLTensor *tensor, TVMValue *value, int *code, mrpc_legacy_room *room) {
  *code = MRPC_ARG_DL_TENSOR;
  value->v_handle = tensor;
  if (tensor->dtype.code < BOOL)
    return 0;
  room->tensor = *tensor;
  value->v_handle = &room->tensor;
  return renumber(&room->tensor.dtype);
}

static int object_to_legacy(const TVMFFIAny *any, const char *what, TVMValue *value, int *code) {
  TVMFFIObject *object = any->as.v_obj;
  if (any->type_index == MRPC_TYPE_OBJECT_RVALUE_REF && any->as.v_ptr)
    object = *(TVMFFIObject **)any->as.v_ptr;
  else if (any->type_index < MRPC_TYPE_OBJECT)
    return mrpc_raise("TypeError",
                      "%s is of type index %d, which compiled code cannot take; expected None, a "
                      "number, text, bytes, a data type, a device, a function, a module or a tensor",
                      what, (int)any->type_index);
  value->v_handle = object;
  *code = !object                                       ? MRPC_ARG_NULL
          : object->type_index == MRPC_TYPE_FUNCTION ? MRPC_ARG_FUNCTION
          : object->type_index == MRPC_TYPE_MODULE   ? MRPC_ARG_MODULE
                                                        : MRPC_ARG_OBJECT;
  return 0;
}

/* `what` is for messages ("argument 0"). */
static int to_legacy(const TVMFFIAny *any, const char *what, TVMValue *value, int *code,
                     mrpc_legacy_room *room) {
  static const unsigned char plain_codes[] = {
      MRPC_ARG_NULL,   MRPC_ARG_INT,       MRPC_ARG_INT, /* BOOL is of 0.18 */
      MRPC_ARG_FLOAT,  MRPC_ARG_HANDLE,    MRPC_ARG_DATA_TYPE,
      MRPC_ARG_DEVICE,
  };
  DLTensor *tensor = mrpc_tensor_of(any);
  int kind = any->type_index, failure;
  value->v_int64 = 0;
  if (kind >= 0 && kind <= MRPC_TYPE_DEVICE) {
    *code = plain_codes[kind];
    memcpy(value, &any->as, sizeof *value);
    return kind == MRPC_TYPE_DATA_TYPE ? renumber(&value->v_type) : 0;
  }
  if (tensor)
    return tensor_to_legacy(tensor, value, code, room);
  failure = text_to_legacy(any, what, value, code, room);
  return failure <= 0 ? failure : object_to_legacy(any, what, value, code);
}

/* ------------------------------------------------------------------------ values from the code */

static int refuse(int code, const char *how, const char *expected) {
  static const char names[16][18] = {
      "INT",       "UINT",   "FLOAT",  "HANDLE",   "NULL", "DATA_TYPE", "DEVICE",  "DL_TENSOR",
      "OBJECT",    "MODULE", "FUNCTION", "STR",    "BYTES", "NDARRAY", "OBJECT_RVALUE_REF", "BOOL"};
  char name[32] = "";
  if (code >= 0 && code < 16)
    snprintf(name, sizeof name, " (%.17s)", names[code]);
  return mrpc_raise("LibraryError", "compiled code %s a value of type code %d%s; expected %s", how,
                    code, name, expected);
}

static int plain_from_legacy(TVMValue value, int code, TVMFFIAny *any) {
  static const uint8_t kinds[] = {
      MRPC_TYPE_INT,       MRPC_TYPE_INT,    MRPC_TYPE_FLOAT, MRPC_TYPE_OPAQUE_PTR, MRPC_TYPE_NONE,
      MRPC_TYPE_DATA_TYPE, MRPC_TYPE_DEVICE,
  };
  memset(any, 0, sizeof *any);
  if (code == MRPC_ARG_BOOL) {
    any->type_index = MRPC_TYPE_BOOL;
    any->as.v_int64 = value.v_int64 != 0;
    return 0;
  }
  if (code == MRPC_ARG_OBJECT || code == MRPC_ARG_MODULE || code == MRPC_ARG_FUNCTION) {
    if (!value.v_handle)
      return mrpc_raise("LibraryError",
                        "compiled code gave an object at 0x0, which is not one of this runtime; "
                        "expected one that was passed to it or that it looked up");
    mrpc_put_object(any, value.v_handle);
    return 0;
  }
  if (code < 0 || code > MRPC_ARG_DEVICE)
    return 1;
  any->type_index = kinds[code];
  if (code == MRPC_ARG_NULL)
    return 0;
  if (code == MRPC_ARG_HANDLE)
    any->as.v_ptr = value.v_handle;
  else if (code == MRPC_ARG_DATA_TYPE)
    any->as.v_dtype = of_today(value.v_type);
  else
    memcpy(&any->as, &value, sizeof value);
  if (code == MRPC_ARG_UINT && value.v_int64 < 0)
    return mrpc_raise("ValueError", "a value for compiled code is %llu, which is no 64-bit integer",
                      (unsigned long long)value.v_int64);
  return 0;
}

int mrpc_from_legacy(TVMValue value, int code, TVMFFIAny *any, mrpc_legacy_room *room) {
  int failure;
  if ((code == MRPC_ARG_DL_TENSOR || code == MRPC_ARG_NDARRAY) && value.v_handle) {
    room->tensor = *(DLTensor *)value.v_handle;
    room->tensor.dtype = of_today(room->tensor.dtype);
    mrpc_put_pointer(any, MRPC_TYPE_DL_TENSOR_PTR, &room->tensor);
    return 0;
  }
  if (code == MRPC_ARG_STR || code == MRPC_ARG_BYTES) {
    if (!value.v_handle)
      return mrpc_raise("LibraryError", "compiled code gave text at NULL");
    mrpc_put_pointer(any, code == MRPC_ARG_STR ? MRPC_TYPE_RAW_STR : MRPC_TYPE_BYTE_ARRAY_PTR,
                     value.v_handle);
    return 0;
  }
  failure = plain_from_legacy(value, code, any);
  return failure <= 0 ? failure
                      : refuse(code, "passed",
                               "None, a number, text, bytes, a data type, a device, a function, a "
                               "module or a tensor");
}

/* ------------------------------------------------------------------- what the code was given */

static const void **given; /* one for each reference that it owns */
static size_t num_given, room_for_given;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

int mrpc_give(TVMFFIObject *object) {
  int failure = 0;
  pthread_mutex_lock(&lock);
  if (num_given == room_for_given) {
    size_t more = room_for_given ? 2 * room_for_given : 16;
    const void **made = realloc(given, more * sizeof *given);
    if (made) {
      given = made;
      room_for_given = more;
    }
    failure = !made;
  }
  if (!failure)
    given[num_given++] = object;
  pthread_mutex_unlock(&lock);
  return failure ? mrpc_out_of_memory() : 0;
}

int mrpc_take_back(const void *object) {
  size_t index;
  pthread_mutex_lock(&lock);
  for (index = num_given; index && given[index - 1] != object; index--)
    ;
  if (index)
    given[index - 1] = given[--num_given];
  pthread_mutex_unlock(&lock);
  return index != 0;
}

/* ------------------------------------------------------------------------------- functions */

typedef struct {
  mrpc_legacy_call call;
  void *resource;
} legacy_function;

int mrpc_pack_legacy(const TVMFFIAny *args, int32_t num_args, mrpc_legacy_args *packed) {
  char what[32];
  int32_t index;
  packed->rooms = packed->few_rooms;
  packed->values = packed->few_values;
  packed->codes = packed->few_codes;
  if (num_args > MRPC_FEW) {
    packed->rooms = malloc((size_t)num_args * (sizeof *packed->rooms + sizeof *packed->values +
                                               sizeof *packed->codes));
    if (!packed->rooms)
      return mrpc_out_of_memory();
    packed->values = (TVMValue *)(packed->rooms + num_args);
    packed->codes = (int *)(packed->values + num_args);
  }
  for (index = 0; index < num_args; index++) {
    what[0] = 0;
    if (args[index].type_index > MRPC_TYPE_DL_TENSOR_PTR) /* the others need no name */
      snprintf(what, sizeof what, "argument %d", (int)index);
    if (to_legacy(&args[index], what, &packed->values[index], &packed->codes[index],
                  &packed->rooms[index])) {
      mrpc_free_legacy(packed);
      return -1;
    }
  }
  return 0;
}

void mrpc_free_legacy(mrpc_legacy_args *packed) {
  if (packed->rooms != packed->few_rooms)
    free(packed->rooms);
}

/* What a function returned as a value of the caller's. Text is refused, as TVM does: nobody could
 * tell whose memory it is in. */
static int take_result(TVMValue value, int code, TVMFFIAny *result) {
  TVMFFIAny any;
  int failure = plain_from_legacy(value, code, &any);
  if (failure > 0)
    failure = refuse(code, "returned",
                     "None, a number, a data type, a device, or a function or module that it was "
                     "given; write text and arrays into a tensor, or pass them to a function");
  if (failure)
    return -1;
  if (any.type_index >= MRPC_TYPE_OBJECT && !mrpc_take_back(any.as.v_obj))
    mrpc_keep(&any);
  *result = any;
  return 0;
}

static int call_packed(const legacy_function *function, TVMValue *values, int *codes,
                       int32_t num_args, TVMFFIAny *result) {
  TVMValue value;
  int code = MRPC_ARG_NULL, failure;
  value.v_int64 = 0;
  failure = function->call(values, codes, num_args, &value, &code, function->resource);
  if (!failure)
    return code == MRPC_ARG_NULL ? 0 : take_result(value, code, result);
  return mrpc_unsaid("a function", failure, "TVMAPISetLastError");
}

static int call_legacy(void *self, const TVMFFIAny *args, int32_t num_args, TVMFFIAny *result) {
  mrpc_legacy_args packed;
  int failure;
  if (mrpc_pack_legacy(args, num_args, &packed))
    return -1;
  failure = call_packed(self, packed.values, packed.codes, num_args, result);
  mrpc_free_legacy(&packed);
  return failure;
}

TVMFFIObject *mrpc_legacy_function_new(void *c_function, void *resource) {
  legacy_function *made = malloc(sizeof *made);
  TVMFFIObject *function;
  if (!made) {
    mrpc_out_of_memory();
    return NULL;
  }
  memcpy(&made->call, &c_function, sizeof made->call);
  made->resource = resource;
  function = mrpc_function_new(call_legacy, made, free);
  if (!function)
    free(made);
  return function;
}

/* Text that a call gave back stays until the next one of the thread. */
static __thread TVMFFIAny kept;
static __thread mrpc_legacy_room kept_room;

static int give_result(const TVMFFIAny *result, TVMValue *value, int *code) {
  mrpc_drop(&kept);
  if (mrpc_own(result, &kept)) /* which makes borrowed text ours */
    return -1;
  if (mrpc_tensor_of(result))
    return mrpc_raise("TypeError",
                      "a tensor cannot be returned to compiled code of TVM up to 0.20; return None, "
                      "a number, text, bytes, a data type, a device, a function or a module");
  if (to_legacy(&kept, "the result", value, code, &kept_room))
    return -1;
  if (*code != MRPC_ARG_OBJECT && *code != MRPC_ARG_MODULE && *code != MRPC_ARG_FUNCTION)
    return 0;
  mrpc_retain(value->v_handle);
  if (!mrpc_give(value->v_handle))
    return 0;
  mrpc_release(value->v_handle);
  return -1;
}

static int call_any(TVMFFIObject *function, TVMValue *values, int *codes, int num_args,
                    TVMFFIAny *result) {
  TVMFFIAny few_args[MRPC_FEW], *args = few_args;
  mrpc_legacy_room few_rooms[MRPC_FEW], *rooms = few_rooms;
  int index, failure = 0;
  if (num_args > MRPC_FEW) {
    rooms = malloc((size_t)num_args * (sizeof *rooms + sizeof *args));
    if (!rooms)
      return mrpc_out_of_memory();
    args = (TVMFFIAny *)(rooms + num_args);
  }
  for (index = 0; index < num_args && !failure; index++)
    failure = mrpc_from_legacy(values[index], codes[index], &args[index], &rooms[index]);
  if (!failure)
    failure = mrpc_call_within(function, args, num_args, result);
  if (rooms != few_rooms)
    free(rooms);
  return failure;
}

MRPC_EXPORT int TVMFuncCall(mrpc_function *function, TVMValue *values, int *codes, int num_args,
                            TVMValue *result, int *result_code) {
  TVMFFIAny any;
  int failure;
  if (!function || function->object.type_index != MRPC_TYPE_FUNCTION)
    return mrpc_raise("ValueError",
                      "compiled code called %p, which is no function of this runtime; expected one "
                      "that was passed to it or that it looked up",
                      (void *)function);
  if (!result || !result_code)
    return mrpc_raise("ValueError",
                      "compiled code called a function without a place for the result");
  result->v_int64 = 0;
  *result_code = MRPC_ARG_NULL;
  if (function->safe_call == mrpc_inner_call && function->call == call_legacy) {
    legacy_function *inner = function->self; /* the values are as it wants them */
    return inner->call(values, codes, num_args, result, result_code, inner->resource);
  }
  memset(&any, 0, sizeof any);
  if (call_any(&function->object, values, codes, num_args, &any))
    return -1;
  failure = give_result(&any, result, result_code);
  mrpc_drop(&any);
  return failure;
}
