/* The files of a session: uploads, downloads, and what is in its directory. Nothing leads outside. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "objects.h"
#include "serving.h"

enum { MAX_NAME = 1024, MAX_PART = 255 };

static char root[2048];
static int loads;
TVMFFIObject *mrpc_upload_function;

int mrpc_files_open(const char *directory) {
  char resolved[4096];
  if (realpath(directory, resolved) == NULL || strlen(resolved) >= sizeof(root)) {
    return mrpc_raise("OSError", "the session's directory %s cannot be used: %s", directory,
                      strerror(errno));
  }
  strcpy(root, resolved);
  return 0;
}

/* Names */

static int is_odd(unsigned char character) {
  return character < 32 || character == 127 || strchr(";|&$`<>\\", character) != NULL;
}

/* Copies a name that may be one of a file, or raises. */
static int check_name(const TVMFFIByteArray *given, char *name) {
  size_t index, part = 0;
  if (given->size == 0) {
    return mrpc_raise("ValueError", "'' is no name of a file; expected one such as 'kernel.so'");
  }
  for (index = 0; index < given->size; index++) {
    if (is_odd((unsigned char)given->data[index])) {
      return mrpc_raise("ValueError",
                        "'%.*s' is no name of a file: it has the character %d; expected letters, "
                        "digits and the like; give it another name",
                        (int)(index < 80 ? index : 80), given->data,
                        (unsigned char)given->data[index]);
    }
    part = given->data[index] == '/' ? 0 : part + 1;
    if (index >= MAX_NAME || part > MAX_PART) {
      return mrpc_raise("ValueError",
                        "'%.40s'... is too long; expected at most %d bytes, and %d between "
                        "slashes; give it a shorter name", given->data, MAX_NAME, MAX_PART);
    }
  }
  memcpy(name, given->data, given->size);
  name[given->size] = 0;
  return 0;
}

/* The real path of what may not exist yet: that of the deepest folder that does, and the rest. */
static int resolve(const char *path, char *resolved) {
  char head[4096];
  size_t length = strlen(path);
  if (length >= sizeof(head)) return -1;
  strcpy(head, path);
  for (;;) {
    char *slash;
    if (realpath(head, resolved) != NULL) break;
    if (errno != ENOENT && errno != ENOTDIR) return -1;
    slash = strrchr(head, '/');
    if (slash == NULL || slash == head) return -1;
    *slash = 0;
  }
  /* What follows is not there, so it has no links; only its dots could lead somewhere. */
  if (strlen(resolved) + length - strlen(head) >= 4096) return -1;
  if (strstr(path + strlen(head), "/../") != NULL) return -1;
  length = strlen(path);
  if (length >= 3 && strcmp(path + length - 3, "/..") == 0 && strlen(head) < length) return -1;
  strcat(resolved, path + strlen(head));
  return 0;
}

static int is_inside(const char *path) {
  size_t length = strlen(root);
  return strncmp(path, root, length) == 0 && path[length] == '/';
}

/* The path of a file of the session: 0, or -1 after an error was raised. */
static int path_of(const TVMFFIByteArray *given, char *name, char *path) {
  char joined[4096];
  if (check_name(given, name) != 0) return -1;
  snprintf(joined, sizeof(joined), "%s/%s", root, name);
  if (name[0] == '/' || resolve(joined, path) != 0 || !is_inside(path)) {
    return mrpc_raise("ValueError",
                      "'%s' leads outside of the session's directory; give a name inside it, such "
                      "as 'kernel.so'", name);
  }
  return 0;
}

/* Listing */

static int by_name(const void *left, const void *right) {
  return strcmp(*(char *const *)left, *(char *const *)right);
}

/* The names in a folder, sorted, with commas between them; malloc'ed, NULL with errno set. */
static char *names_in(const char *path) {
  DIR *folder = opendir(path);
  struct dirent *entry;
  char **names = NULL, *joined, *at;
  size_t count = 0, total = 1, index;
  if (folder == NULL) return NULL;
  while ((entry = readdir(folder)) != NULL) {
    char **larger = realloc(names, (count + 1) * sizeof(*names));
    char *copy = entry->d_name[0] == '.' ? NULL : strdup(entry->d_name);
    if (larger != NULL) names = larger;
    if (larger == NULL || copy == NULL) {
      free(copy);
      continue;
    }
    names[count++] = copy;
    total += strlen(copy) + 1;
  }
  closedir(folder);
  if (count > 1) qsort(names, count, sizeof(*names), by_name);
  joined = at = calloc(1, total);
  for (index = 0; index < count; index++) {
    if (joined != NULL) at = stpcpy(index > 0 ? stpcpy(at, ",") : at, names[index]);
    free(names[index]);
  }
  free(names);
  return joined;
}

