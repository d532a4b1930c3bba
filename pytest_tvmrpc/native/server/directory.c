/* A session's working directory: made fresh, locked while in use, removed with all that is in it.
 *
 * The lock is a descriptor's, which a forked process shares: it ends with the last of them, however
 * they end. The number of a process in the name would not do: other containers that share the folder
 * have other numbers.
 *
 * Removing also happens in the handler of a signal (born.c). So it allocates nothing, and asks the
 * kernel itself for the names in a folder. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "server.h"

enum {
  TRIES = 5, /* names in each place: others may look for what was abandoned just then */
  FEW = 64,
  LITTLE_NBYTES = 16 << 20, /* so much is removed in a moment, which clients can wait for */
  STUCK = 16                /* folders that cannot be removed, which are then passed over */
};

/* As the kernel has it. */
typedef struct {
  uint64_t inode;
  int64_t offset;
  uint16_t nbytes;
  uint8_t type;
  char name[];
} entry;

/* Calls back with each name in a folder until that returns something else than 0, which is returned;
 * -1 if the folder cannot be read. */
int mrpc_list(int folder, char *buffer, size_t room, int (*found)(const char *name, void *more),
              void *more) {
  for (;;) {
    long got = syscall(SYS_getdents64, folder, buffer, room);
    if (got <= 0) return got ? -1 : 0;
    for (long at = 0; at < got;) {
      const entry *one = (const entry *)(const void *)(buffer + at);
      const char *name = one->name;
      int result = 0;
      if (strcmp(name, ".") != 0 && strcmp(name, "..") != 0) result = found(name, more);
      if (result) return result;
      at += one->nbytes;
    }
  }
}

typedef struct {
  int folder, entries;
  int64_t nbytes;
  int deeper; /* a folder that is not empty, opened; or -1 */
  int stuck_count;
  ino_t stuck[STUCK];
} removal;

enum { FULL = 1, DEEPER };

static int is_stuck(const removal *all, ino_t inode) {
  for (int at = 0; at < all->stuck_count; at++)
    if (all->stuck[at] == inode) return 1;
  return 0;
}

static void forget(removal *all, ino_t inode) {
  for (int at = 0; at < all->stuck_count; at++)
    if (all->stuck[at] == inode) all->stuck[at] = all->stuck[--all->stuck_count];
}

