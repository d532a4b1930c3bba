/* Object files and archives of them, linked to a library with whatever compiler this machine has. */
#include <dirent.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "serving.h"

const char *mrpc_suffix_of(const char *path) {
  const char *dot = strrchr(path, '.'), *slash = strrchr(path, '/');
  return dot == NULL || (slash != NULL && dot < slash) ? "" : dot + 1;
}

/* Runs a program to its end; its exit status, or -1. What it prints goes where we print. */
int mrpc_run(char *const arguments[]) {
  int status = -1;
  pid_t child = fork();
  if (child == 0) {
    signal(SIGPIPE, SIG_DFL); /* which this session ignores, and its children would */
    execvp(arguments[0], arguments);
    _exit(127);
  }
  if (child < 0) return -1;
  while (waitpid(child, &status, 0) < 0) {
    if (errno != EINTR) return -1;
  }
  return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

/* Links object files to a library with whatever compiler this machine has. */
static int link_objects(char **arguments, const char *name) {
  static const char *const compilers[] = {"c++", "g++", "cc", "gcc", "clang"};
  const char *chosen[7];
  size_t index, count = 0;
  if (getenv("CXX") != NULL) chosen[count++] = getenv("CXX");
  if (getenv("CC") != NULL) chosen[count++] = getenv("CC");
  for (index = 0; index < 5; index++) chosen[count++] = compilers[index];
  for (index = 0; index < count; index++) {
    int status;
    arguments[0] = (char *)(uintptr_t)chosen[index];
    status = mrpc_run(arguments);
    if (status == 0) return 0;
    if (status != 127) {
      return mrpc_raise("LibraryError",
                        "%s could not be linked on this machine: %s ended with %d; its own words "
                        "are in the session's output", name, chosen[index], status);
    }
  }
  return mrpc_raise("LibraryError",
                    "%s has to be linked, and this machine has no compiler (looked for c++, g++, "
                    "cc, gcc, clang); send a linked library: export_library to a file that ends in "
                    ".so, with fcompile=cross_compiler(TRIPLE) for another machine", name);
}

enum { MOST_OBJECTS = 4096 };

/* Object files below a folder become arguments; the number of all arguments, or -1. */
static int add_objects(const char *folder, char **arguments, int count, int depth) {
  DIR *directory = opendir(folder);
  struct dirent *entry;
  if (directory == NULL) return mrpc_raise("OSError", "%s: %s", folder, strerror(errno));
  while ((entry = readdir(directory)) != NULL && count < MOST_OBJECTS) {
    char path[4096];
    struct stat status;
    const char *suffix = mrpc_suffix_of(entry->d_name);
    if (entry->d_name[0] == '.') continue;
    if (snprintf(path, sizeof(path), "%s/%s", folder, entry->d_name) >= (int)sizeof(path)) continue;
    if (lstat(path, &status) != 0) continue;
    if (S_ISDIR(status.st_mode) && depth < 8) {
      count = add_objects(path, arguments, count, depth + 1);
      if (count < 0) break;
    } else if (S_ISREG(status.st_mode) &&
               (strcmp(suffix, "o") == 0 || strcmp(suffix, "a") == 0 || strcmp(suffix, "c") == 0 ||
                strcmp(suffix, "cc") == 0 || strcmp(suffix, "cpp") == 0)) {
      arguments[count] = strdup(path);
      if (arguments[count] != NULL) count++;
    }
  }
  closedir(directory);
  return count;
}

/* The library that an object file or an archive of them becomes. */
int mrpc_link_file(const char *root, int number, const char *name, char *path) {
  char **arguments = calloc(MOST_OBJECTS + 1, sizeof(*arguments));
  char folder[4096], linked[4096];
  int count = 5, first = 5, status = 0;
  if (arguments == NULL) return mrpc_raise("MemoryError", "no memory to link %s", name);
  snprintf(linked, sizeof(linked), "%s/.linked-%d.so", root, number);
  arguments[1] = (char *)(uintptr_t) "-shared";
  arguments[2] = (char *)(uintptr_t) "-fPIC";
  arguments[3] = (char *)(uintptr_t) "-o";
  arguments[4] = linked;
  if (strcmp(mrpc_suffix_of(path), "o") == 0) {
    struct stat object; /* linkers take an empty one for a script of theirs that asks for nothing */
    if (stat(path, &object) == 0 && object.st_size == 0)
      status = mrpc_raise("LibraryError", "%s is empty; expected an object file", name);
    arguments[count++] = strdup(path);
  } else {
    char *unpack[] = {(char *)(uintptr_t) "tar", (char *)(uintptr_t) "-xf", path,
                      (char *)(uintptr_t) "-C", folder, NULL};
    snprintf(folder, sizeof(folder), "%s/.unpacked-%d", root, number);
    if (mkdir(folder, 0700) != 0 || mrpc_run(unpack) != 0) {
      status = mrpc_raise("LibraryError", "%s cannot be unpacked; expected a tar archive, and tar "
                                          "on this machine", name);
    } else {
      count = add_objects(folder, arguments, count, 0);
      if (count < 0) status = -1;
      if (count == first) {
        status = mrpc_raise("LibraryError", "%s holds nothing to link; expected object files", name);
      }
    }
  }
  if (status == 0) status = link_objects(arguments, name);
  while (count > first) free(arguments[--count]);
  free(arguments);
  if (status == 0) strcpy(path, linked);
  return status;
}

int mrpc_is_linked(const char *suffix) {
  return strcmp(suffix, "o") == 0 || strcmp(suffix, "tar") == 0 || strcmp(suffix, "gz") == 0 ||
         strcmp(suffix, "tgz") == 0;
}
