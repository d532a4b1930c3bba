/* Processes that sessions left behind: found, killed and reaped.
 *
 * A process group is not enough: a daemon leaves it, and becomes a child of the system's first
 * process when its parent ends. Two things help. A process can claim the orphans among its
 * descendants, so that the supervisor notices them, and reaps them. And a session is marked by one of
 * its resource limits, which all that it starts inherits, whatever it closes, leaves or executes: so
 * nobody is killed who only happens to be our child, or our orphan. Where orphans cannot be claimed,
 * as in QEMU's emulation of Linux, the marked ones are looked for among all processes.
 *
 * Without a /proc, sessions end with their process groups. Allocates nothing, as directory.c. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "server.h"

#ifndef PR_SET_CHILD_SUBREAPER
#define PR_SET_CHILD_SUBREAPER 36
#endif

#define MARKS (UINT64_C(1) << 52) /* microseconds of real time: a limit that no process meets */
#define AT_ONCE_S 0.1 /* one that forks all the time is met again later */

enum { MOST_ERRANDS = 8, CHILDREN = 4096 };

static int is_adopting;
static pid_t errands[MOST_ERRANDS];

/* A number of decimal digits, or 0. Not strtol: see above. */
static long number_of(const char *text) {
  long number = 0;
  for (; *text >= '0' && *text <= '9'; text++) number = number * 10 + (*text - '0');
  return *text ? 0 : number;
}

/* "/proc/PID/NAME", of which `name` has its slash. */
static void proc_path(char *path, long pid, const char *name) {
  char digits[24];
  int at = (int)sizeof digits;
  digits[--at] = 0;
  do digits[--at] = (char)('0' + pid % 10);
  while (pid /= 10);
  strcpy(path, "/proc/");
  strcat(path, digits + at);
  strcat(path, name);
}

/* The beginning of a file with a NUL behind; its bytes, or -1. */
static ssize_t read_file(const char *path, char *out, size_t room) {
  int fd = open(path, O_RDONLY | O_CLOEXEC);
  ssize_t nbytes = 0, got = 1;
  if (fd < 0) return -1;
  while (got > 0 && (size_t)nbytes < room - 1) {
    got = read(fd, out + nbytes, room - 1 - (size_t)nbytes);
    if (got > 0) nbytes += got;
  }
  close(fd);
  out[nbytes] = 0;
  return got < 0 ? -1 : nbytes;
}

/* Whether there is a /proc, and its numbers are those that this process has to do with. */
static int sees_itself(void) {
  char link[24];
  ssize_t nbytes = readlink("/proc/self", link, sizeof link - 1);
  if (nbytes <= 0) return 0;
  link[nbytes] = 0;
  return number_of(link) == getpid();
}

int mrpc_strays_adopt(void) {
  if (!is_adopting && sees_itself())
    is_adopting = getpid() == 1 || !prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0);
  return is_adopting;
}

uint64_t mrpc_strays_mark(void) {
  uint64_t mark = 0;
  mrpc_random(&mark, 6);
#if __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
  mark >>= 16;
#endif
  return MARKS + mark;
}

/* Marks this process, and all that it starts from now on. The call of the kernel has 64 bits, which
 * the C library's may not have. */
void mrpc_strays_bear(uint64_t mark) {
  uint64_t both[2]; /* the limit, and how far it may be raised */
  if (syscall(SYS_prlimit64, 0, RLIMIT_RTTIME, NULL, both)) return;
  both[0] = mark; /* which fails if whoever started us set a lower limit */
  (void)syscall(SYS_prlimit64, 0, RLIMIT_RTTIME, both, NULL);
}

static int bears(pid_t pid, uint64_t mark) {
  static const char title[] = "Max realtime timeout";
  char path[64], limits[2048];
  const char *at;
  uint64_t found = 0;
  proc_path(path, pid, "/limits");
  if (read_file(path, limits, sizeof limits) < 0) return 0;
  at = strstr(limits, title);
  if (!at) return 0;
  for (at += sizeof title - 1; *at == ' '; at++)
    ;
  for (; *at >= '0' && *at <= '9'; at++) found = found * 10 + (uint64_t)(*at - '0');
  return found == mark;
}

/* The state of a process as a letter, 0 if it is gone; and its parent. */
static char state_of(pid_t pid, pid_t *parent) {
  char path[64], stat[512], *at;
  long number = 0;
  proc_path(path, pid, "/stat");
  if (read_file(path, stat, sizeof stat) < 0) return 0;
  at = strrchr(stat, ')'); /* its name may hold anything */
  if (!at || strlen(at) < 5) return 0;
  for (const char *digits = at + 4; *digits >= '0' && *digits <= '9'; digits++)
    number = number * 10 + (*digits - '0');
  *parent = (pid_t)number;
  return at[2];
}

