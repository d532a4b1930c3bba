/* The functions of a session, by the names that clients look up. Those of files, of measuring and of
 * tuners have files of their own. */
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/utsname.h>
#include <time.h>

#include "printed.h"
#include "serving.h"

static int the_lifeline;

/* Arguments and results */

static int wrong(const TVMFFIAny *args, int32_t num_args, int index, const char *expected) {
  if (index >= num_args) {
    mrpc_raise("TypeError", "argument %d is missing; expected %s", index, expected);
  } else {
    mrpc_raise("TypeError", "argument %d is a value of kind %d; expected %s", index,
               (int)args[index].type_index, expected);
  }
  return -1;
}

int mrpc_argument_text(const TVMFFIAny *args, int32_t num_args, int index, const char *what,
                       TVMFFIByteArray *text) {
  if (index < num_args && mrpc_content_of(&args[index], text) == 0) return 0;
  return wrong(args, num_args, index, what);
}

int mrpc_argument_int(const TVMFFIAny *args, int32_t num_args, int index, const char *what,
                      int64_t *number) {
  if (index < num_args && (args[index].type_index == MRPC_TYPE_INT ||
                           args[index].type_index == MRPC_TYPE_BOOL)) {
    *number = args[index].as.v_int64;
    return 0;
  }
  return wrong(args, num_args, index, what);
}

int mrpc_argument_module(const TVMFFIAny *args, int32_t num_args, int index, TVMFFIObject **module) {
  if (index < num_args && args[index].type_index == MRPC_TYPE_MODULE) {
    *module = args[index].as.v_obj;
    return 0;
  }
  return wrong(args, num_args, index, "a module");
}

void mrpc_return_int_to(TVMFFIAny *result, int64_t number) {
  memset(result, 0, sizeof(*result));
  result->type_index = MRPC_TYPE_INT;
  result->as.v_int64 = number;
}

void mrpc_return_object(TVMFFIAny *result, TVMFFIObject *object) {
  memset(result, 0, sizeof(*result));
  result->type_index = object->type_index;
  result->as.v_obj = object;
}

int mrpc_return_text(TVMFFIAny *result, const void *text, size_t nbytes) {
  TVMFFIObject *made = mrpc_text_new(MRPC_TYPE_STR, text, nbytes);
  if (made == NULL) return -1;
  mrpc_return_object(result, made);
  return 0;
}

int mrpc_return_bytes(TVMFFIAny *result, const void *content, size_t nbytes) {
  TVMFFIObject *made = mrpc_text_new(MRPC_TYPE_BYTES, content, nbytes);
  if (made == NULL) return -1;
  mrpc_return_object(result, made);
  return 0;
}

int mrpc_register(const mrpc_named *functions, size_t count) {
  size_t index;
  for (index = 0; index < count; index++) {
    TVMFFIObject *made = mrpc_function_new(functions[index].call, NULL, NULL);
    int status;
    if (made == NULL) return -1;
    status = mrpc_global_set(functions[index].name, strlen(functions[index].name), made, 1);
    mrpc_release(made);
    if (status != 0) return -1;
  }
  return 0;
}

/* Functions with which any client can try any server */

#define ARGUMENTS void *self, const TVMFFIAny *args, int32_t num_args, TVMFFIAny *result
#define UNUSED (void)self, (void)args, (void)num_args, (void)result

static int add_one(ARGUMENTS) {
  int64_t number;
  UNUSED;
  if (num_args > 1) return mrpc_raise("TypeError", "%d arguments; expected one", (int)num_args);
  if (mrpc_argument_int(args, num_args, 0, "an int", &number) != 0) return -1;
  mrpc_return_int_to(result, (int64_t)((uint64_t)number + 1));
  return 0;
}

