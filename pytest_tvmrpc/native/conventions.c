/* How the functions of a library want to be called; the rule is that of runtime/conventions.py. */
#include <string.h>

#include "library.h"

int mrpc_begins(const char *text, const char *with) {
  return strncmp(text, with, strlen(with)) == 0;
}

int mrpc_is_reserved(const char *name) {
  size_t length = strlen(name);
  if (length == 0) return 1;
  if (name[0] == '_' && (name[1] == '_' || (name[1] >= 'A' && name[1] <= 'Z'))) return 1;
  if (strcmp(name, "_init") == 0 || strcmp(name, "_fini") == 0) return 1;
  return mrpc_begins(name, "TVM") && name[3] >= 'A' && name[3] <= 'Z';
}

const char *mrpc_bare_name(const char *name) { return mrpc_begins(name, "__TVM") ? name + 2 : name; }

/* What the names of a library's symbols say. */
typedef struct {
  int is_of_021, is_legacy, has_prefix, uses_ffi, is_after_021, has_entry, uses_runtime;
} marks;

static void look_at(marks *seen, const mrpc_symbol *symbol) {
  const char *name = symbol->name, *plain = mrpc_bare_name(symbol->name);
  int is_of_021 =
      strcmp(name, "__tvm_ffi_library_ctx") == 0 || strcmp(name, "__tvm_ffi_library_bin") == 0;
  if (is_of_021) {
    seen->is_of_021 |= symbol->is_defined;
  } else if (mrpc_begins(name, MRPC_PREFIX)) {
    seen->has_prefix = 1;
  }
  if (symbol->is_defined) {
    seen->is_legacy |= strcmp(name, "__tvm_module_ctx") == 0 || strcmp(name, "__tvm_dev_mblob") == 0 ||
                       strcmp(name, "__TVMFuncCall") == 0 || strcmp(name, "__TVMAPISetLastError") == 0;
    seen->has_entry |= strcmp(name, MRPC_ENTRY) == 0;
  } else {
    seen->is_legacy |= strcmp(name, "TVMFuncCall") == 0 || strcmp(name, "TVMAPISetLastError") == 0;
  }
  seen->uses_ffi |= mrpc_begins(plain, "TVMFFI");
  seen->is_after_021 |= mrpc_begins(plain, "TVMFFIEnvMod") || mrpc_begins(plain, "TVMFFIHandleInitOnce");
  seen->uses_runtime |= mrpc_begins(plain, "TVM") && plain[3] >= 'A' && plain[3] <= 'Z';
}

mrpc_convention mrpc_convention_of(const mrpc_elf *elf) {
  marks seen;
  size_t index;
  memset(&seen, 0, sizeof(seen));
  for (index = 0; index < elf->symbol_count; index++) {
    mrpc_symbol symbol = mrpc_elf_symbol(elf, index);
    look_at(&seen, &symbol);
  }
  if (seen.has_prefix) {
    int is_legacy = seen.is_legacy || seen.has_entry;
    return is_legacy && !seen.is_of_021 ? MRPC_LEGACY_CONVENTION : MRPC_NO_CONVENTION;
  }
  if (seen.is_legacy) {
    return seen.is_of_021 || seen.uses_ffi ? MRPC_NO_CONVENTION : MRPC_LEGACY_CONVENTION;
  }
  if (seen.is_of_021) return MRPC_FFI_CONVENTION;
  if (seen.is_after_021) return MRPC_NO_CONVENTION;
  if (seen.uses_ffi) return MRPC_FFI_CONVENTION;
  return seen.has_entry || seen.uses_runtime ? MRPC_LEGACY_CONVENTION : MRPC_NO_CONVENTION;
}
