/* A session's process, seen from within: its start, what it is bound to, its end. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "server.h"

#define STRAYS_S 0.5
enum { STUCK_S = 3 };

static mrpc_birth born;

/* What it prints is the parent's to read; there is nothing for it to read. */
static void use_streams(int output) {
  int nothing = open("/dev/null", O_RDWR);
  if (nothing >= 0) {
    dup2(nothing, 0);
    if (nothing > 2) close(nothing);
  }
  dup2(output, 1);
  dup2(output, 2);
  if (output > 2) close(output);
  /* A line that was printed before a crash must reach the supervisor. */
  setvbuf(stdout, NULL, _IOLBF, BUFSIZ);
}

/* What the supervisor would do, had it not ended first. */
static void clean_up(void) {
  mrpc_strays_kill_all(born.mark, STRAYS_S);
  mrpc_remove_tree(born.session.directory, INT32_MAX, INT64_MAX);
}

/* The kernel says that the parent is gone, whatever this process does just then, also in a library
 * whose constructor never returns: it ends with all that it has started. */
static void orphaned(int number) {
  if (getppid() == born.parent) { /* somebody else's signal */
    signal(number, SIG_DFL);
    raise(number);
    return;
  }
  signal(SIGALRM, SIG_DFL);
  alarm(STUCK_S);
  clean_up();
  kill(-getpid(), SIGKILL); /* its group, in which it may be no more */
  kill(getpid(), SIGKILL);
}

static void bind_to_parent(void) {
  struct sigaction action;
  memset(&action, 0, sizeof action);
  action.sa_handler = orphaned;
  sigaction(SIGHUP, &action, NULL);
  prctl(PR_SET_PDEATHSIG, SIGHUP);
  if (getppid() != born.parent) raise(SIGHUP); /* it was gone before the kernel knew */
}

void mrpc_born(const mrpc_birth *birth) {
  mrpc_progress *shared = birth->session.progress;
  pid_t process = getpid();
  int status;
  born = *birth;
  setpgid(0, 0);
  use_streams(birth->output);
  mrpc_strays_bear(birth->mark);
  bind_to_parent();
  if (chdir(birth->session.directory)) {
    fprintf(stderr, "the session's directory cannot be entered: %s\n", strerror(errno));
    _exit(1);
  }
  status = mrpc_serve(&birth->session);
  if (getpid() != process) _exit(status); /* a copy, which a function made and let return */
  /* Whatever was cut short, it is no exit() in a request. */
  shared->progress = MRPC_IDLE;
  if (shared->stage == MRPC_OPEN) shared->stage = MRPC_ENDED;
  fflush(NULL);
  if (getppid() != birth->parent) clean_up();
  _exit(status);
}
