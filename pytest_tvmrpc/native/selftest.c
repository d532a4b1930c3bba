/* Functions with which any client can try any server: rpc.test.* of TVM, and their kin. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "serving.h"


static int add_one(MRPC_ARGUMENTS_OF_CALL) {
  int64_t number;
  MRPC_UNUSED;
  if (num_args > 1) return mrpc_raise("TypeError", "%d arguments; expected one", (int)num_args);
  if (mrpc_argument_int(args, num_args, 0, "an int", &number) != 0) return -1;
  mrpc_return_int_to(result, (int64_t)((uint64_t)number + 1));
  return 0;
}

static int concatenate(MRPC_ARGUMENTS_OF_CALL) {
  TVMFFIByteArray name;
  int64_t number;
  char *text;
  int status;
  MRPC_UNUSED;
  if (mrpc_argument_text(args, num_args, 0, "a text", &name) != 0 ||
      mrpc_argument_int(args, num_args, 1, "an int", &number) != 0) {
    return -1;
  }
  text = malloc(name.size + 32);
  if (text == NULL) return mrpc_raise("MemoryError", "no memory for a text");
  memcpy(text, name.data, name.size);
  snprintf(text + name.size, 32, ":%lld", (long long)number);
  status = mrpc_return_text(result, text, strlen(text + name.size) + name.size);
  free(text);
  return status;
}

/* Raises with a kind and a text of a client. */
static int raise_text(const char *kind, size_t kind_nbytes, const char *text, size_t nbytes) {
  char name[128];
  snprintf(name, sizeof(name), "%.*s", (int)(kind_nbytes < 127 ? kind_nbytes : 127), kind);
  return mrpc_raise(name, "%.*s", (int)(nbytes < MRPC_MAX_TEXT ? nbytes : MRPC_MAX_TEXT), text);
}

static int raise_value_error(MRPC_ARGUMENTS_OF_CALL) {
  TVMFFIByteArray text;
  MRPC_UNUSED;
  if (mrpc_argument_text(args, num_args, 0, "a text", &text) != 0) return -1;
  return raise_text("ValueError", 10, text.data, text.size);
}

static int raise_kind(MRPC_ARGUMENTS_OF_CALL) {
  TVMFFIByteArray kind, text;
  MRPC_UNUSED;
  if (mrpc_argument_text(args, num_args, 0, "a kind of error", &kind) != 0 ||
      mrpc_argument_text(args, num_args, 1, "a text", &text) != 0) {
    return -1;
  }
  return raise_text(kind.data, kind.size, text.data, text.size);
}

static int join_texts(MRPC_ARGUMENTS_OF_CALL) {
  TVMFFIByteArray first, second;
  char *text;
  int status;
  MRPC_UNUSED;
  if (mrpc_argument_text(args, num_args, 0, "a text", &first) != 0 ||
      mrpc_argument_text(args, num_args, 1, "a text", &second) != 0) {
    return -1;
  }
  text = malloc(first.size + second.size + 1);
  if (text == NULL) return mrpc_raise("MemoryError", "no memory for a text");
  memcpy(text, first.data, first.size);
  memcpy(text + first.size, second.data, second.size);
  status = mrpc_return_text(result, text, first.size + second.size);
  free(text);
  return status;
}

/* A function around one value, which it owns. */
static int return_closure(TVMFFISafeCallType call, const void *value, size_t nbytes,
                          TVMFFIAny *result) {
  void *kept = malloc(nbytes + 1);
  TVMFFIObject *made;
  if (kept == NULL) return mrpc_raise("MemoryError", "no memory for a function");
  memcpy(kept, value, nbytes);
  ((char *)kept)[nbytes] = 0;
  made = mrpc_function_new(call, kept, free);
  if (made == NULL) return -1;
  mrpc_return_object(result, made);
  return 0;
}

static int add_to(MRPC_ARGUMENTS_OF_CALL) {
  int64_t number, left;
  MRPC_UNUSED;
  memcpy(&left, self, sizeof(left));
  if (mrpc_argument_int(args, num_args, 0, "an int", &number) != 0) return -1;
  mrpc_return_int_to(result, (int64_t)((uint64_t)left + (uint64_t)number));
  return 0;
}

static int add_to_lhs(MRPC_ARGUMENTS_OF_CALL) {
  int64_t left;
  MRPC_UNUSED;
  if (mrpc_argument_int(args, num_args, 0, "an int", &left) != 0) return -1;
  return return_closure(add_to, &left, sizeof(left), result);
}

