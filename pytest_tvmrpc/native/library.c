/* Modules: shared libraries of compiled functions, and the functions that are linked in or registered.
 * Which mrpc_convention a plain function has is decided as in runtime/conventions.py. */
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "library.h"
#include "objects.h"

enum { FEW_ARGUMENTS = 32, MAX_ENTRY = 256 };

static mrpc_module *modules;
mrpc_system_entry *mrpc_system_symbols;
static variable *context_variables;
static mrpc_kept *global_functions; /* that code without a context has looked up */

static void *named_new(size_t nbytes, const char *name, size_t offset) {
  char *made = calloc(1, nbytes + strlen(name) + 1);
  if (made != NULL) memcpy(made + offset, name, strlen(name));
  return made;
}

/* Calls of a library's functions: a C function knows borrowed tensors and plain text. */

typedef struct {
  TVMFFISafeCallType call;
} c_function;

static void lower(TVMFFIAny *lowered, const TVMFFIAny *args, int32_t num_args) {
  int32_t index;
  for (index = 0; index < num_args; index++) {
    lowered[index] = args[index];
    if (args[index].type_index == MRPC_TYPE_TENSOR) {
      lowered[index].type_index = MRPC_TYPE_DL_TENSOR_PTR;
      lowered[index].as.v_ptr = &((mrpc_tensor *)args[index].as.v_obj)->tensor;
    } else if (args[index].type_index == MRPC_TYPE_STR) {
      lowered[index].type_index = MRPC_TYPE_RAW_STR;
      lowered[index].as.v_c_str = ((mrpc_text *)args[index].as.v_obj)->content.data;
    }
  }
}

static int call_c_function(void *self, const TVMFFIAny *args, int32_t num_args, TVMFFIAny *result) {
  TVMFFIAny few[FEW_ARGUMENTS], *lowered = few;
  int status;
  if (num_args > FEW_ARGUMENTS) {
    lowered = malloc((size_t)num_args * sizeof(*lowered));
    if (lowered == NULL) return mrpc_raise("MemoryError", "no memory for the arguments");
  }
  lower(lowered, args, num_args);
  status = ((c_function *)self)->call(NULL, lowered, num_args, result);
  if (lowered != few) free(lowered);
  return status;
}

static int call_cxx_function(void *self, const TVMFFIAny *args, int32_t num_args, TVMFFIAny *result) {
  return ((c_function *)self)->call(NULL, args, num_args, result);
}

TVMFFISafeCallType mrpc_direct_call(TVMFFIObject *function, TVMFFIAny *args, int32_t num_args,
                                    void **self) {
  mrpc_function *found = (mrpc_function *)function;
  if (found->safe_call == mrpc_inner_call) { /* one of ours */
    *self = found->self;
    if (found->call != call_c_function) return found->call;
    lower(args, args, num_args);
    *self = NULL;
    return ((c_function *)found->self)->call;
  }
  *self = function;
  return found->safe_call;
}

static TVMFFIObject *c_function_new(void *address, int is_cxx) {
  c_function *made = malloc(sizeof(*made));
  if (made == NULL) {
    mrpc_raise("MemoryError", "no memory for a function");
    return NULL;
  }
  memcpy(&made->call, &address, sizeof(address));
  return mrpc_function_new(is_cxx ? call_cxx_function : call_c_function, made, free);
}

/* Variables */

static void *program_symbol(const char *name) {
  static void *program;
  if (program == NULL) program = dlopen(NULL, RTLD_LAZY);
  return dlsym(program, name);
}

/* The value of a variable that compiled code has for its runtime; NULL if it is none of ours. */
static void *value_of(const char *name) {
  const variable *one;
  for (one = context_variables; one != NULL; one = one->next) {
    if (strcmp(one->name, name) == 0) return one->value;
  }
  return mrpc_begins(name, "__TVM") ? program_symbol(name + 2) : NULL;
}

