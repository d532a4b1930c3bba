/* What a shared library says of itself, read before the system's loader sees it. */
#ifndef MRPC_LIBRARY_FILE_H_
#define MRPC_LIBRARY_FILE_H_

#include <stddef.h>

typedef struct {
  const char *name;
  size_t size;
  int is_defined, is_function;
} mrpc_symbol;

typedef struct {
  unsigned char *image; /* the file, mapped */
  size_t nbytes;
  const void *symbols; /* of the dynamic table */
  size_t symbol_count;
  const char *texts;
  size_t texts_nbytes;
  const void *dynamic;
  size_t dynamic_count;
} mrpc_elf;

/* Maps a file and checks that it is a whole library for this machine: 0, or -1 after an error. */
int mrpc_elf_open(mrpc_elf *elf, const char *path);
void mrpc_elf_close(mrpc_elf *elf);
/* The symbol at this place; one without a name if its name is damaged. */
mrpc_symbol mrpc_elf_symbol(const mrpc_elf *elf, size_t place);
/* The symbol of this name that it defines: 1, or 0 if there is none. */
int mrpc_elf_find(const mrpc_elf *elf, const char *name, mrpc_symbol *found);
/* The library that it needs, by number; NULL behind the last one. */
const char *mrpc_elf_needed(const mrpc_elf *elf, size_t number);

/* Makes a library without content known to the loader under this name, so that others which need one
 * of this name are bound to the program itself. 0, or -1 after an error was raised. */
int mrpc_elf_stand_in(const char *soname);

#endif /* MRPC_LIBRARY_FILE_H_ */
