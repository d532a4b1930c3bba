/* What can be asked of modules: their functions by name, and why one is missing. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "library.h"

static int compare(const void *left, const void *right) {
  return strcmp(*(const char *const *)left, *(const char *const *)right);
}

/* The name of a function that a symbol is; NULL if it is none. */
static const char *function_name(const mrpc_module *module, const mrpc_symbol *symbol) {
  if (!symbol->is_defined || !symbol->is_function) return NULL;
  if (mrpc_begins(symbol->name, MRPC_PREFIX)) {
    const char *name = symbol->name + strlen(MRPC_PREFIX);
    return *name == '_' ? NULL : name;
  }
  return module->plain != MRPC_NO_CONVENTION && !mrpc_is_reserved(symbol->name) ? symbol->name : NULL;
}

static const char *system_name(const mrpc_module *module, const mrpc_system_entry *symbol) {
  const char *name = mrpc_begins(symbol->name, MRPC_PREFIX) ? symbol->name + strlen(MRPC_PREFIX) : symbol->name;
  if (mrpc_is_reserved(name) || !mrpc_begins(name, module->path)) return NULL;
  name += strlen(module->path);
  return *name ? name : NULL;
}

char *mrpc_module_names(TVMFFIObject *object) {
  const mrpc_module *module = (mrpc_module *)object;
  const mrpc_system_entry *one = module->library == NULL ? mrpc_system_symbols : NULL;
  size_t most = module->elf.symbol_count, count = 0, total = 1, index;
  const mrpc_system_entry *each;
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
  char part[MRPC_MAX_SYMBOL + 16];
  if (!mrpc_begins(symbol, "_Z")) return 0;
  snprintf(part, sizeof(part), "%d%s", (int)strlen(name), name);
  symbol = strstr(symbol, part);
  return symbol != NULL && (symbol[-1] < '0' || symbol[-1] > '9');
}

char *mrpc_module_hint(TVMFFIObject *object, const char *name) {
  const mrpc_module *module = (mrpc_module *)object;
  char prefixed[MRPC_MAX_SYMBOL + sizeof(MRPC_PREFIX)], *hint = NULL;
  size_t index;
  int is_of_tvm = 0, is_plain = 0;
  const char *mangled = NULL;
  if (strlen(name) > MRPC_MAX_SYMBOL || mrpc_is_reserved(name)) return NULL;
  snprintf(prefixed, sizeof(prefixed), MRPC_PREFIX "%s", name);
  for (index = 0; index < module->elf.symbol_count; index++) {
    mrpc_symbol symbol = mrpc_elf_symbol(&module->elf, index);
    is_of_tvm |= mrpc_begins(symbol.name, MRPC_PREFIX) || mrpc_begins(mrpc_bare_name(symbol.name), "TVM");
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