static int is_context(const char *name) {
  return strcmp(name, "__tvm_ffi__library_ctx") == 0 || strcmp(name, "__tvm_ffi_library_ctx") == 0 ||
         strcmp(name, "__tvm_module_ctx") == 0;
}

static void fill_variables(mrpc_module *module) {
  size_t index;
  for (index = 0; index < module->elf.symbol_count; index++) {
    mrpc_symbol symbol = mrpc_elf_symbol(&module->elf, index);
    void *value, **place;
    if (!symbol.is_defined || symbol.is_function) continue;
    value = is_context(symbol.name) ? module : value_of(symbol.name);
    if (value == NULL) continue;
    place = dlsym(module->library, symbol.name);
    if (place != NULL) *place = value;
  }
}

int mrpc_context_symbol(const char *name, void *value) {
  variable *made = named_new(sizeof(*made), name, offsetof(variable, name));
  if (made == NULL) return mrpc_raise("MemoryError", "no memory for a variable");
  made->value = value;
  made->next = context_variables;
  context_variables = made;
  return 0;
}

/* Opening */

static void end_module(void *self, int flags) {
  (void)self, (void)flags; /* a library stays in the process, and its code knows its module */
}

static mrpc_module *module_new(const char *path) {
  mrpc_module *made = mrpc_object_new(sizeof(*made), MRPC_TYPE_MODULE, end_module);
  if (made == NULL) return NULL;
  made->path = strdup(path);
  if (made->path == NULL) {
    free(made);
    mrpc_raise("MemoryError", "no memory for a module");
    return NULL;
  }
  made->next = modules;
  modules = made;
  return made;
}

/* Functions of TVM that a library wants and nobody has: all of them, for one message. */
static int check_wanted(const mrpc_elf *elf, const char *path) {
  char names[512] = "";
  size_t index, used = 0;
  for (index = 0; index < elf->symbol_count; index++) {
    mrpc_symbol symbol = mrpc_elf_symbol(elf, index);
    if (symbol.is_defined || !mrpc_begins(symbol.name, "TVM") || program_symbol(symbol.name) != NULL) {
      continue;
    }
    if (used + strlen(symbol.name) + 3 < sizeof(names)) {
      used += (size_t)snprintf(names + used, sizeof(names) - used, "%s%s", used ? ", " : "",
                               symbol.name);
    }
  }
  if (used == 0) return 0;
  return mrpc_raise("LibraryError",
                    "%s cannot be loaded: it wants functions of TVM that are not in this server: %s; "
                    "expected those of docs/c-api.md; run it in a server that has TVM", path, names);
}

static const char *hint_for(const char *reason) {
  if (strstr(reason, "undefined symbol") != NULL) {
    return "link the library that defines it, or compile its source in";
  }
  if (strstr(reason, "cannot open shared object") != NULL) {
    return "install that library on this machine, or link it statically";
  }
  if (strstr(reason, "not found") != NULL) {
    return "link it with a system library as old as this machine's, such as the glibc 2.17 of "
           "cross_compiler";
  }
  if (strstr(reason, "failed to map segment") != NULL) {
    return "see whether its folder is mounted noexec";
  }
  return "build it for this machine and send it again";
}

static int open_library(mrpc_module *module) {
  const char *needed, *base;
  size_t number;
  for (number = 0; (needed = mrpc_elf_needed(&module->elf, number)) != NULL; number++) {
    base = strrchr(needed, '/');
    base = base == NULL ? needed : base + 1;
    if (!mrpc_begins(base, "libtvm_ffi.")) continue;
    module->is_cxx = 1;
    if (mrpc_elf_stand_in(needed) != 0) return -1;
  }
  mrpc_loading_begin();
  module->library = dlopen(module->path, RTLD_NOW | RTLD_LOCAL);
  if (mrpc_loading_end() != 0) return -1;
  if (module->library != NULL) return 0;
  base = dlerror();
  return mrpc_raise("LibraryError",
                    "%s cannot be loaded: %s; expected a library with everything it needs on this "
                    "machine; %s", module->path, base, hint_for(base));
}