static int raise_kept(MRPC_ARGUMENTS_OF_CALL) {
  const char *text = self, *colon = strstr(text, ": ");
  size_t index, length = colon == NULL ? 0 : (size_t)(colon - text);
  MRPC_UNUSED;
  for (index = 0; index < length; index++) {
    if (strchr("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz_0123456789.", text[index]) ==
        NULL) {
      length = 0;
    }
  }
  if (length == 0) return mrpc_raise("RuntimeError", "%s", text);
  return raise_text(text, length, colon + 2, strlen(colon + 2));
}

static int make_raiser(MRPC_ARGUMENTS_OF_CALL) {
  TVMFFIByteArray text;
  MRPC_UNUSED;
  if (mrpc_argument_text(args, num_args, 0, "a text", &text) != 0) return -1;
  return return_closure(raise_kept, text.data, text.size, result);
}

static int compare_kept(MRPC_ARGUMENTS_OF_CALL) {
  int64_t left, right;
  MRPC_UNUSED;
  if (mrpc_argument_int(args, num_args, 0, "an int", &left) != 0 ||
      mrpc_argument_int(args, num_args, 1, "an int", &right) != 0) {
    return -1;
  }
  if (left == right) return 0;
  return mrpc_raise("InternalError", "%lld is not %lld: %s", (long long)left, (long long)right,
                    (const char *)self);
}

static int make_comparer(MRPC_ARGUMENTS_OF_CALL) {
  TVMFFIByteArray text;
  MRPC_UNUSED;
  if (mrpc_argument_text(args, num_args, 0, "a text", &text) != 0) return -1;
  return return_closure(compare_kept, text.data, text.size, result);
}

static int echo(MRPC_ARGUMENTS_OF_CALL) {
  MRPC_UNUSED;
  if (num_args < 1) return mrpc_raise("TypeError", "testing.echo takes a value");
  *result = args[0];
  mrpc_keep(result);
  return 0;
}

static int nop(MRPC_ARGUMENTS_OF_CALL) { return num_args > 0 ? echo(self, args, num_args, result) : 0; }

static int sleep_for(MRPC_ARGUMENTS_OF_CALL) {
  struct timespec pause;
  double seconds;
  MRPC_UNUSED;
  if (num_args < 1 ||
      (args[0].type_index != MRPC_TYPE_FLOAT && args[0].type_index != MRPC_TYPE_INT)) {
    return mrpc_wrong_argument(args, num_args, 0, "a number of seconds");
  }
  seconds = args[0].type_index == MRPC_TYPE_FLOAT ? args[0].as.v_float64
                                                   : (double)args[0].as.v_int64;
  if (!(seconds >= 0 && seconds < 1e9)) {
    return mrpc_raise("ValueError", "sleep length must be non-negative");
  }
  pause.tv_sec = (time_t)seconds;
  pause.tv_nsec = (long)((seconds - (double)pause.tv_sec) * 1e9);
  while (nanosleep(&pause, &pause) != 0) continue;
  return 0;
}

/* One element of a tensor of float32 or float64 as a result. */
static int return_element(const DLTensor *tensor, int64_t place, TVMFFIAny *result) {
  int64_t count = 1;
  int axis;
  const uint8_t *elements = (const uint8_t *)tensor->data + tensor->byte_offset;
  for (axis = 0; axis < tensor->ndim; axis++) count *= tensor->shape[axis];
  if (tensor->dtype.code != 2 || (tensor->dtype.bits != 32 && tensor->dtype.bits != 64)) {
    return mrpc_raise("TypeError", "expected a tensor of float32 or float64");
  }
  if (place < 0 || place >= count) {
    return mrpc_raise("IndexError", "element %lld of %lld", (long long)place, (long long)count);
  }
  memset(result, 0, sizeof(*result));
  result->type_index = MRPC_TYPE_FLOAT;
  if (tensor->dtype.bits == 32) {
    float element;
    memcpy(&element, elements + 4 * place, sizeof(element));
    result->as.v_float64 = (double)element;
  } else {
    memcpy(&result->as.v_float64, elements + 8 * place, 8);
  }
  return 0;
}

static int kept_tensor(MRPC_ARGUMENTS_OF_CALL) {
  MRPC_UNUSED;
  mrpc_retain(*(TVMFFIObject **)self);
  mrpc_return_object(result, *(TVMFFIObject **)self);
  return 0;
}

static int kept_count(MRPC_ARGUMENTS_OF_CALL) {
  MRPC_UNUSED;
  mrpc_return_int_to(result, (int64_t)((*(TVMFFIObject **)self)->combined_ref_count & 0xFFFFFFFFu));
  return 0;
}

