/* Reads libraries for this machine only, so the structures of <elf.h> are those of the file. */
#include "library_file.h"

#include <dlfcn.h>
#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <link.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "ffi.h"

/* The header of the program itself, where the linker says it is. */
extern const ElfW(Ehdr) __ehdr_start __attribute__((weak, visibility("hidden")));

static const char *machine_name(unsigned machine) {
  static const struct {
    unsigned number;
    const char *name;
  } names[] = {{EM_386, "x86"},       {EM_X86_64, "x86-64"}, {EM_ARM, "ARM"}, {183, "AArch64"},
               {243, "RISC-V"},       {EM_S390, "s390"},     {EM_PPC64, "PowerPC"},
               {EM_MIPS, "MIPS"},     {258, "LoongArch"}};
  size_t index;
  for (index = 0; index < sizeof(names) / sizeof(names[0]); index++) {
    if (names[index].number == machine) return names[index].name;
  }
  return "another machine";
}

static unsigned machine_of(const unsigned char *image) {
  return image[EI_DATA] == ELFDATA2MSB ? (unsigned)(image[18] << 8 | image[19])
                                       : (unsigned)(image[19] << 8 | image[18]);
}

static int check_machine(const char *path, const unsigned char *image) {
  const unsigned char *here = (const unsigned char *)&__ehdr_start;
  if (here == NULL) return 0; /* nobody says what this machine is: the loader has the word */
  if (image[EI_CLASS] == here[EI_CLASS] && image[EI_DATA] == here[EI_DATA] &&
      machine_of(image) == machine_of(here)) {
    return 0;
  }
  return mrpc_raise("LibraryError",
                    "%s is for %s (%s-bit, %s-endian), expected %s (%s-bit, %s-endian), which this "
                    "machine is; compile it for this machine's target",
                    path, machine_name(machine_of(image)), image[EI_CLASS] == ELFCLASS64 ? "64" : "32",
                    image[EI_DATA] == ELFDATA2MSB ? "big" : "little", machine_name(machine_of(here)),
                    here[EI_CLASS] == ELFCLASS64 ? "64" : "32",
                    here[EI_DATA] == ELFDATA2MSB ? "big" : "little");
}

static int is_within(const mrpc_elf *elf, uint64_t offset, uint64_t nbytes) {
  return offset <= elf->nbytes && nbytes <= elf->nbytes - offset;
}

static int damaged(const char *path, const char *what) {
  return mrpc_raise("LibraryError",
                    "%s is damaged: %s; expected a whole shared library; build or send it again",
                    path, what);
}

/* The loader crashes on files whose segments end behind the file. */
static int check_segments(const mrpc_elf *elf, const char *path, const ElfW(Ehdr) * head) {
  const ElfW(Phdr) * segment;
  size_t index;
  if (head->e_phentsize != sizeof(*segment) || head->e_phnum == 0 ||
      head->e_phoff % sizeof(void *) != 0 ||
      !is_within(elf, head->e_phoff, (uint64_t)head->e_phnum * sizeof(*segment))) {
    return damaged(path, "it has no segments");
  }
  segment = (const void *)(elf->image + head->e_phoff);
  for (index = 0; index < head->e_phnum; index++, segment++) {
    if (segment->p_type != PT_LOAD && segment->p_type != PT_DYNAMIC) continue;
    if (!is_within(elf, segment->p_offset, segment->p_filesz)) {
      return damaged(path, "it ends before its last segment");
    }
  }
  return 0;
}

static void find_tables(mrpc_elf *elf, const ElfW(Ehdr) * head) {
  const ElfW(Shdr) * sections, *section;
  size_t index;
  if (head->e_shentsize != sizeof(*sections) || head->e_shoff % sizeof(void *) != 0 ||
      !is_within(elf, head->e_shoff, (uint64_t)head->e_shnum * sizeof(*sections))) {
    return;
  }
  sections = (const void *)(elf->image + head->e_shoff);
  for (index = 0; index < head->e_shnum; index++) {
    section = &sections[index];
    if (section->sh_offset % sizeof(void *) || !is_within(elf, section->sh_offset, section->sh_size)) {
      continue;
    }
    if (section->sh_type == SHT_DYNAMIC) {
      elf->dynamic = elf->image + section->sh_offset;
      elf->dynamic_count = (size_t)section->sh_size / sizeof(ElfW(Dyn));
    } else if (section->sh_type == SHT_DYNSYM && section->sh_link < head->e_shnum) {
      const ElfW(Shdr) *texts = &sections[section->sh_link];
      if (!is_within(elf, texts->sh_offset, texts->sh_size) || texts->sh_size == 0 ||
          elf->image[texts->sh_offset + texts->sh_size - 1] != 0) {
        continue;
      }
      elf->symbols = elf->image + section->sh_offset;
      elf->symbol_count = (size_t)section->sh_size / sizeof(ElfW(Sym));
      elf->texts = (const char *)elf->image + texts->sh_offset;
      elf->texts_nbytes = (size_t)texts->sh_size;
    }
  }
}

int mrpc_elf_open(mrpc_elf *elf, const char *path) {
  struct stat status;
  int file = open(path, O_RDONLY | O_CLOEXEC), result;
  memset(elf, 0, sizeof(*elf));
  if (file < 0 || fstat(file, &status) != 0) {
    int reason = errno;
    if (file >= 0) close(file);
    return mrpc_raise("LibraryError", "%s cannot be opened: %s", path, strerror(reason));
  }
  elf->nbytes = (size_t)status.st_size;
  if (elf->nbytes > sizeof(ElfW(Ehdr))) {
    elf->image = mmap(NULL, elf->nbytes, PROT_READ, MAP_PRIVATE, file, 0);
    if (elf->image == MAP_FAILED) elf->image = NULL;
  }
  close(file);
  if (elf->image == NULL || memcmp(elf->image, ELFMAG, SELFMAG) != 0) {
    mrpc_elf_close(elf);
    return mrpc_raise("LibraryError", "%s is no shared library; expected an ELF file", path);
  }
  result = check_machine(path, elf->image);
  if (result == 0) result = check_segments(elf, path, (const void *)elf->image);
  if (result == 0) find_tables(elf, (const void *)elf->image);
  if (result != 0) mrpc_elf_close(elf);
  return result;
}

