/* A server for one session over two descriptors: what PopenSession starts, and minrpc links with the
 * user's objects. Called as TVM calls it: the last two arguments are the descriptors' numbers. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "session.h"

enum { DEPTH = 64 };

/* Removes a folder and what is in it; links are not followed. */
static void remove_folder(int parent, const char *name, int depth) {
  int folder = openat(parent, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
  DIR *directory = folder < 0 ? NULL : fdopendir(folder);
  struct dirent *entry;
  if (directory == NULL && folder >= 0) close(folder);
  while (directory != NULL && (entry = readdir(directory)) != NULL) {
    if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0) continue;
    if (unlinkat(dirfd(directory), entry->d_name, 0) != 0 && depth < DEPTH) {
      remove_folder(dirfd(directory), entry->d_name, depth + 1);
    }
  }
  if (directory != NULL) closedir(directory);
  unlinkat(parent, name, AT_REMOVEDIR);
}

static int is_descriptor(const char *text, int *descriptor) {
  char *end;
  long number = strtol(text, &end, 10);
  if (*text == 0 || *end != 0 || number < 0 || fcntl((int)number, F_GETFD) < 0) return 0;
  *descriptor = (int)number;
  return 1;
}

static int is_a_socket(int descriptor) {
  struct stat status;
  return fstat(descriptor, &status) == 0 && S_ISSOCK(status.st_mode);
}

static int serve(int in, int out, const char *directory) {
  mrpc_progress progress = {MRPC_IDLE, 0, MRPC_STARTING};
  mrpc_session session;
  memset(&session, 0, sizeof(session));
  session.in = in;
  session.out = out;
  session.is_socket = is_a_socket(in) && is_a_socket(out);
  session.directory = directory;
  session.lifeline = -1;
  session.progress = &progress;
  fcntl(in, F_SETFD, FD_CLOEXEC);
  fcntl(out, F_SETFD, FD_CLOEXEC);
  return mrpc_serve(&session);
}

/* A process that outlives the session, to remove its directory and to end what it started, however
 * the session ends. It holds none of the session's descriptors. */
static void start_cleaner(const char *directory, int in, int out) {
  pid_t session = getpid();
  sigset_t ends;
  int number;
  setpgid(0, 0);
  if (fork() != 0) return;
  setsid();
  close(in);
  close(out);
  for (number = 0; number < 3; number++) {
    int nothing = open("/dev/null", O_RDWR | O_CLOEXEC);
    if (nothing >= 0) dup2(nothing, number);
    if (nothing > 2) close(nothing);
  }
  sigemptyset(&ends);
  sigaddset(&ends, SIGUSR1);
  sigprocmask(SIG_BLOCK, &ends, NULL);
  signal(SIGTERM, SIG_IGN);
  signal(SIGINT, SIG_IGN);
  prctl(PR_SET_PDEATHSIG, SIGUSR1);
  if (getppid() == session) sigwait(&ends, &number);
  kill(-session, SIGKILL);
  remove_folder(AT_FDCWD, directory, 0);
  _exit(0);
}

int main(int argc, char **argv) {
  char directory[4096];
  const char *folder = getenv("TMPDIR");
  int in, out, status;
  if (argc < 3 || !is_descriptor(argv[argc - 2], &in) || !is_descriptor(argv[argc - 1], &out)) {
    fprintf(stderr,
            "usage: %s READ_FD WRITE_FD\n"
            "A server of TVM's RPC for the session at the other end of two open descriptors;\n"
            "pytest_tvmrpc.rpc.PopenSession starts it.\n",
            argc > 0 ? argv[0] : "posix_popen_server");
    return 2;
  }
  snprintf(directory, sizeof(directory), "%s/tvmrpc-popen-XXXXXX",
           folder != NULL && folder[0] == '/' ? folder : "/tmp");
  if (mkdtemp(directory) == NULL || chdir(directory) != 0) {
    fprintf(stderr, "no working directory %s: %s\n", directory, strerror(errno));
    return 1;
  }
  signal(SIGCHLD, SIG_DFL); /* whoever started us may ignore it: then nobody can wait for children */
  start_cleaner(directory, in, out);
  status = serve(in, out, directory);
  fflush(NULL);
  if (chdir("/") == 0) remove_folder(AT_FDCWD, directory, 0);
  return status;
}