static int kept_element(MRPC_ARGUMENTS_OF_CALL) {
  int64_t place;
  MRPC_UNUSED;
  if (mrpc_argument_int(args, num_args, 0, "an index", &place) != 0) return -1;
  return return_element(&(*(mrpc_tensor **)self)->tensor, place, result);
}

static int given_element(MRPC_ARGUMENTS_OF_CALL) {
  const DLTensor *tensor = num_args > 0 ? mrpc_tensor_of(&args[0]) : NULL;
  int64_t place;
  MRPC_UNUSED;
  if (tensor == NULL) return mrpc_wrong_argument(args, num_args, 0, "a tensor");
  if (mrpc_argument_int(args, num_args, 1, "an index", &place) != 0) return -1;
  return return_element(tensor, place, result);
}

static void end_kept(void *self) {
  mrpc_release(*(TVMFFIObject **)self);
  free(self);
}

/* Functions around one tensor of ten zeros, for what a test wants to see of it. */
static int return_tensor_function(MRPC_ARGUMENTS_OF_CALL) {
  static const mrpc_named functions[] = {{"get_arr", kept_tensor},
                                         {"ref_count", kept_count},
                                         {"get_elem", kept_element},
                                         {"get_arr_elem", given_element}};
  static const mrpc_dtype float32 = {2, 32, 1};
  static const int64_t ten = 10;
  TVMFFIByteArray name;
  size_t index;
  MRPC_UNUSED;
  if (mrpc_argument_text(args, num_args, 0, "a name", &name) != 0) return -1;
  for (index = 0; index < 4; index++) {
    TVMFFIObject *made, **kept;
    mrpc_tensor *tensor;
    if (strlen(functions[index].name) != name.size ||
        memcmp(functions[index].name, name.data, name.size) != 0) {
      continue;
    }
    tensor = mrpc_tensor_new(float32, 1, &ten);
    kept = tensor == NULL ? NULL : malloc(sizeof(TVMFFIObject *));
    if (kept == NULL) return mrpc_raise("MemoryError", "no memory for a tensor");
    memset(tensor->tensor.data, 0, 40);
    *kept = &tensor->object;
    made = mrpc_function_new(functions[index].call, kept, end_kept);
    if (made == NULL) return -1;
    mrpc_return_object(result, made);
    return 0;
  }
  return mrpc_raise("RuntimeError",
                    "unknown name '%.*s'; expected one of get_arr, ref_count, get_elem, get_arr_elem",
                    (int)(name.size < 80 ? name.size : 80), name.data);
}

static int check_ones(MRPC_ARGUMENTS_OF_CALL) {
  const DLTensor *tensor = num_args > 0 ? mrpc_tensor_of(&args[0]) : NULL;
  TVMFFIAny element;
  int64_t place;
  MRPC_UNUSED;
  if (tensor == NULL) return mrpc_wrong_argument(args, num_args, 0, "a tensor");
  if (tensor->ndim != 2 || tensor->shape[0] != 3 || tensor->shape[1] != 4) {
    return mrpc_raise("AssertionError", "expected ones of shape (3, 4)");
  }
  for (place = 0; place < 12; place++) {
    if (return_element(tensor, place, &element) != 0) return -1;
    if (element.as.v_float64 != 1) {
      return mrpc_raise("AssertionError", "expected ones of shape (3, 4)");
    }
  }
  return 0;
}

int mrpc_register_tests(void) {
  static const mrpc_named functions[] = {
      {"rpc.test.addone", add_one},
      {"rpc.test.strcat", concatenate},
      {"rpc.test.except", raise_value_error},
      {"rpc.test.runtime_str_concat", join_texts},
      {"rpc.test.add_to_lhs", add_to_lhs},
      {"rpc.test.remote_return_nd", return_tensor_function},
      {"rpc.test.remote_tensor_func", check_ones},
      {"rpc.test.remote_array_func", check_ones}, /* its name up to TVM 0.20 */
      {"testing.echo", echo},
      {"testing.nop", nop},
      {"testing.test_raise_error", raise_kind},
      {"testing.test_raise_error_callback", make_raiser}, /* up to TVM 0.20 */
      {"testing.test_check_eq_callback", make_comparer},
      {"testing.sleep_in_ffi", sleep_for},
      {"testing.sleep", sleep_for},
  };
  return mrpc_register(functions, sizeof(functions) / sizeof(functions[0]));
}