/* Raises that a file is not there, with what is. */
static int not_found(const char *what, const char *name, int reason) {
  char *names = names_in(root);
  if (names == NULL) {
    mrpc_raise("FileNotFoundError",
               "%s %s: %s; the session's directory %s is gone from the server; open a new session",
               what, name, strerror(reason), root);
  } else {
    mrpc_raise("FileNotFoundError", "%s %s: %s; files here: %s", what, name, strerror(reason),
               names[0] ? names : "none");
  }
  free(names);
  return -1;
}

static int listdir(void *self, const TVMFFIAny *args, int32_t num_args, TVMFFIAny *result) {
  TVMFFIByteArray given = {".", 1};
  char name[MAX_NAME + 1], path[4096], *names;
  int status;
  (void)self;
  if (num_args > 0 && mrpc_argument_text(args, num_args, 0, "a path", &given) != 0) return -1;
  if (given.size == 0 || (given.size == 1 && given.data[0] == '.') ||
      (given.size == 2 && memcmp(given.data, "./", 2) == 0)) {
    strcpy(name, ".");
    strcpy(path, root);
  } else if (path_of(&given, name, path) != 0) {
    return -1;
  }
  names = names_in(path);
  if (names == NULL) {
    return mrpc_raise("FileNotFoundError",
                      "Cannot list %s: %s; give a directory of the session, or '.'", name,
                      strerror(errno));
  }
  status = mrpc_return_text(result, names, strlen(names));
  free(names);
  return status;
}

/* Uploads */

static int make_folders(char *path) {
  char *slash;
  for (slash = path + strlen(root) + 1; (slash = strchr(slash, '/')) != NULL; slash++) {
    *slash = 0;
    if (mkdir(path, 0700) != 0 && errno != EEXIST) {
      *slash = '/';
      return -1;
    }
    *slash = '/';
  }
  return 0;
}

/* The class of Python's error for a reason of the system. */
static const char *kind_of(int reason) {
  switch (reason) {
    case ENOENT: return "FileNotFoundError";
    case EEXIST: return "FileExistsError";
    case EISDIR: return "IsADirectoryError";
    case ENOTDIR: return "NotADirectoryError";
    case EACCES:
    case EPERM: return "PermissionError";
    default: return "OSError";
  }
}

static int sink_failure(mrpc_sink *sink, int reason) {
  struct statvfs disk;
  if (access(root, F_OK) != 0) {
    return mrpc_raise(kind_of(reason),
                      "%s cannot be written: %s; the session's directory is gone from the server; "
                      "open a new session", sink->name, strerror(reason));
  }
  if ((reason == ENOSPC || reason == EDQUOT || reason == EFBIG) && statvfs(root, &disk) == 0) {
    return mrpc_raise("OSError",
                      "%s cannot be written: %s after %llu of %llu bytes; sessions have a disk of "
                      "%llu bytes at %s; make room there, or start the server with --work-dir or "
                      "TMPDIR set to a larger place",
                      sink->name, strerror(reason), (unsigned long long)sink->written,
                      (unsigned long long)sink->nbytes,
                      (unsigned long long)disk.f_blocks * disk.f_frsize, root);
  }
  return mrpc_raise(kind_of(reason),
                    "%s cannot be written: %s; expected a place for it in the session's directory "
                    "%s", sink->name, strerror(reason), root);
}

int mrpc_sink_open(mrpc_sink *sink, const TVMFFIByteArray *name, uint64_t nbytes) {
  static unsigned number;
  char *last;
  sink->file = -1;
  sink->nbytes = nbytes;
  sink->written = 0;
  if (path_of(name, sink->name, sink->path) != 0) return -1;
  last = strrchr(sink->path, '/');
  snprintf(sink->partial, sizeof(sink->partial), "%.*s/.partial-%d-%u", (int)(last - sink->path),
           sink->path, (int)getpid(), ++number);
  if (access(root, F_OK) == 0) make_folders(sink->path);
  sink->file = open(sink->partial, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
  return sink->file < 0 ? sink_failure(sink, errno) : 0;
}

int mrpc_sink_write(mrpc_sink *sink, const uint8_t *part, size_t nbytes) {
  while (nbytes > 0) {
    ssize_t written = write(sink->file, part, nbytes);
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) return sink_failure(sink, errno);
    part += written;
    nbytes -= (size_t)written;
    sink->written += (uint64_t)written;
  }
  return 0;
}

