/* What the parts of the loader share. */
#ifndef MRPC_LIBRARY_H_
#define MRPC_LIBRARY_H_

#include "library_file.h"
#include "serving.h"

#define MRPC_PREFIX "__tvm_ffi_"
#define MRPC_ENTRY "__tvm_main__"

enum { MRPC_MAX_SYMBOL = 1024 };

typedef enum { MRPC_NO_CONVENTION, MRPC_LEGACY_CONVENTION, MRPC_FFI_CONVENTION } mrpc_convention;

/* A function that was found, mrpc_kept for code that counts no reference. */
typedef struct mrpc_kept {
  struct mrpc_kept *next;
  TVMFFIObject *function;
  char name[];
} mrpc_kept;

struct mrpc_module {
  TVMFFIObject object;
  mrpc_module *next; /* of all: libraries stay in the process, and so do their modules */
  void *library;     /* NULL: the system library */
  char *path;        /* of the library; the prefix of a system library */
  mrpc_convention plain;
  int is_cxx;
  char *missing_kinds; /* of modules that it brings and nothing here can run */
  mrpc_elf elf;
  mrpc_kept *looked_up, *found;
  TVMFFIObject **imports;
  size_t import_count;
};

typedef struct mrpc_system_entry {
  struct mrpc_system_entry *next;
  void *address;
  int is_legacy;
  char name[];
} mrpc_system_entry;

typedef struct variable {
  struct variable *next;
  void *value;
  char name[];
} variable;

/* What code that is linked in, or was loaded, has registered. */
extern mrpc_system_entry *mrpc_system_symbols;

/* Conventions (conventions.c) */

int mrpc_begins(const char *text, const char *with);
/* Whether a plain name belongs to C or to TVM's runtime, so that no function is meant. */
int mrpc_is_reserved(const char *name);
/* The name of a function of the runtime that a variable is for; any other name as it is. */
const char *mrpc_bare_name(const char *name);
/* The form of a library's plain functions, told from its symbols. */
mrpc_convention mrpc_convention_of(const mrpc_elf *elf);

/* The kinds of the modules that a library brings and nothing here can run (imports.c), separated by
 * commas, in *kinds, malloc'ed: 0, or -1 after an error was raised: its table is damaged. */
int mrpc_read_imports(void *library, const mrpc_elf *elf, const char *path, char **kinds);

#endif /* MRPC_LIBRARY_H_ */
