/* Functions that end badly, or not at all. Those that do not return first make a file `started`
 * in the session's directory, for the harness to see. */
#include <fcntl.h>
#include <signal.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/types.h>
#include <unistd.h>

#define FUNCTION(name) \
  int __tvm_ffi_##name(void* self, const void* args, int32_t count, int64_t* result)

static void say_started(void) { close(open("started", O_CREAT | O_WRONLY, 0600)); }

FUNCTION(segfault) {
  raise(SIGSEGV);
  return 0;
}

FUNCTION(abort) {
  abort();
  return 0;
}

FUNCTION(exit_three) {
  _exit(3);
  return 0;
}

/* As the kernel does when memory runs out. */
FUNCTION(kill) {
  kill(getpid(), SIGKILL);
  return 0;
}

FUNCTION(spin) {
  volatile int turning = 1;
  say_started();
  while (turning) {
  }
  return 0;
}

FUNCTION(sleep_through_sigterm) {
  signal(SIGTERM, SIG_IGN);
  say_started();
  for (;;) pause();
  return 0;
}

/* Starts a child, a grandchild and a daemon in a session of its own, all deaf to SIGTERM and with
 * all descriptors of this process, and returns the daemon's number. */
FUNCTION(leave_a_family) {
  int ends[2];
  pid_t daemon = 0;
  if (pipe(ends) != 0) return -1;
  signal(SIGTERM, SIG_IGN);
  if (fork() == 0) {
    if (fork() == 0) {
      setsid();
      daemon = fork();
      if (daemon == 0) {
        for (;;) pause();
      }
      if (write(ends[1], &daemon, sizeof daemon) < 0) _exit(1);
      _exit(0);
    }
    for (;;) pause();
  }
  if (read(ends[0], &daemon, sizeof daemon) != sizeof daemon) return -1;
  close(ends[0]);
  close(ends[1]);
  result[0] = 1; /* an int */
  result[1] = daemon;
  return 0;
}
