/* Functions that end badly, or not at all. Those that do not return first make a file `started`
 * in the session's directory, for the test to see. */
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/types.h>
#include <unistd.h>

#define FUNCTION(name) \
  int __tvm_ffi_##name(void* self, const void* args, int32_t count, int64_t* result)

static void say_started(void) { close(open("started", O_CREAT | O_WRONLY, 0600)); }

static int give(int64_t* result, int64_t value) {
  ((int32_t*)result)[0] = 1; /* an int */
  ((int32_t*)result)[1] = 0;
  result[1] = value;
  return 0;
}

FUNCTION(one) { return give(result, 1); }

FUNCTION(process) { return give(result, getpid()); }

FUNCTION(segfault) {
  raise(SIGSEGV);
  return 0;
}

FUNCTION(abort) {
  abort();
  return 0;
}

FUNCTION(exit_three) {
  exit(3);
  return 0;
}

FUNCTION(exit_zero) {
  exit(0);
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

#ifdef WITH_A_CONSTRUCTOR
__attribute__((constructor)) static void loaded(void) { raise(SIGSEGV); }
#endif

#ifdef WITH_A_CONSTRUCTOR_THAT_EXITS
__attribute__((constructor)) static void loaded(void) { exit(4); }
#endif

#ifdef WITH_A_CONSTRUCTOR_THAT_BLOCKS
__attribute__((constructor)) static void loaded(void) {
  say_started();
  for (;;) pause();
}
#endif

FUNCTION(leave_many_files) {
  char name[16];
  for (int number = 0; number < 501; ++number) {
    snprintf(name, sizeof name, "%d", number);
    close(open(name, O_CREAT | O_WRONLY, 0600));
  }
  return 0;
}

static void print_much(void) {
  static char line[1024];
  for (int index = 0; index < (int)sizeof line; ++index) line[index] = index == 1023 ? '\n' : 'x';
  for (int number = 0; number < 64 << 10; ++number) fwrite(line, 1, sizeof line, stdout);
  fflush(stdout);
}

/* 64 MiB. */
FUNCTION(print_much) {
  print_much();
  return give(result, 1);
}

FUNCTION(print_for_ever) {
  say_started();
  for (;;) print_much();
  return 0;
}

/* By a process of its own, while the session goes on. */
FUNCTION(flood_in_the_background) {
  if (fork() == 0) {
    for (;;) print_much();
  }
  return 0;
}

FUNCTION(say_and_segfault) {
  fprintf(stderr, "the tensor core is on fire\n");
  raise(SIGSEGV);
  return 0;
}

/* Starts a daemon, which is in a session of its own and nobody's child, and returns its number. */
FUNCTION(leave_a_daemon) {
  int ends[2];
  pid_t found = 0;
  if (pipe(ends) != 0) return -1;
  if (fork() == 0) {
    setsid();
    pid_t daemon = fork();
    if (daemon == 0) {
      signal(SIGTERM, SIG_IGN);
      signal(SIGHUP, SIG_IGN);
      close(ends[1]);
      for (;;) pause();
    }
    if (write(ends[1], &daemon, sizeof daemon) < 0) _exit(1);
    _exit(0);
  }
  if (read(ends[0], &found, sizeof found) < 0) return -1;
  close(ends[0]);
  close(ends[1]);
  return give(result, found);
}

/* As if a shell had started it: the session's own group is empty then. */
FUNCTION(join_the_group_of_the_server) { return give(result, setpgid(0, getpgid(getppid()))); }

FUNCTION(read_stdin) {
  char byte;
  return give(result, read(0, &byte, 1));
}

FUNCTION(start_in_the_background) { return give(result, system("true &")); }

/* Starts a process that would run for ever, and returns its number. */
FUNCTION(leave_a_child) {
  pid_t child = fork();
  if (child == 0) {
    signal(SIGTERM, SIG_IGN);
    for (;;) pause();
  }
  return give(result, child);
}

/* Threads that are the end of the process when the call that started them has returned, and the
 * file `go` is there. */
static void wait_for_go(void) {
  while (access("go", F_OK) != 0) usleep(1000);
}

static void* segfault_later(void* unused) {
  wait_for_go();
  fprintf(stderr, "the thread lost its way\n");
  raise(SIGSEGV);
  return unused;
}

static void* exit_later(void* unused) {
  wait_for_go();
  exit(0);
  return unused;
}

static int start_thread(void* (*run)(void*)) {
  pthread_t thread;
  return pthread_create(&thread, NULL, run, NULL);
}

FUNCTION(segfault_in_a_thread) { return start_thread(segfault_later); }

FUNCTION(exit_in_a_thread) { return start_thread(exit_later); }

/* Functions of which two processes return: an exec that failed, and nobody thought of it. */
static int fork_and_return(void) {
  pid_t child = fork();
  if (child == 0) execl("/nowhere/to/be/found", "found", (char*)0);
  if (child > 0) usleep(10000); /* so that the child is first */
  return child < 0;
}

FUNCTION(fork_and_return) {
  if (fork_and_return()) return -1;
  return give(result, 41);
}

FUNCTION(fork_and_fail) {
  fork_and_return();
  return -1;
}

#ifdef WITH_A_CONSTRUCTOR_THAT_FORKS
__attribute__((constructor)) static void loaded(void) { fork_and_return(); }
#endif

#ifdef WITH_A_DESTRUCTOR_THAT_FORKS
__attribute__((destructor)) static void unloaded(void) { fork_and_return(); }
#endif