typedef int per_process(pid_t pid, void *more);

typedef struct {
  per_process *found;
  void *more;
} scan;

static int look_at(const char *name, void *more) {
  const scan *all = more;
  long pid = number_of(name);
  return pid > 0 ? all->found((pid_t)pid, all->more) : 0;
}

static int each_process(per_process *found, void *more) {
  char buffer[2048] __attribute__((aligned(8)));
  scan all = {found, more};
  int folder = open("/proc", O_RDONLY | O_DIRECTORY | O_CLOEXEC), result;
  if (folder < 0) return 0;
  result = mrpc_list(folder, buffer, sizeof buffer, look_at, &all);
  close(folder);
  return result;
}

static int if_child(pid_t pid, void *more) {
  const scan *all = more;
  pid_t parent = 0;
  return state_of(pid, &parent) && parent == getpid() ? all->found(pid, all->more) : 0;
}

/* Calls back with each child that is not reaped; this process has one thread. */
static int each_child(per_process *found, void *more) {
  char path[64], children[CHILDREN];
  scan all = {found, more};
  char *next;
  proc_path(path, getpid(), "/task/");
  proc_path(children, getpid(), "/children");
  strcat(path, children + strlen("/proc/"));
  if (read_file(path, children, sizeof children) < 0) /* a kernel that does not list them */
    return each_process(if_child, &all);
  for (char *at = children; *at; at = next) {
    pid_t pid = (pid_t)strtol(at, &next, 10);
    if (next == at) break;
    if (!*next) break; /* cut off: it is met again when others are gone */
    if (pid > 0) {
      int result = found(pid, more);
      if (result) return result;
    }
    while (*next == ' ') next++;
  }
  return 0;
}

static int has_children(int ended) {
  siginfo_t found;
  found.si_pid = 0;
  if (waitid(P_ALL, 0, &found, WEXITED | WNOHANG | WNOWAIT)) return 0;
  return !ended || found.si_pid;
}

typedef struct {
  uint64_t mark;
  int found, reaped;
} hunt;

static int kill_child(pid_t pid, void *more) {
  hunt *all = more;
  if (!bears(pid, all->mark)) return 0;
  all->found++;
  kill(pid, SIGKILL);
  if (waitpid(pid, NULL, WNOHANG)) all->reaped++;
  return 0;
}

static int kill_marked(pid_t pid, void *more) {
  hunt *all = more;
  pid_t parent;
  char state;
  if (pid == getpid() || !bears(pid, all->mark)) return 0;
  state = state_of(pid, &parent);
  if (!state || state == 'Z' || state == 'X') return 0;
  all->found++;
  kill(pid, SIGKILL);
  return 0;
}

static int kill_all_once(uint64_t mark) {
  hunt all = {mark, 0, 0};
  each_process(kill_marked, &all);
  return all.found;
}

/* Ends what bears this mark: of our children, which orphans are, or else of all processes; whether
 * none is left, or may be in a moment. */
int mrpc_strays_kill(uint64_t mark) {
  double end = mrpc_now() + AT_ONCE_S;
  if (!is_adopting) return !sees_itself() || !kill_all_once(mark);
  while (has_children(0)) {
    hunt all = {mark, 0, 0};
    each_child(kill_child, &all);
    if (!all.found) return 1;
    if (!all.reaped || mrpc_now() >= end) return 0;
  }
  return 1;
}

void mrpc_errand(pid_t pid) {
  for (int at = 0; at < MOST_ERRANDS; at++) {
    if (errands[at]) continue;
    errands[at] = pid;
    return;
  }
}

static int reap_child(pid_t pid, void *more) {
  if (pid != *(const pid_t *)more) waitpid(pid, NULL, WNOHANG);
  return 0;
}

/* Reaps children that have ended, except the session's process, which others wait for. */
void mrpc_strays_reap(pid_t session) {
  for (int at = 0; at < MOST_ERRANDS; at++)
    if (errands[at] && waitpid(errands[at], NULL, WNOHANG)) errands[at] = 0;
  if (has_children(1)) each_child(reap_child, &session);
}

/* Kills every process with this mark but this one, whoever its parent is. */
void mrpc_strays_kill_all(uint64_t mark, double limit_s) {
  double end = mrpc_now() + limit_s;
  while (mrpc_now() < end && sees_itself() && kill_all_once(mark))
    ;
}