int mrpc_sink_finish(mrpc_sink *sink) {
  int file = sink->file, reason;
  sink->file = -1;
  if (close(file) == 0 && rename(sink->partial, sink->path) == 0) return 0;
  reason = errno;
  unlink(sink->partial);
  return sink_failure(sink, reason);
}

void mrpc_sink_abort(mrpc_sink *sink) {
  if (sink->file < 0) return;
  close(sink->file);
  sink->file = -1;
  unlink(sink->partial);
}

static int upload(void *self, const TVMFFIAny *args, int32_t num_args, TVMFFIAny *result) {
  TVMFFIByteArray name, content;
  mrpc_sink *sink;
  int status;
  (void)self, (void)result;
  if (mrpc_argument_text(args, num_args, 0, "a name", &name) != 0 ||
      mrpc_argument_text(args, num_args, 1, "the content", &content) != 0) {
    return -1;
  }
  sink = calloc(1, sizeof(*sink));
  if (sink == NULL) return mrpc_raise("MemoryError", "no memory for an upload");
  status = mrpc_sink_open(sink, &name, content.size);
  if (status == 0) status = mrpc_sink_write(sink, (const uint8_t *)content.data, content.size);
  if (status == 0) {
    status = mrpc_sink_finish(sink);
  } else {
    mrpc_sink_abort(sink);
  }
  free(sink);
  return status;
}

/* Downloads */

static void end_file(void *self, int flags) {
  if (flags & 1) close(((mrpc_file *)self)->file);
  if (flags & 2) free(self);
}

static int content_of(const char *name, const char *path, TVMFFIAny *result) {
  struct stat status;
  mrpc_file *made;
  int file = open(path, O_RDONLY | O_CLOEXEC);
  if (file < 0 || fstat(file, &status) != 0 || S_ISDIR(status.st_mode)) {
    int reason = file < 0 ? errno : EISDIR;
    if (file >= 0) close(file);
    return not_found("Cannot open", name, reason);
  }
  made = mrpc_object_new(sizeof(*made), MRPC_TYPE_FILE, end_file);
  if (made == NULL) {
    close(file);
    return -1;
  }
  made->file = file;
  made->nbytes = (uint64_t)status.st_size;
  mrpc_return_object(result, &made->object);
  return 0;
}

static int download(void *self, const TVMFFIAny *args, int32_t num_args, TVMFFIAny *result) {
  TVMFFIByteArray given;
  char name[MAX_NAME + 1], path[4096];
  (void)self;
  if (mrpc_argument_text(args, num_args, 0, "a name", &given) != 0 ||
      path_of(&given, name, path) != 0) {
    return -1;
  }
  return content_of(name, path, result);
}

/* As in TVM it is no error if there is no such file; what lies outside stays, without an error. */
static int remove_file(void *self, const TVMFFIAny *args, int32_t num_args, TVMFFIAny *result) {
  TVMFFIByteArray given;
  char joined[4096], folder[4096], *last;
  struct stat status;
  (void)self, (void)result;
  if (mrpc_argument_text(args, num_args, 0, "a name", &given) != 0) return -1;
  while (given.size > 0 && given.data[given.size - 1] == '/') given.size--;
  if (given.size == 0 || given.size > MAX_NAME || memchr(given.data, 0, given.size)) return 0;
  snprintf(joined, sizeof(joined), "%s%s%.*s", given.data[0] == '/' ? "" : root,
           given.data[0] == '/' ? "" : "/", (int)given.size, given.data);
  last = strrchr(joined, '/') + 1;
  if (!*last || strcmp(last, ".") == 0 || strcmp(last, "..") == 0) return 0;
  last[-1] = 0;
  if (realpath(joined, folder) == NULL) return 0;
  if (strcmp(folder, root) != 0 && !is_inside(folder)) return 0;
  if (strlen(folder) + strlen(last) + 2 > sizeof(joined)) return 0;
  memmove(joined + strlen(folder) + 1, last, strlen(last) + 1);
  memcpy(joined, folder, strlen(folder));
  joined[strlen(folder)] = '/';
  if (lstat(joined, &status) != 0) return 0;
  if (S_ISDIR(status.st_mode)) {
    rmdir(joined); /* unless it is not empty */
    return 0;
  }
  if (unlink(joined) == 0) return 0;
  return mrpc_raise("OSError", "%.*s cannot be removed: %s", (int)given.size, given.data,
                    strerror(errno));
}