/* Removes one entry of all->folder, or opens it if it is a folder with something in it. */
static int remove_entry(const char *name, void *more) {
  removal *all = more;
  struct stat status;
  if (fstatat(all->folder, name, &status, AT_SYMLINK_NOFOLLOW)) return 0;
  if (all->entries-- <= 0 || (all->nbytes -= status.st_size) < 0) return FULL;
  if (!S_ISDIR(status.st_mode)) {
    unlinkat(all->folder, name, 0);
    return 0;
  }
  if (!unlinkat(all->folder, name, AT_REMOVEDIR)) {
    forget(all, status.st_ino);
    return 0;
  }
  if (is_stuck(all, status.st_ino)) return 0;
  fchmodat(all->folder, name, 0700, 0); /* who is not root needs it to remove what is in there */
  all->deeper = openat(all->folder, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
  return all->deeper < 0 ? 0 : DEEPER;
}

/* Goes up again. What could not be removed is still there, and is not entered again. */
static int leave(removal *all) {
  struct stat status;
  int above = openat(all->folder, "..", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (above < 0) return -1;
  if (all->stuck_count == STUCK || fstat(all->folder, &status)) {
    close(above);
    return -1;
  }
  all->stuck[all->stuck_count] = status.st_ino;
  close(all->folder);
  all->folder = above;
  return 0;
}

/* Removes a folder; what cannot be removed stays. Links are not followed, and however deep it goes,
 * nothing recurs. No more than so many entries and bytes: 1 if there is more. */
int mrpc_remove_tree(const char *path, int entries, int64_t nbytes) {
  char buffer[2048] __attribute__((aligned(8)));
  removal all = {-1, entries, nbytes, -1, 0, {0}};
  int depth = 0, result = 0;
  chmod(path, 0700);
  all.folder = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
  while (all.folder >= 0) {
    int found;
    lseek(all.folder, 0, SEEK_SET);
    found = mrpc_list(all.folder, buffer, sizeof buffer, remove_entry, &all);
    if (found == FULL) {
      result = 1;
      break;
    }
    if (found == DEEPER) {
      close(all.folder);
      all.folder = all.deeper;
      depth++;
      continue;
    }
    if (!depth) break;
    depth--;
    if (leave(&all)) break;
    /* An empty folder goes when it is met again; one that stays is known by its number. */
  }
  if (all.folder >= 0) close(all.folder);
  if (!result) rmdir(path);
  return result;
}

static void unlock(mrpc_directory *directory) {
  if (directory->lock >= 0) close(directory->lock);
  directory->lock = -1;
}

void mrpc_directory_remove(mrpc_directory *directory) {
  if (mrpc_remove_tree(directory->path, FEW, LITTLE_NBYTES)) {
    pid_t pid = mrpc_fork();
    if (pid == 0) {
      mrpc_remove_tree(directory->path, INT32_MAX, INT64_MAX);
      _exit(0);
    }
    if (pid < 0)
      mrpc_remove_tree(directory->path, INT32_MAX, INT64_MAX);
    else
      mrpc_errand(pid);
  }
  unlock(directory);
}

/* The places in which directories are made, the first that will do; NULL behind the last. */
static const char *place(int which) {
  static const char *const names[] = {"TMPDIR", "TEMP", "TMP"};
  if (mrpc_settings.work_dir) return which ? NULL : mrpc_settings.work_dir;
  if (which < 3) {
    const char *named = getenv(names[which]);
    return named ? named : "";
  }
  return which == 3 ? "/tmp" : which == 4 ? "/var/tmp" : which == 5 ? "." : NULL;
}

/* 0, an errno, or EAGAIN for another name. */
static int make(const char *where, mrpc_directory *directory) {
  struct stat status;
  char real[PATH_MAX];
  uint64_t name;
  int code = 0, length;
  directory->lock = -1;
  if (!realpath(where, real)) return errno;
  mrpc_random(&name, sizeof name);
  length = snprintf(directory->path, MRPC_PATH, "%s/" MRPC_SESSION_PREFIX "%08x%08x", real,
                    (unsigned)(name >> 32), (unsigned)name);
  if (length >= MRPC_PATH) return ENAMETOOLONG;
  if (mkdir(directory->path, 0700)) return errno;
  directory->lock = open(directory->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (directory->lock < 0)
    code = errno;
  else if ((flock(directory->lock, LOCK_SH | LOCK_NB) && errno == EWOULDBLOCK) ||
           stat(directory->path, &status))
    code = EAGAIN; /* a server that started just now takes it for abandoned, or has removed it */
  if (!code) return 0;
  unlock(directory);
  rmdir(directory->path);
  return code;
}

int mrpc_directory_make(mrpc_directory *directory, char *why) {
  const char *where;
  for (int which = 0; (where = place(which)); which++) {
    int code = EAGAIN;
    for (int attempt = 0; *where && code == EAGAIN && attempt < TRIES; attempt++)
      code = make(where, directory);
    if (!*where) continue;
    if (!code) return 0;
    snprintf(why, MRPC_WHY, "%.60s: '%.120s'", strerror(code), where);
  }
  directory->lock = -1;
  return -1;
}

int mrpc_directory_check(char *why) {
  mrpc_directory directory;
  struct statvfs status;
  int is_noexec;
  if (mrpc_directory_make(&directory, why)) return -1;
  is_noexec = !statvfs(directory.path, &status) && status.f_flag & ST_NOEXEC;
  if (is_noexec)
    snprintf(why, MRPC_WHY,
             "the directories of sessions are in %.*s, which is mounted noexec: libraries cannot be "
             "loaded there; set TMPDIR to another place",
             (int)(strrchr(directory.path, '/') - directory.path), directory.path);
  mrpc_directory_remove(&directory);
  return is_noexec;
}

typedef struct {
  int folder;
  const char *where;
  void (*found)(mrpc_directory *directory);
} search;

/* This user's directory that a server left behind which was killed; locked, to be removed. */
static int look_at(const char *name, void *more) {
  search *all = more;
  struct stat status;
  mrpc_directory directory;
  size_t length = strlen(MRPC_SESSION_PREFIX);
  if (strncmp(name, MRPC_SESSION_PREFIX, length) != 0) return 0;
  if (snprintf(directory.path, MRPC_PATH, "%s/%s", all->where, name) >= MRPC_PATH) return 0;
  directory.lock = openat(all->folder, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
  if (directory.lock < 0) return 0;
  if (!fstat(directory.lock, &status) && status.st_uid == getuid() &&
      !flock(directory.lock, LOCK_EX | LOCK_NB))
    all->found(&directory);
  else
    unlock(&directory); /* in use, or on a file system without locks */
  return 0;
}

void mrpc_directory_find_abandoned(void (*found)(mrpc_directory *directory)) {
  char buffer[2048] __attribute__((aligned(8)));
  search all;
  all.found = found;
  for (int which = 0; (all.where = place(which)); which++) {
    all.folder = open(*all.where ? all.where : "/dev/null", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (all.folder < 0) continue;
    mrpc_list(all.folder, buffer, sizeof buffer, look_at, &all);
    close(all.folder);
  }
}
