/* Modules: shared libraries of compiled functions, and the functions that are linked in or registered.
 * Which convention a plain function has is decided as in runtime/conventions.py. */
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "library_file.h"
#include "serving.h"

#define PREFIX "__tvm_ffi_"
#define ENTRY "__tvm_main__"

enum { FEW_ARGUMENTS = 32, MAX_SYMBOL = 1024, MAX_ENTRY = 256 };

typedef enum { NO_CONVENTION, LEGACY_CONVENTION, FFI_CONVENTION } convention;

/* A function that was found, kept for code that counts no reference. */
typedef struct kept {
  struct kept *next;
  TVMFFIObject *function;
  char name[];
} kept;

struct mrpc_module {
  TVMFFIObject object;
  mrpc_module *next; /* of all: libraries stay in the process, and so do their modules */
  void *library;     /* NULL: the system library */
  char *path;        /* of the library; the prefix of a system library */
  convention plain;
  int is_cxx;
  char *missing_kinds; /* of modules that it brings and nothing here can run */
  mrpc_elf elf;
  kept *looked_up, *found;
  TVMFFIObject **imports;
  size_t import_count;
};

typedef struct system_symbol {
  struct system_symbol *next;
  void *address;
  int is_legacy;
  char name[];
} system_symbol;

typedef struct variable {
  struct variable *next;
  void *value;
  char name[];
} variable;