static int concatenate(ARGUMENTS) {
  TVMFFIByteArray name;
  int64_t number;
  char *text;
  int status;
  UNUSED;
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

static int raise_value_error(ARGUMENTS) {
  TVMFFIByteArray text;
  UNUSED;
  if (mrpc_argument_text(args, num_args, 0, "a text", &text) != 0) return -1;
  return raise_text("ValueError", 10, text.data, text.size);
}

static int raise_kind(ARGUMENTS) {
  TVMFFIByteArray kind, text;
  UNUSED;
  if (mrpc_argument_text(args, num_args, 0, "a kind of error", &kind) != 0 ||
      mrpc_argument_text(args, num_args, 1, "a text", &text) != 0) {
    return -1;
  }
  return raise_text(kind.data, kind.size, text.data, text.size);
}

static int join_texts(ARGUMENTS) {
  TVMFFIByteArray first, second;
  char *text;
  int status;
  UNUSED;
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

static int add_to(ARGUMENTS) {
  int64_t number, left;
  UNUSED;
  memcpy(&left, self, sizeof(left));
  if (mrpc_argument_int(args, num_args, 0, "an int", &number) != 0) return -1;
  mrpc_return_int_to(result, (int64_t)((uint64_t)left + (uint64_t)number));
  return 0;
}

static int add_to_lhs(ARGUMENTS) {
  int64_t left;
  UNUSED;
  if (mrpc_argument_int(args, num_args, 0, "an int", &left) != 0) return -1;
  return return_closure(add_to, &left, sizeof(left), result);
}

static int raise_kept(ARGUMENTS) {
  const char *text = self, *colon = strstr(text, ": ");
  size_t index, length = colon == NULL ? 0 : (size_t)(colon - text);
  UNUSED;
  for (index = 0; index < length; index++) {
    if (strchr("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz_0123456789.", text[index]) ==
        NULL) {
      length = 0;
    }
  }
  if (length == 0) return mrpc_raise("RuntimeError", "%s", text);
  return raise_text(text, length, colon + 2, strlen(colon + 2));
}

static int make_raiser(ARGUMENTS) {
  TVMFFIByteArray text;
  UNUSED;
  if (mrpc_argument_text(args, num_args, 0, "a text", &text) != 0) return -1;
  return return_closure(raise_kept, text.data, text.size, result);
}

static int compare_kept(ARGUMENTS) {
  int64_t left, right;
  UNUSED;
  if (mrpc_argument_int(args, num_args, 0, "an int", &left) != 0 ||
      mrpc_argument_int(args, num_args, 1, "an int", &right) != 0) {
    return -1;
  }
  if (left == right) return 0;
  return mrpc_raise("InternalError", "%lld is not %lld: %s", (long long)left, (long long)right,
                    (const char *)self);
}

static int make_comparer(ARGUMENTS) {
  TVMFFIByteArray text;
  UNUSED;
  if (mrpc_argument_text(args, num_args, 0, "a text", &text) != 0) return -1;
  return return_closure(compare_kept, text.data, text.size, result);
}

static int echo(ARGUMENTS) {
  UNUSED;
  if (num_args < 1) return mrpc_raise("TypeError", "testing.echo takes a value");
  *result = args[0];
  mrpc_keep(result);
  return 0;
}

static int nop(ARGUMENTS) { return num_args > 0 ? echo(self, args, num_args, result) : 0; }

static int sleep_for(ARGUMENTS) {
  struct timespec pause;
  double seconds;
  UNUSED;
  if (num_args < 1 ||
      (args[0].type_index != MRPC_TYPE_FLOAT && args[0].type_index != MRPC_TYPE_INT)) {
    return wrong(args, num_args, 0, "a number of seconds");
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

static int kept_tensor(ARGUMENTS) {
  UNUSED;
  mrpc_retain(*(TVMFFIObject **)self);
  mrpc_return_object(result, *(TVMFFIObject **)self);
  return 0;
}

static int kept_count(ARGUMENTS) {
  UNUSED;
  mrpc_return_int_to(result, (int64_t)((*(TVMFFIObject **)self)->combined_ref_count & 0xFFFFFFFFu));
  return 0;
}

static int kept_element(ARGUMENTS) {
  int64_t place;
  UNUSED;
  if (mrpc_argument_int(args, num_args, 0, "an index", &place) != 0) return -1;
  return return_element(&(*(mrpc_tensor **)self)->tensor, place, result);
}

static int given_element(ARGUMENTS) {
  const DLTensor *tensor = num_args > 0 ? mrpc_tensor_of(&args[0]) : NULL;
  int64_t place;
  UNUSED;
  if (tensor == NULL) return wrong(args, num_args, 0, "a tensor");
  if (mrpc_argument_int(args, num_args, 1, "an index", &place) != 0) return -1;
  return return_element(tensor, place, result);
}

static void end_kept(void *self) {
  mrpc_release(*(TVMFFIObject **)self);
  free(self);
}

/* Functions around one tensor of ten zeros, for what a test wants to see of it. */
static int return_tensor_function(ARGUMENTS) {
  static const mrpc_named functions[] = {{"get_arr", kept_tensor},
                                         {"ref_count", kept_count},
                                         {"get_elem", kept_element},
                                         {"get_arr_elem", given_element}};
  static const mrpc_dtype float32 = {2, 32, 1};
  static const int64_t ten = 10;
  TVMFFIByteArray name;
  size_t index;
  UNUSED;
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

static int check_ones(ARGUMENTS) {
  const DLTensor *tensor = num_args > 0 ? mrpc_tensor_of(&args[0]) : NULL;
  TVMFFIAny element;
  int64_t place;
  UNUSED;
  if (tensor == NULL) return wrong(args, num_args, 0, "a tensor");
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

/* Modules */

static int import_module(ARGUMENTS) {
  TVMFFIObject *parent, *child;
  UNUSED;
  if (mrpc_argument_module(args, num_args, 0, &parent) != 0 ||
      mrpc_argument_module(args, num_args, 1, &child) != 0) {
    return -1;
  }
  return mrpc_module_import(parent, child);
}

static int module_get_function(ARGUMENTS) {
  TVMFFIObject *module, *function;
  TVMFFIByteArray name;
  int64_t query_imports = 1;
  UNUSED;
  if (mrpc_argument_module(args, num_args, 0, &module) != 0 ||
      mrpc_argument_text(args, num_args, 1, "a name", &name) != 0 ||
      (num_args > 2 && mrpc_argument_int(args, num_args, 2, "a bool", &query_imports) != 0) ||
      mrpc_module_find(module, name.data, name.size, query_imports != 0, &function) != 0) {
    return -1;
  }
  if (function != NULL) mrpc_return_object(result, function);
  return 0;
}

static int function_names(ARGUMENTS) {
  TVMFFIObject *module;
  char *names;
  int status;
  UNUSED;
  if (mrpc_argument_module(args, num_args, 0, &module) != 0) return -1;
  names = mrpc_module_names(module);
  if (names == NULL) return mrpc_raise("MemoryError", "no memory for the names");
  status = mrpc_return_text(result, names, strlen(names));
  free(names);
  return status;
}

/* What the error for a function that is not there says behind TVM's words for it. */
static int missing_function(ARGUMENTS) {
  TVMFFIObject *module, *function;
  TVMFFIByteArray name;
  char *names, *hint, *text = NULL, *at, asked[1025];
  int status;
  UNUSED;
  if (mrpc_argument_module(args, num_args, 0, &module) != 0 ||
      mrpc_argument_text(args, num_args, 1, "a name", &name) != 0 ||
      mrpc_module_find(module, name.data, name.size, 1, &function) != 0) {
    return -1;
  }
  if (function != NULL || name.size > 1024) {
    if (function != NULL) mrpc_release(function);
    return mrpc_return_text(result, "", 0);
  }
  memcpy(asked, name.data, name.size);
  asked[name.size] = 0;
  hint = mrpc_module_hint(module, asked);
  if (hint == NULL) {
    names = mrpc_module_names(module);
    for (at = names; at != NULL && *at; at++) {
      if (*at == '\n') *at = ' ';
    }
    if (names != NULL &&
        asprintf(&text, *names ? "; it has: %s" : "; it has no functions", names) < 0) {
      text = NULL;
    }
    free(names);
    hint = text;
  }
  status = mrpc_return_text(result, hint == NULL ? "" : hint, hint == NULL ? 0 : strlen(hint));
  free(hint);
  return status;
}

static int clear_imports(ARGUMENTS) {
  TVMFFIObject *module;
  UNUSED;
  if (mrpc_argument_module(args, num_args, 0, &module) != 0) return -1;
  mrpc_module_clear_imports(module);
  return 0;
}

/* A library of machine code has no source. */
static int inspect_source(ARGUMENTS) {
  TVMFFIObject *module;
  UNUSED;
  if (mrpc_argument_module(args, num_args, 0, &module) != 0) return -1;
  return mrpc_return_text(result, "", 0);
}

static int system_lib(ARGUMENTS) {
  TVMFFIByteArray prefix = {"", 0};
  TVMFFIObject *module;
  UNUSED;
  if (num_args > 0 && mrpc_argument_text(args, num_args, 0, "a prefix", &prefix) != 0) return -1;
  mrpc_register_linked();
  module = mrpc_system_library(prefix.data, prefix.size);
  if (module == NULL) return -1;
  mrpc_return_object(result, module);
  return 0;
}

static int type_key(ARGUMENTS) {
  const char *key;
  UNUSED;
  if (num_args < 1) return wrong(args, num_args, 0, "an object");
  key = mrpc_type_key(args[0].type_index);
  if (key == NULL) return mrpc_raise("TypeError", "a value of no known type");
  return mrpc_return_text(result, key, strlen(key));
}

/* The machine */

static void first_line(const char *path, char *line, size_t room) {
  FILE *file = fopen(path, "re");
  line[0] = 0;
  if (file == NULL) return;
  if (fgets(line, (int)room, file) == NULL) line[0] = 0;
  fclose(file);
  line[strcspn(line, "\n")] = 0;
}

/* The value of a line of /proc/cpuinfo; empty if there is none. */
static void processor_line(const char *name, char *value, size_t room) {
  char line[256];
  FILE *file = fopen("/proc/cpuinfo", "re");
  value[0] = 0;
  while (file != NULL && value[0] == 0 && fgets(line, sizeof(line), file) != NULL) {
    char *colon = strchr(line, ':');
    if (colon == NULL || strncmp(line, name, strlen(name)) != 0) continue;
    if (line[strlen(name)] != ' ' && line[strlen(name)] != '\t' && line[strlen(name)] != ':') continue;
    colon += 1 + strspn(colon + 1, " \t");
    snprintf(value, room, "%.*s", (int)strcspn(colon, "\n"), colon);
  }
  if (file != NULL) fclose(file);
}

/* The board's name, or that of its processor. */
static int model(ARGUMENTS) {
  char text[512], name[128], maker[32], part[32];
  struct utsname system;
  UNUSED;
  first_line("/proc/device-tree/model", text, sizeof(text));
  if (text[0] == 0) {
    processor_line("model name", name, sizeof(name));
    processor_line("CPU implementer", maker, sizeof(maker));
    processor_line("CPU part", part, sizeof(part));
    if (name[0] == 0 && uname(&system) == 0) snprintf(name, sizeof(name), "%s", system.machine);
    snprintf(text, sizeof(text), maker[0] && part[0] ? "%s %s/%s" : "%s", name, maker, part);
  }
  return mrpc_return_text(result, text, strlen(text));
}

/* What the session has printed: the end's offset, then the text. */
static int output(ARGUMENTS) {
  int64_t since = 0, limit = -1, nbytes;
  char why[MRPC_WHY];
  uint8_t *text;
  int status;
  UNUSED;
  if (num_args > 0 && mrpc_argument_int(args, num_args, 0, "an offset", &since) != 0) return -1;
  if (num_args > 1 && args[1].type_index != MRPC_TYPE_NONE &&
      mrpc_argument_int(args, num_args, 1, "a number of bytes", &limit) != 0) {
    return -1;
  }
  if (since < 0 || limit < -1 || (num_args > 1 && args[1].type_index != MRPC_TYPE_NONE && limit < 0)) {
    return mrpc_raise("ValueError", "%lld is no number of bytes; expected 0 or more",
                      (long long)(since < 0 ? since : limit));
  }
  nbytes = mrpc_printed(the_lifeline, (uint64_t)since, limit, &text, why);
  if (nbytes < 0) return mrpc_raise("TimeoutError", "%s", why);
  status = mrpc_return_bytes(result, text, (size_t)nbytes);
  free(text);
  return status;
}

int mrpc_register_modules(void) {
  static const mrpc_named functions[] = {
      {"tvm.rpc.server.ImportModule", import_module},
      {"tvm.rpc.server.ModuleGetFunction", module_get_function},
      {"ffi.ModuleClearImports", clear_imports},
      {"ffi.ModuleInspectSource", inspect_source},
      {"runtime.SystemLib", system_lib},
      {"ffi.SystemLib", system_lib},
      {"tvmrpc.server.function_names", function_names},
      {"tvmrpc.server.missing_function", missing_function},
      {"tvmrpc.server.type_key", type_key},
      {"tvmrpc.server.model", model},
  };
  return mrpc_register(functions, sizeof(functions) / sizeof(functions[0]));
}

int mrpc_register_functions(const char *directory, int lifeline) {
  static const mrpc_named of_the_supervisor = {"tvmrpc.server.output", output};
  the_lifeline = lifeline;
  if (mrpc_files_open(directory) != 0 || mrpc_register_files() != 0 || mrpc_register_tests() != 0 ||
      mrpc_register_modules() != 0 || mrpc_register_timing() != 0 || mrpc_register_tuning() != 0) {
    return -1;
  }
  mrpc_register_containers();
  return lifeline < 0 ? 0 : mrpc_register(&of_the_supervisor, 1);
}
