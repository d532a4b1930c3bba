/* The functions of a session, by the names that clients look up. Those of files, of measuring and of
 * tuners have files of their own. */
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/utsname.h>
#include <time.h>

#include "objects.h"
#include "printed.h"
#include "serving.h"

static int the_lifeline;

/* Arguments and results */

int mrpc_wrong_argument(const TVMFFIAny *args, int32_t num_args, int index, const char *expected) {
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
  return mrpc_wrong_argument(args, num_args, index, what);
}

int mrpc_argument_int(const TVMFFIAny *args, int32_t num_args, int index, const char *what,
                      int64_t *number) {
  if (index < num_args && (args[index].type_index == MRPC_TYPE_INT ||
                           args[index].type_index == MRPC_TYPE_BOOL)) {
    *number = args[index].as.v_int64;
    return 0;
  }
  return mrpc_wrong_argument(args, num_args, index, what);
}

int mrpc_argument_module(const TVMFFIAny *args, int32_t num_args, int index, TVMFFIObject **module) {
  if (index < num_args && args[index].type_index == MRPC_TYPE_MODULE) {
    *module = args[index].as.v_obj;
    return 0;
  }
  return mrpc_wrong_argument(args, num_args, index, "a module");
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

/* Modules */

static int import_module(MRPC_ARGUMENTS_OF_CALL) {
  TVMFFIObject *parent, *child;
  MRPC_UNUSED;
  if (mrpc_argument_module(args, num_args, 0, &parent) != 0 ||
      mrpc_argument_module(args, num_args, 1, &child) != 0) {
    return -1;
  }
  return mrpc_module_import(parent, child);
}

static int module_get_function(MRPC_ARGUMENTS_OF_CALL) {
  TVMFFIObject *module, *function;
  TVMFFIByteArray name;
  int64_t query_imports = 1;
  MRPC_UNUSED;
  if (mrpc_argument_module(args, num_args, 0, &module) != 0 ||
      mrpc_argument_text(args, num_args, 1, "a name", &name) != 0 ||
      (num_args > 2 && mrpc_argument_int(args, num_args, 2, "a bool", &query_imports) != 0) ||
      mrpc_module_find(module, name.data, name.size, query_imports != 0, &function) != 0) {
    return -1;
  }
  if (function != NULL) mrpc_return_object(result, function);
  return 0;
}

static int function_names(MRPC_ARGUMENTS_OF_CALL) {
  TVMFFIObject *module;
  char *names;
  int status;
  MRPC_UNUSED;
  if (mrpc_argument_module(args, num_args, 0, &module) != 0) return -1;
  names = mrpc_module_names(module);
  if (names == NULL) return mrpc_raise("MemoryError", "no memory for the names");
  status = mrpc_return_text(result, names, strlen(names));
  free(names);
  return status;
}

/* What the error for a function that is not there says behind TVM's words for it. */
static int missing_function(MRPC_ARGUMENTS_OF_CALL) {
  TVMFFIObject *module, *function;
  TVMFFIByteArray name;
  char *names, *hint, *text = NULL, *at, asked[1025];
  int status;
  MRPC_UNUSED;
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

static int clear_imports(MRPC_ARGUMENTS_OF_CALL) {
  TVMFFIObject *module;
  MRPC_UNUSED;
  if (mrpc_argument_module(args, num_args, 0, &module) != 0) return -1;
  mrpc_module_clear_imports(module);
  return 0;
}

/* A library of machine code has no source. */
static int inspect_source(MRPC_ARGUMENTS_OF_CALL) {
  TVMFFIObject *module;
  MRPC_UNUSED;
  if (mrpc_argument_module(args, num_args, 0, &module) != 0) return -1;
  return mrpc_return_text(result, "", 0);
}

static int system_lib(MRPC_ARGUMENTS_OF_CALL) {
  TVMFFIByteArray prefix = {"", 0};
  TVMFFIObject *module;
  MRPC_UNUSED;
  if (num_args > 0 && mrpc_argument_text(args, num_args, 0, "a prefix", &prefix) != 0) return -1;
  mrpc_register_linked();
  module = mrpc_system_library(prefix.data, prefix.size);
  if (module == NULL) return -1;
  mrpc_return_object(result, module);
  return 0;
}

static int type_key(MRPC_ARGUMENTS_OF_CALL) {
  const char *key;
  MRPC_UNUSED;
  if (num_args < 1) return mrpc_wrong_argument(args, num_args, 0, "an object");
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
static int model(MRPC_ARGUMENTS_OF_CALL) {
  char text[512], name[128], maker[32], part[32];
  struct utsname system;
  MRPC_UNUSED;
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
static int output(MRPC_ARGUMENTS_OF_CALL) {
  int64_t since = 0, limit = -1, nbytes;
  char why[MRPC_WHY];
  uint8_t *text;
  int status;
  MRPC_UNUSED;
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
  if (nbytes < 0) {
    TVMAPISetLastError(why); /* which begins with its kind */
    return -1;
  }
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