static mrpc_module *modules;
static system_symbol *system_symbols;
static variable *context_variables;
static kept *global_functions; /* that code without a context has looked up */

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
  if (found->safe_call == ((mrpc_function *)mrpc_upload_function)->safe_call) { /* one of ours */
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

/* Conventions */

static int begins(const char *text, const char *with) {
  return strncmp(text, with, strlen(with)) == 0;
}

static int is_reserved(const char *name) {
  size_t length = strlen(name);
  if (length == 0) return 1;
  if (name[0] == '_' && (name[1] == '_' || (name[1] >= 'A' && name[1] <= 'Z'))) return 1;
  if (strcmp(name, "_init") == 0 || strcmp(name, "_fini") == 0) return 1;
  return begins(name, "TVM") && name[3] >= 'A' && name[3] <= 'Z';
}

static const char *bare(const char *name) { return begins(name, "__TVM") ? name + 2 : name; }

/* What the names of a library's symbols say. */
typedef struct {
  int is_of_021, is_legacy, has_prefix, uses_ffi, is_after_021, has_entry, uses_runtime;
} marks;

static void look_at(marks *seen, const mrpc_symbol *symbol) {
  const char *name = symbol->name, *plain = bare(symbol->name);
  int is_of_021 =
      strcmp(name, "__tvm_ffi_library_ctx") == 0 || strcmp(name, "__tvm_ffi_library_bin") == 0;
  if (is_of_021) {
    seen->is_of_021 |= symbol->is_defined;
  } else if (begins(name, PREFIX)) {
    seen->has_prefix = 1;
  }
  if (symbol->is_defined) {
    seen->is_legacy |= strcmp(name, "__tvm_module_ctx") == 0 || strcmp(name, "__tvm_dev_mblob") == 0 ||
                       strcmp(name, "__TVMFuncCall") == 0 || strcmp(name, "__TVMAPISetLastError") == 0;
    seen->has_entry |= strcmp(name, ENTRY) == 0;
  } else {
    seen->is_legacy |= strcmp(name, "TVMFuncCall") == 0 || strcmp(name, "TVMAPISetLastError") == 0;
  }
  seen->uses_ffi |= begins(plain, "TVMFFI");
  seen->is_after_021 |= begins(plain, "TVMFFIEnvMod") || begins(plain, "TVMFFIHandleInitOnce");
  seen->uses_runtime |= begins(plain, "TVM") && plain[3] >= 'A' && plain[3] <= 'Z';
}

static convention convention_of(const mrpc_elf *elf) {
  marks seen;
  size_t index;
  memset(&seen, 0, sizeof(seen));
  for (index = 0; index < elf->symbol_count; index++) {
    mrpc_symbol symbol = mrpc_elf_symbol(elf, index);
    look_at(&seen, &symbol);
  }
  if (seen.has_prefix) {
    int is_legacy = seen.is_legacy || seen.has_entry;
    return is_legacy && !seen.is_of_021 ? LEGACY_CONVENTION : NO_CONVENTION;
  }
  if (seen.is_legacy) {
    return seen.is_of_021 || seen.uses_ffi ? NO_CONVENTION : LEGACY_CONVENTION;
  }
  if (seen.is_of_021) return FFI_CONVENTION;
  if (seen.is_after_021) return NO_CONVENTION;
  if (seen.uses_ffi) return FFI_CONVENTION;
  return seen.has_entry || seen.uses_runtime ? LEGACY_CONVENTION : NO_CONVENTION;
}

static int find_symbol(const mrpc_elf *elf, const char *name, mrpc_symbol *found) {
  size_t index;
  for (index = 0; index < elf->symbol_count; index++) {
    *found = mrpc_elf_symbol(elf, index);
    if (found->is_defined && strcmp(found->name, name) == 0) return 1;
  }
  return 0;
}

/* The tables of modules that a library brings with it. They are little-endian on the machines that
 * TVM compiles for; none is read beyond its size. */

typedef struct {
  const uint8_t *at;
  size_t left;
} table;

static int take_number(table *from, uint64_t *number) {
  if (from->left < 8) return -1;
  *number = mrpc_get_u64(from->at);
  from->at += 8;
  from->left -= 8;
  return 0;
}

static int take_text(table *from, const uint8_t **text, uint64_t *nbytes) {
  if (take_number(from, nbytes) != 0 || *nbytes > from->left) return -1;
  *text = from->at;
  from->at += *nbytes;
  from->left -= (size_t)*nbytes;
  return 0;
}

static int skip_vector(table *from, uint64_t *count) {
  if (take_number(from, count) != 0 || *count > from->left / 8) return -1;
  from->at += 8 * *count;
  from->left -= (size_t)(8 * *count);
  return 0;
}

static int add_kind(char **kinds, const uint8_t *kind, uint64_t nbytes) {
  size_t before = *kinds == NULL ? 0 : strlen(*kinds);
  char *longer;
  if (nbytes == 4 && memcmp(kind, "_lib", 4) == 0) return 0;
  if (nbytes > MAX_SYMBOL) return -1;
  longer = realloc(*kinds, before + (size_t)nbytes + 3);
  if (longer == NULL) return -1;
  *kinds = longer;
  snprintf(longer + before, (size_t)nbytes + 3, "%s%.*s", before ? ", " : "", (int)nbytes,
           (const char *)kind);
  return 0;
}

static int read_modules(table *from, char **kinds) {
  uint64_t count, index, nbytes;
  const uint8_t *text, *content;
  if (skip_vector(from, &count) != 0 || skip_vector(from, &index) != 0) return -1;
  for (index = 0; index + 1 < count; index++) {
    if (take_text(from, &text, &nbytes) != 0 || add_kind(kinds, text, nbytes) != 0) return -1;
    if (nbytes == 4 && memcmp(text, "_lib", 4) == 0) continue;
    if (take_text(from, &content, &nbytes) != 0) return -1;
  }
  return from->left == 0 ? 0 : -1;
}

static int read_entries(table *from, char **kinds) {
  uint64_t count, nbytes, skipped;
  const uint8_t *text;
  if (take_number(from, &count) != 0 || count > from->left) return -1;
  while (count-- > 0) {
    if (take_text(from, &text, &nbytes) != 0) return -1;
    if (nbytes == 12 && memcmp(text, "_import_tree", 12) == 0) {
      if (skip_vector(from, &skipped) != 0 || skip_vector(from, &skipped) != 0) return -1;
      continue;
    }
    if (add_kind(kinds, text, nbytes) != 0) return -1;
    if (nbytes != 4 || memcmp(text, "_lib", 4) != 0) return 0; /* what follows only its loader knows */
  }
  return 0;
}

static int read_imports(mrpc_module *module) {
  static const char *const names[] = {"__tvm_ffi__library_bin", "__tvm_ffi_library_bin",
                                      "__tvm_dev_mblob"};
  size_t index;
  for (index = 0; index < 3; index++) {
    mrpc_symbol symbol;
    table content;
    uint64_t nbytes;
    content.at = dlsym(module->library, names[index]);
    if (content.at == NULL || !find_symbol(&module->elf, names[index], &symbol)) continue;
    content.left = symbol.size;
    if (take_number(&content, &nbytes) != 0 || nbytes > content.left ||
        (content.left = (size_t)nbytes,
         (index == 0 ? read_modules : read_entries)(&content, &module->missing_kinds) != 0)) {
      return mrpc_raise("LibraryError",
                        "%s: its table of imported modules is damaged; expected the one that TVM's "
                        "export_library writes; build it again", module->path);
    }
    return 0;
  }
  return 0;
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
  return begins(name, "__TVM") ? program_symbol(name + 2) : NULL;
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
    if (symbol.is_defined || !begins(symbol.name, "TVM") || program_symbol(symbol.name) != NULL) {
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
    if (!begins(base, "libtvm_ffi.")) continue;
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
  module->plain = convention_of(&elf);
  if (open_library(module) != 0 || read_imports(module) != 0) return NULL;
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

static TVMFFIObject *found_before(const kept *known, const char *name) {
  for (; known != NULL; known = known->next) {
    if (strcmp(known->name, name) == 0) return known->function;
  }
  return NULL;
}

/* Keeps a function for as long as the process lives; takes over its reference. */
static TVMFFIObject *keep(kept **all, const char *name, TVMFFIObject *function) {
  kept *made = named_new(sizeof(*made), name, offsetof(kept, name));
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
  if (module->plain == NO_CONVENTION || !find_symbol(&module->elf, name, &symbol) ||
      !symbol.is_function || (address = dlsym(module->library, name)) == NULL) {
    return NULL;
  }
  if (module->plain == LEGACY_CONVENTION) return mrpc_legacy_function_new(address, NULL);
  return c_function_new(address, module->is_cxx);
}

static TVMFFIObject *library_function(mrpc_module *module, const char *name) {
  char symbol[MAX_SYMBOL + sizeof(PREFIX)];
  void *address;
  if (name[0] && name[0] != '_') {
    snprintf(symbol, sizeof(symbol), PREFIX "%s", name);
    address = dlsym(module->library, symbol);
    if (address != NULL) return c_function_new(address, module->is_cxx);
  }
  return is_reserved(name) ? NULL : plain_function(module, name);
}

/* What __tvm_main__ is, or names. */
static TVMFFIObject *library_entry(mrpc_module *module) {
  mrpc_symbol symbol;
  char name[MAX_ENTRY + 1];
  const char *place;
  size_t length;
  if (module->plain == NO_CONVENTION || !find_symbol(&module->elf, ENTRY, &symbol)) return NULL;
  if (symbol.is_function) return plain_function(module, ENTRY);
  place = dlsym(module->library, ENTRY);
  length = symbol.size < MAX_ENTRY ? symbol.size : MAX_ENTRY;
  if (place == NULL) return NULL;
  memcpy(name, place, length);
  name[length] = 0;
  return library_function(module, name);
}

static const system_symbol *symbol_named(const char *first, const char *second, const char *third) {
  char name[2 * MAX_SYMBOL];
  const system_symbol *one;
  if (snprintf(name, sizeof(name), "%s%s%s", first, second, third) >= (int)sizeof(name)) return NULL;
  for (one = system_symbols; one != NULL; one = one->next) {
    if (strcmp(one->name, name) == 0) return one;
  }
  return NULL;
}

static TVMFFIObject *system_function(const char *prefix, const char *name) {
  const system_symbol *found;
  if (is_reserved(name)) return NULL;
  found = symbol_named(PREFIX, prefix, name);
  if (found == NULL) found = symbol_named(PREFIX, name, "");
  if (found != NULL) return c_function_new(found->address, 0);
  found = symbol_named(prefix, name, "");
  if (found == NULL) found = symbol_named(name, "", "");
  if (found == NULL) return NULL;
  return found->is_legacy ? mrpc_legacy_function_new(found->address, NULL)
                          : c_function_new(found->address, 0);
}

static TVMFFIObject *system_entry(const char *prefix) {
  const system_symbol *found = symbol_named(prefix, ENTRY, "");
  return found == NULL ? NULL : system_function(prefix, found->address);
}

static TVMFFIObject *own_function(mrpc_module *module, const char *name) {
  int is_entry = strcmp(name, ENTRY) == 0;
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
  char name[MAX_SYMBOL + 1];
  *function = NULL;
  if (nbytes > MAX_SYMBOL || memchr(text, 0, nbytes) != NULL) return 0; /* no function's name */
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
  kept **all;
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
  system_symbol *made;
  if (name == NULL || !*name || symbol == NULL) {
    return mrpc_raise("ValueError", "compiled code registers '%s' without a name or an address",
                      name == NULL ? "" : name);
  }
  if (begins(name, "__") && !begins(name, PREFIX)) { /* a variable of code that is linked in */
    void *value = value_of(name);
    if (value != NULL) *(void **)symbol = value;
  }
  made = named_new(sizeof(*made), name, offsetof(system_symbol, name));
  if (made == NULL) return mrpc_raise("MemoryError", "no memory for a symbol");
  made->address = symbol;
  made->is_legacy = is_legacy;
  made->next = system_symbols;
  system_symbols = made;
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
    if (symbol.is_function && begins(symbol.name, PREFIX) && symbol.name[strlen(PREFIX)] != '_') {
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
  char text[MAX_SYMBOL + 1];
  mrpc_module *module;
  if (nbytes > MAX_SYMBOL || memchr(prefix, 0, nbytes) != NULL) {
    mrpc_raise("ValueError", "a prefix of symbols has at most %d characters", MAX_SYMBOL);
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

/* What is asked of modules */

static int compare(const void *left, const void *right) {
  return strcmp(*(const char *const *)left, *(const char *const *)right);
}

/* The name of a function that a symbol is; NULL if it is none. */
static const char *function_name(const mrpc_module *module, const mrpc_symbol *symbol) {
  if (!symbol->is_defined || !symbol->is_function) return NULL;
  if (begins(symbol->name, PREFIX)) {
    const char *name = symbol->name + strlen(PREFIX);
    return *name == '_' ? NULL : name;
  }
  return module->plain != NO_CONVENTION && !is_reserved(symbol->name) ? symbol->name : NULL;
}

static const char *system_name(const mrpc_module *module, const system_symbol *symbol) {
  const char *name = begins(symbol->name, PREFIX) ? symbol->name + strlen(PREFIX) : symbol->name;
  if (is_reserved(name) || !begins(name, module->path)) return NULL;
  name += strlen(module->path);
  return *name ? name : NULL;
}

char *mrpc_module_names(TVMFFIObject *object) {
  const mrpc_module *module = (mrpc_module *)object;
  const system_symbol *one = module->library == NULL ? system_symbols : NULL;
  size_t most = module->elf.symbol_count, count = 0, total = 1, index;
  const system_symbol *each;
  const char **names;
  char *joined = NULL;
  for (each = one; each != NULL; each = each->next) most++;
  names = calloc(most + 1, sizeof(*names));
  if (names == NULL) return NULL;
  for (index = 0; index < module->elf.symbol_count; index++) {
    mrpc_symbol symbol = mrpc_elf_symbol(&module->elf, index);
    names[count] = function_name(module, &symbol);
    if (names[count] != NULL) total += strlen(names[count++]) + 1;
  }
  for (; one != NULL; one = one->next) {
    names[count] = system_name(module, one);
    if (names[count] != NULL) total += strlen(names[count++]) + 1;
  }
  qsort(names, count, sizeof(*names), compare);
  joined = calloc(1, total);
  for (index = 0, total = 0; joined != NULL && index < count; index++) {
    if (index > 0 && strcmp(names[index], names[index - 1]) == 0) continue;
    if (total > 0) joined[total++] = '\n';
    memcpy(joined + total, names[index], strlen(names[index]));
    total += strlen(names[index]);
  }
  free(names);
  return joined;
}

/* Whether a symbol is a function of C++ of this name. */
static int is_mangled(const char *symbol, const char *name) {
  char part[MAX_SYMBOL + 16];
  if (!begins(symbol, "_Z")) return 0;
  snprintf(part, sizeof(part), "%d%s", (int)strlen(name), name);
  symbol = strstr(symbol, part);
  return symbol != NULL && (symbol[-1] < '0' || symbol[-1] > '9');
}

char *mrpc_module_hint(TVMFFIObject *object, const char *name) {
  const mrpc_module *module = (mrpc_module *)object;
  char prefixed[MAX_SYMBOL + sizeof(PREFIX)], *hint = NULL;
  size_t index;
  int is_of_tvm = 0, is_plain = 0;
  const char *mangled = NULL;
  if (strlen(name) > MAX_SYMBOL || is_reserved(name)) return NULL;
  snprintf(prefixed, sizeof(prefixed), PREFIX "%s", name);
  for (index = 0; index < module->elf.symbol_count; index++) {
    mrpc_symbol symbol = mrpc_elf_symbol(&module->elf, index);
    is_of_tvm |= begins(symbol.name, PREFIX) || begins(bare(symbol.name), "TVM");
    if (!symbol.is_defined || !symbol.is_function) continue;
    is_plain |= strcmp(symbol.name, name) == 0;
    if (is_mangled(symbol.name, prefixed) || is_mangled(symbol.name, name)) mangled = symbol.name;
  }
  if (is_plain && is_of_tvm) {
    if (asprintf(&hint, "; %s exports '%s' itself, expected '%s', since its other symbols are of TVM "
                        "0.22 or later, or of no one age: rename the C function, or compile all of "
                        "it with one TVM", module->path, name, prefixed) < 0) return NULL;
  } else if (is_plain) {
    if (asprintf(&hint, "; %s exports '%s' as a plain function of C, and nothing tells which "
                        "arguments that takes; expected '%s': write a function KERNEL(%s) that "
                        "calls it, with kernel.h", module->path, name, prefixed, name) < 0) return NULL;
  } else if (mangled != NULL) {
    if (asprintf(&hint, "; %s exports a function '%s' of C++ only, under the name '%s'; expected "
                        "'%s': declare it extern \"C\", or write it with KERNEL(%s) of kernel.h",
                 module->path, name, mangled, prefixed, name) < 0) return NULL;
  }
  return hint;
}

const char *mrpc_module_path(TVMFFIObject *object) {
  const mrpc_module *module = (mrpc_module *)object;
  return module->library == NULL ? NULL : module->path;
}

static int reaches(const mrpc_module *from, const mrpc_module *to, int depth) {
  size_t index;
  if (from == to || depth > 64) return 1;
  for (index = 0; index < from->import_count; index++) {
    if (reaches((mrpc_module *)from->imports[index], to, depth + 1)) return 1;
  }
  return 0;
}

int mrpc_module_import(TVMFFIObject *parent, TVMFFIObject *child) {
  mrpc_module *module = (mrpc_module *)parent;
  TVMFFIObject **larger;
  if (reaches((mrpc_module *)child, module, 0)) {
    return mrpc_raise("ValueError", "a module cannot import itself, nor one that imports it");
  }
  larger = realloc(module->imports, (module->import_count + 1) * sizeof(*larger));
  if (larger == NULL) return mrpc_raise("MemoryError", "no memory for an import");
  module->imports = larger;
  mrpc_retain(child);
  larger[module->import_count++] = child;
  return 0;
}

void mrpc_module_clear_imports(TVMFFIObject *object) {
  mrpc_module *module = (mrpc_module *)object;
  while (module->import_count > 0) mrpc_release(module->imports[--module->import_count]);
}