TVMFFIObject *mrpc_library_load(const char *path) {
  mrpc_module *module;
  mrpc_elf elf;
  if (mrpc_elf_open(&elf, path) != 0) return NULL;
  if (check_wanted(&elf, path) != 0 || (module = module_new(path)) == NULL) {
    mrpc_elf_close(&elf);
    return NULL;
  }
  module->elf = elf;
  module->plain = mrpc_convention_of(&elf);
  if (open_library(module) != 0 ||
      mrpc_read_imports(module->library, &module->elf, path, &module->missing_kinds) != 0) {
    mrpc_elf_close(&module->elf);
    return NULL;
  }
  fill_variables(module);
  mrpc_retain(&module->object); /* the list's */
  return &module->object;
}

int mrpc_load_libraries(const char *libraries) {
  while (libraries != NULL && *libraries) {
    const char *end = strchr(libraries, ':');
    size_t length = end == NULL ? strlen(libraries) : (size_t)(end - libraries);
    char *path = strndup(libraries, length);
    int is_loaded;
    if (path == NULL) return mrpc_raise("MemoryError", "no memory to load libraries");
    mrpc_loading_begin();
    is_loaded = length == 0 || dlopen(path, RTLD_NOW | RTLD_GLOBAL) != NULL;
    if (mrpc_loading_end() != 0) is_loaded = -1;
    if (is_loaded == 0) {
      mrpc_raise("LibraryError", "--load-library %s cannot be loaded: %s", path, dlerror());
    }
    free(path);
    if (is_loaded != 1) return -1;
    libraries += length + (end != NULL);
  }
  return 0;
}

/* Finding functions */

static TVMFFIObject *found_before(const mrpc_kept *known, const char *name) {
  for (; known != NULL; known = known->next) {
    if (strcmp(known->name, name) == 0) return known->function;
  }
  return NULL;
}

/* Keeps a function for as long as the process lives; takes over its reference. */
static TVMFFIObject *keep(mrpc_kept **all, const char *name, TVMFFIObject *function) {
  mrpc_kept *made = named_new(sizeof(*made), name, offsetof(mrpc_kept, name));
  if (made == NULL) {
    mrpc_release(function);
    mrpc_raise("MemoryError", "no memory for a function");
    return NULL;
  }
  made->function = function;
  made->next = *all;
  *all = made;
  return function;
}

static TVMFFIObject *plain_function(mrpc_module *module, const char *name) {
  mrpc_symbol symbol;
  void *address;
  if (module->plain == MRPC_NO_CONVENTION || !mrpc_elf_find(&module->elf, name, &symbol) ||
      !symbol.is_function || (address = dlsym(module->library, name)) == NULL) {
    return NULL;
  }
  if (module->plain == MRPC_LEGACY_CONVENTION) return mrpc_legacy_function_new(address, NULL);
  return c_function_new(address, module->is_cxx);
}

static TVMFFIObject *library_function(mrpc_module *module, const char *name) {
  char symbol[MRPC_MAX_SYMBOL + sizeof(MRPC_PREFIX)];
  void *address;
  if (name[0] && name[0] != '_') {
    snprintf(symbol, sizeof(symbol), MRPC_PREFIX "%s", name);
    address = dlsym(module->library, symbol);
    if (address != NULL) return c_function_new(address, module->is_cxx);
  }
  return mrpc_is_reserved(name) ? NULL : plain_function(module, name);
}

/* What __tvm_main__ is, or names. */
static TVMFFIObject *library_entry(mrpc_module *module) {
  mrpc_symbol symbol;
  char name[MAX_ENTRY + 1];
  const char *place;
  size_t length;
  if (module->plain == MRPC_NO_CONVENTION || !mrpc_elf_find(&module->elf, MRPC_ENTRY, &symbol)) return NULL;
  if (symbol.is_function) return plain_function(module, MRPC_ENTRY);
  place = dlsym(module->library, MRPC_ENTRY);
  length = symbol.size < MAX_ENTRY ? symbol.size : MAX_ENTRY;
  if (place == NULL) return NULL;
  memcpy(name, place, length);
  name[length] = 0;
  return library_function(module, name);
}