static int workpath(void *self, const TVMFFIAny *args, int32_t num_args, TVMFFIAny *result) {
  TVMFFIByteArray given;
  char name[MAX_NAME + 1], path[4096];
  (void)self;
  if (mrpc_argument_text(args, num_args, 0, "a name", &given) != 0 ||
      path_of(&given, name, path) != 0) {
    return -1;
  }
  return mrpc_return_text(result, path, strlen(path));
}

/* Modules of files */

static int is_library(const char *suffix) {
  return strcmp(suffix, "so") == 0 || strcmp(suffix, "dll") == 0 || strcmp(suffix, "dylib") == 0 ||
         strcmp(suffix, "dso") == 0;
}

/* The path of a file that was uploaded, linked if it has to be. */
static int linked_path(const TVMFFIAny *args, int32_t num_args, char *name, char *path) {
  TVMFFIByteArray given;
  struct stat status;
  if (mrpc_argument_text(args, num_args, 0, "a name", &given) != 0 ||
      path_of(&given, name, path) != 0) {
    return -1;
  }
  if (stat(path, &status) != 0 || !S_ISREG(status.st_mode)) {
    return not_found("cannot find file", name, ENOENT);
  }
  if (mrpc_is_linked(mrpc_suffix_of(path))) return mrpc_link_file(root, ++loads, name, path);
  if (is_library(mrpc_suffix_of(path))) return 0;
  return mrpc_raise("LibraryError", "Do not know how to link %s; expected .so, .o or .tar", name);
}

/* The loader takes a path that it knows for the library it knows: each load has a path of its own. */
static int load(void *self, const TVMFFIAny *args, int32_t num_args, TVMFFIAny *result) {
  char name[MAX_NAME + 1], path[4096], own[4200];
  TVMFFIObject *module;
  const char *last;
  (void)self;
  if (linked_path(args, num_args, name, path) != 0) return -1;
  snprintf(own, sizeof(own), "%s/.loaded-%d", root, ++loads);
  if (mkdir(own, 0700) != 0) return mrpc_raise("OSError", "%s: %s", own, strerror(errno));
  last = strrchr(path, '/');
  if (strlen(own) + strlen(last) >= sizeof(own)) return mrpc_raise("ValueError", "a long name");
  strcat(own, last);
  if (link(path, own) != 0) { /* a file system without hard links */
    char *copy[] = {(char *)(uintptr_t) "cp", path, own, NULL};
    if (mrpc_run(copy) != 0) return mrpc_raise("OSError", "%s cannot be copied", name);
  }
  module = mrpc_library_load(own);
  if (module == NULL) return -1;
  mrpc_return_object(result, module);
  return 0;
}

static int download_linked(void *self, const TVMFFIAny *args, int32_t num_args, TVMFFIAny *result) {
  char name[MAX_NAME + 1], path[4096];
  (void)self;
  if (linked_path(args, num_args, name, path) != 0) return -1;
  return content_of(name, path, result);
}

/* The bytes of the library that was loaded, whatever is under its name by now. */
static int module_file(void *self, const TVMFFIAny *args, int32_t num_args, TVMFFIAny *result) {
  TVMFFIObject *module;
  const char *path;
  (void)self;
  if (mrpc_argument_module(args, num_args, 0, &module) != 0) return -1;
  path = mrpc_module_path(module);
  if (path == NULL) {
    return mrpc_raise("LibraryError", "the system library is in the program, and is no file");
  }
  return content_of(path, path, result);
}

int mrpc_register_files(void) {
  static const mrpc_named functions[] = {
      {"tvm.rpc.server.upload", upload},
      {"tvm.rpc.server.download", download},
      {"tvm.rpc.server.remove", remove_file},
      {"tvm.rpc.server.workpath", workpath},
      {"tvm.rpc.server.listdir", listdir},
      {"tvm.rpc.server.load_module", load},
      {"tvm.rpc.server.download_linked_module", download_linked},
      {"tvmrpc.server.module_file", module_file},
  };
  if (mrpc_register(functions, sizeof(functions) / sizeof(functions[0])) != 0) return -1;
  if (mrpc_upload_function != NULL) mrpc_release(mrpc_upload_function); /* of a session before */
  mrpc_upload_function = mrpc_global_get("tvm.rpc.server.upload", 21);  /* also if it is removed */
  return 0;
}