void mrpc_elf_close(mrpc_elf *elf) {
  if (elf->image != NULL) munmap(elf->image, elf->nbytes);
  memset(elf, 0, sizeof(*elf));
}

mrpc_symbol mrpc_elf_symbol(const mrpc_elf *elf, size_t place) {
  const ElfW(Sym) *symbol = (const ElfW(Sym) *)elf->symbols + place;
  mrpc_symbol found = {"", 0, 0, 0};
  if (symbol->st_name >= elf->texts_nbytes) return found;
  found.name = elf->texts + symbol->st_name;
  found.size = (size_t)symbol->st_size;
  found.is_defined = symbol->st_shndx != SHN_UNDEF;
  found.is_function = ELF32_ST_TYPE(symbol->st_info) == STT_FUNC ||
                      ELF32_ST_TYPE(symbol->st_info) == STT_GNU_IFUNC;
  return found;
}

int mrpc_elf_find(const mrpc_elf *elf, const char *name, mrpc_symbol *found) {
  size_t index;
  for (index = 0; index < elf->symbol_count; index++) {
    *found = mrpc_elf_symbol(elf, index);
    if (found->is_defined && strcmp(found->name, name) == 0) return 1;
  }
  return 0;
}

const char *mrpc_elf_needed(const mrpc_elf *elf, size_t number) {
  const ElfW(Dyn) *entry = elf->dynamic;
  size_t index;
  for (index = 0; index < elf->dynamic_count && entry[index].d_tag != DT_NULL; index++) {
    if (entry[index].d_tag != DT_NEEDED || number-- > 0) continue;
    return entry[index].d_un.d_val < elf->texts_nbytes ? elf->texts + entry[index].d_un.d_val : "";
  }
  return NULL;
}

/* A library of nothing but its name. The loader writes to the dynamic section, so that is writable. */
typedef struct {
  ElfW(Ehdr) head;
  ElfW(Phdr) segments[2];
  ElfW(Dyn) dynamic[6];
  ElfW(Sym) symbol;
  char texts[64];
} stand_in;

static void fill(stand_in *made, const char *soname) {
  memset(made, 0, sizeof(*made));
  memcpy(made->head.e_ident, __ehdr_start.e_ident, EI_NIDENT);
  made->head.e_ident[EI_OSABI] = 0;
  made->head.e_type = ET_DYN;
  made->head.e_machine = __ehdr_start.e_machine;
  made->head.e_flags = __ehdr_start.e_flags;
  made->head.e_version = EV_CURRENT;
  made->head.e_phoff = offsetof(stand_in, segments);
  made->head.e_ehsize = sizeof(made->head);
  made->head.e_phentsize = sizeof(made->segments[0]);
  made->head.e_phnum = 2;
  made->segments[0].p_type = PT_LOAD;
  made->segments[0].p_flags = PF_R | PF_W;
  made->segments[0].p_filesz = made->segments[0].p_memsz = sizeof(*made);
  made->segments[0].p_align = 0x10000;
  made->segments[1].p_type = PT_DYNAMIC;
  made->segments[1].p_flags = PF_R | PF_W;
  made->segments[1].p_offset = made->segments[1].p_vaddr = offsetof(stand_in, dynamic);
  made->segments[1].p_filesz = made->segments[1].p_memsz = sizeof(made->dynamic);
  made->segments[1].p_align = sizeof(void *);
  made->dynamic[0].d_tag = DT_SONAME;
  made->dynamic[0].d_un.d_val = 1;
  made->dynamic[1].d_tag = DT_STRTAB;
  made->dynamic[1].d_un.d_ptr = offsetof(stand_in, texts);
  made->dynamic[2].d_tag = DT_SYMTAB;
  made->dynamic[2].d_un.d_ptr = offsetof(stand_in, symbol);
  made->dynamic[3].d_tag = DT_STRSZ;
  made->dynamic[3].d_un.d_val = sizeof(made->texts);
  made->dynamic[4].d_tag = DT_SYMENT;
  made->dynamic[4].d_un.d_val = sizeof(made->symbol);
  memcpy(made->texts + 1, soname, strlen(soname));
}

int mrpc_elf_stand_in(const char *soname) {
  stand_in made;
  char path[40];
  void *known = dlopen(soname, RTLD_NOW | RTLD_NOLOAD);
  const char *reason;
  int file;
  if (known != NULL) return 0; /* it is there already */
  if (&__ehdr_start == NULL || strlen(soname) + 2 > sizeof(made.texts)) {
    return mrpc_raise("LibraryError", "no library %s can be had on this machine", soname);
  }
  fill(&made, soname);
  /* not under that name, in which a slash may lead anywhere */
  snprintf(path, sizeof(path), "./.stand-in-%d", (int)getpid());
  file = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0700);
  if (file < 0 || write(file, &made, sizeof(made)) != (ssize_t)sizeof(made)) {
    reason = strerror(errno);
  } else {
    known = dlopen(path, RTLD_NOW | RTLD_GLOBAL);
    reason = known == NULL ? dlerror() : NULL;
  }
  if (file >= 0) close(file);
  unlink(path);
  return reason == NULL ? 0 : mrpc_raise("LibraryError", "no library %s: %s", soname, reason);
}