static const mrpc_system_entry *symbol_named(const char *first, const char *second, const char *third) {
  char name[2 * MRPC_MAX_SYMBOL];
  const mrpc_system_entry *one;
  if (snprintf(name, sizeof(name), "%s%s%s", first, second, third) >= (int)sizeof(name)) return NULL;
  for (one = mrpc_system_symbols; one != NULL; one = one->next) {
    if (strcmp(one->name, name) == 0) return one;
  }
  return NULL;
}

static TVMFFIObject *system_function(const char *prefix, const char *name) {
  const mrpc_system_entry *found;
  if (mrpc_is_reserved(name)) return NULL;
  found = symbol_named(MRPC_PREFIX, prefix, name);
  if (found == NULL) found = symbol_named(MRPC_PREFIX, name, "");
  if (found != NULL) return c_function_new(found->address, 0);
  found = symbol_named(prefix, name, "");
  if (found == NULL) found = symbol_named(name, "", "");
  if (found == NULL) return NULL;
  return found->is_legacy ? mrpc_legacy_function_new(found->address, NULL)
                          : c_function_new(found->address, 0);
}

static TVMFFIObject *system_entry(const char *prefix) {
  const mrpc_system_entry *found = symbol_named(prefix, MRPC_ENTRY, "");
  return found == NULL ? NULL : system_function(prefix, found->address);
}

static TVMFFIObject *own_function(mrpc_module *module, const char *name) {
  int is_entry = strcmp(name, MRPC_ENTRY) == 0;
  const char *asked = is_entry ? "main" : name;
  TVMFFIObject *found = module->library == NULL ? system_function(module->path, asked)
                                                : library_function(module, asked);
  if (found != NULL || strcmp(asked, "main") != 0) return found;
  return module->library == NULL ? system_entry(module->path) : library_entry(module);
}

static int is_of_models(const char *name) {
  return strcmp(name, "vm_load_executable") == 0 || strcmp(name, "get_graph_json") == 0 ||
         strcmp(name, "vm_profiler_load_executable") == 0 || strcmp(name, "get_graph_params") == 0;
}

static TVMFFIObject *find_in(mrpc_module *module, const char *name, int query_imports, int depth) {
  TVMFFIObject *found = found_before(module->found, name);
  size_t index;
  if (found != NULL) {
    mrpc_retain(found);
    return found;
  }
  found = own_function(module, name);
  if (found != NULL) {
    mrpc_retain(found);
    return keep(&module->found, name, found);
  }
  for (index = 0; query_imports && depth < 64 && index < module->import_count; index++) {
    found = find_in((mrpc_module *)module->imports[index], name, 1, depth + 1);
    if (found != NULL) return found;
  }
  return NULL;
}

int mrpc_module_find(TVMFFIObject *object, const char *text, size_t nbytes, int query_imports,
                     TVMFFIObject **function) {
  mrpc_module *module = (mrpc_module *)object;
  char name[MRPC_MAX_SYMBOL + 1];
  *function = NULL;
  if (nbytes > MRPC_MAX_SYMBOL || memchr(text, 0, nbytes) != NULL) return 0; /* no function's name */
  memcpy(name, text, nbytes);
  name[nbytes] = 0;
  *function = find_in(module, name, query_imports, 0);
  if (*function == NULL && is_of_models(name) && module->missing_kinds != NULL) {
    return mrpc_raise("LibraryError",
                      "%s is a model (%s), and '%s' runs it, which is not supported yet; expected a "
                      "function of its compiled code", module->path, module->missing_kinds, name);
  }
  return 0;
}

