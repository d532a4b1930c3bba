/* The table of modules that a library brings with it. Loads none of them. It is little-endian on the
 * machines that TVM compiles for; nothing is read beyond its size. */
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "library.h"

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
  if (nbytes > MRPC_MAX_SYMBOL) return -1;
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

int mrpc_read_imports(void *library, const mrpc_elf *elf, const char *path, char **kinds) {
  static const char *const names[] = {"__tvm_ffi__library_bin", "__tvm_ffi_library_bin",
                                      "__tvm_dev_mblob"};
  size_t index;
  for (index = 0; index < 3; index++) {
    mrpc_symbol symbol;
    table content;
    uint64_t nbytes;
    content.at = dlsym(library, names[index]);
    if (content.at == NULL || !mrpc_elf_find(elf, names[index], &symbol)) continue;
    content.left = symbol.size;
    if (take_number(&content, &nbytes) != 0 || nbytes > content.left ||
        (content.left = (size_t)nbytes,
         (index == 0 ? read_modules : read_entries)(&content, kinds) != 0)) {
      return mrpc_raise("LibraryError",
                        "%s: its table of imported modules is damaged; expected the one that TVM's "
                        "export_library writes; build it again", path);
    }
    return 0;
  }
  return 0;
}