TVMFFIObject *mrpc_lookup(void *library_ctx, const char *name) {
  TVMFFIObject *found = NULL;
  mrpc_module *module = modules;
  mrpc_kept **all;
  size_t index;
  while (module != NULL && (void *)module != library_ctx) module = module->next;
  all = module == NULL ? &global_functions : &module->looked_up;
  found = found_before(*all, name);
  if (found != NULL) return found;
  for (index = 0; module != NULL && found == NULL && index < module->import_count; index++) {
    found = find_in((mrpc_module *)module->imports[index], name, 1, 0);
  }
  if (found == NULL) {
    found = mrpc_global_find(name, strlen(name));
    if (found == NULL) return NULL;
    mrpc_retain(found);
  }
  return keep(all, name, found);
}

/* The system library */

int mrpc_system_symbol(const char *name, void *symbol, int is_legacy) {
  mrpc_system_entry *made;
  if (name == NULL || !*name || symbol == NULL) {
    return mrpc_raise("ValueError", "compiled code registers '%s' without a name or an address",
                      name == NULL ? "" : name);
  }
  if (mrpc_begins(name, "__") && !mrpc_begins(name, MRPC_PREFIX)) { /* a variable of code that is linked in */
    void *value = value_of(name);
    if (value != NULL) *(void **)symbol = value;
  }
  made = named_new(sizeof(*made), name, offsetof(mrpc_system_entry, name));
  if (made == NULL) return mrpc_raise("MemoryError", "no memory for a symbol");
  made->address = symbol;
  made->is_legacy = is_legacy;
  made->next = mrpc_system_symbols;
  mrpc_system_symbols = made;
  if (is_context(name)) {
    TVMFFIObject *module = mrpc_system_library("", 0);
    if (module != NULL) *(void **)symbol = module;
  }
  return 0;
}

/* Kernels that are linked into this program, and do not register: it exports them by their names. */
void mrpc_register_linked(void) {
  static int is_done;
  mrpc_elf elf;
  size_t index, nbytes;
  if (is_done) return;
  is_done = 1;
  if (mrpc_elf_open(&elf, "/proc/self/exe") != 0) { /* not there: nothing to be found that way */
    free(mrpc_take_error(&nbytes));
    return;
  }
  for (index = 0; index < elf.symbol_count; index++) {
    mrpc_symbol symbol = mrpc_elf_symbol(&elf, index);
    void *place = symbol.is_defined ? program_symbol(symbol.name) : NULL;
    if (place == NULL) continue;
    if (symbol.is_function && mrpc_begins(symbol.name, MRPC_PREFIX) && symbol.name[strlen(MRPC_PREFIX)] != '_') {
      if (symbol_named(symbol.name, "", "") == NULL && mrpc_system_symbol(symbol.name, place, 0) != 0) {
        free(mrpc_take_error(&nbytes));
      }
    } else if (!symbol.is_function) {
      void *value = value_of(symbol.name);
      if (value != NULL) *(void **)place = value;
    }
  }
  mrpc_elf_close(&elf);
}

TVMFFIObject *mrpc_system_library(const char *prefix, size_t nbytes) {
  char text[MRPC_MAX_SYMBOL + 1];
  mrpc_module *module;
  if (nbytes > MRPC_MAX_SYMBOL || memchr(prefix, 0, nbytes) != NULL) {
    mrpc_raise("ValueError", "a prefix of symbols has at most %d characters", MRPC_MAX_SYMBOL);
    return NULL;
  }
  memcpy(text, prefix, nbytes);
  text[nbytes] = 0;
  for (module = modules; module != NULL; module = module->next) {
    if (module->library == NULL && module->elf.image == NULL && strcmp(module->path, text) == 0) {
      mrpc_retain(&module->object);
      return &module->object;
    }
  }
  module = module_new(text);
  if (module == NULL) return NULL;
  mrpc_retain(&module->object); /* the list's */
  return &module->object;
}
