/* The session that goes on, as its supervisor sees it: its start, its deadline, its end.
 *
 * The parent keeps a copy of the client's socket. When the session's process dies of something, the
 * parent can tell the client what it was, unless the process stood in the middle of an answer: memory
 * that the two share says so. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "server.h"

#define LATER_S 0.5 /* how much later than the process itself we look whether the session is open */
#define MOMENT_S 0.01
#define LOOK_AGAIN_S 0.05
#define STRAYS_S 5.0 /* how long to wait for what was killed; what the kernel holds fast stays */

enum { TEXT = 8192 }; /* half of what may be missing of an answer that was cut short */

typedef enum { NONE, SERVING, STOPPING, STRAYS } state;

typedef struct {
  state state;
  int connection, lifeline, has_client;
  pid_t pid, supervisor;
  uint64_t mark;
  mrpc_progress *shared;
  mrpc_directory directory;
  double timeout_s, opening_s, expires_at, kill_at, opens_by, asks_at, give_up_at;
  char address[MRPC_ADDRESS], outcome[MRPC_OUTCOME];
  const char *message; /* what the client is told for that outcome; NULL without one */
  char text[TEXT];
} worker;

static worker now_serving;

/* A descriptor that is 0 is none: the standard streams are always open. */
static void close_fd(int *fd) {
  if (*fd > 0) close(*fd);
  *fd = 0;
}

static void signal_all(int number) {
  /* To those that stayed in its group, and to the process, wherever it may have gone. */
  kill(-now_serving.pid, number);
  kill(now_serving.pid, number);
}

/* Not amid a short answer, as nothing could be said behind a part of it. */
static void ask_to_end(double now) {
  int is_amid = now_serving.shared->progress == MRPC_ANSWERING;
  now_serving.asks_at = is_amid ? now + MOMENT_S : MRPC_NEVER;
  if (!is_amid) signal_all(SIGTERM);
}

/* Asks the process to end; it is killed when it does not. The message is cut if it is long. */
void mrpc_worker_stop(const char *outcome, const char *message) {
  worker *session = &now_serving;
  double now = mrpc_now();
  if (session->state != SERVING) return;
  session->state = STOPPING;
  session->kill_at = now + mrpc_settings.stop_s;
  snprintf(session->outcome, MRPC_OUTCOME, "%s", outcome);
  snprintf(session->text, TEXT, "%s", message);
  session->message = session->text;
  ask_to_end(now);
}

static void client_gone(void *whose, int events) {
  (void)whose;
  (void)events;
  mrpc_forget(now_serving.connection);
  now_serving.has_client = 0; /* the process has a moment to notice */
  if (now_serving.state == SERVING) now_serving.kill_at = mrpc_now() + mrpc_settings.goodbye_s;
}

static void become(int fd, const char *path, const uint8_t *early, size_t early_nbytes, int output,
                   int lifeline) {
  const mrpc_config *given = &mrpc_settings;
  mrpc_birth birth; /* its parent is not asked for here: that one may be gone already */
  memset(&birth, 0, sizeof birth);
  birth.session.in = birth.session.out = fd;
  birth.session.is_socket = 1;
  birth.session.early = early;
  birth.session.early_nbytes = early_nbytes;
  birth.session.directory = path;
  birth.session.opening_s = given->handshake_s;
  if (given->idle_s > 0 && given->idle_s < given->handshake_s)
    birth.session.opening_s = given->idle_s;
  birth.session.idle_s = given->idle_s;
  birth.session.send_s = given->send_s;
  birth.session.libraries = given->libraries;
  birth.session.lifeline = lifeline;
  birth.session.progress = now_serving.shared;
  birth.output = output;
  birth.mark = now_serving.mark;
  birth.parent = now_serving.supervisor;
  mrpc_born(&birth);
}

static void release(void) {
  worker *session = &now_serving;
  mrpc_output_close();
  if (session->shared) munmap(session->shared, sizeof *session->shared);
  close_fd(&session->lifeline);
  session->shared = NULL;
}

/* The process with what it needs; its number, or -1 with errno. */
static pid_t start(int fd, const uint8_t *early, size_t early_nbytes) {
  worker *session = &now_serving;
  int output = mrpc_output_open(mrpc_settings.output_nbytes), both[2], code;
  pid_t pid;
  if (output < 0) return -1;
  if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, both)) return -1;
  session->lifeline = both[0];
  mrpc_set_nonblocking(both[0], 1);
  session->shared = mmap(NULL, sizeof *session->shared, PROT_READ | PROT_WRITE,
                         MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  if (session->shared == MAP_FAILED) {
    session->shared = NULL;
    close(both[1]);
    return -1;
  }
  session->mark = mrpc_strays_mark();
  session->supervisor = getpid();
  pid = mrpc_fork();
  if (pid == 0) {
    close(both[0]);
    mrpc_output_close_fds();
    mrpc_set_nonblocking(fd, 0);
    become(fd, session->directory.path, early, early_nbytes, output, both[1]);
  }
  code = errno;
  close(both[1]);
  errno = code;
  return pid;
}

/* Starts a session; the socket is the session's then, else still the caller's. */
int mrpc_worker_start(int fd, const char *address, const mrpc_hello *hello, const uint8_t *early,
                      size_t early_nbytes, char *why) {
  worker *session = &now_serving;
  double now = mrpc_now();
  if (mrpc_directory_make(&session->directory, why)) return -1;
  session->pid = start(fd, early, early_nbytes);
  if (session->pid < 0) {
    snprintf(why, MRPC_WHY, "%s", strerror(errno));
    release();
    mrpc_directory_remove(&session->directory);
    return -1;
  }
  setpgid(session->pid, session->pid); /* the process does it too; whoever comes first */
  session->state = SERVING;
  session->connection = fd;
  session->has_client = 1;
  session->message = NULL;
  session->outcome[0] = 0;
  session->timeout_s = hello->session_timeout;
  session->expires_at = session->timeout_s > 0 ? now + session->timeout_s : MRPC_NEVER;
  session->opening_s = mrpc_settings.handshake_s;
  session->opens_by = now + session->opening_s + LATER_S;
  session->kill_at = session->asks_at = MRPC_NEVER;
  snprintf(session->address, MRPC_ADDRESS, "%s", address);
  mrpc_watch(fd, POLLRDHUP, client_gone, NULL);
  mrpc_output_started(session->lifeline);
  mrpc_report("connected from %s", address);
  mrpc_report("start serving at %s", session->directory.path);
  return 0;
}

int mrpc_worker_is_there(void) { return now_serving.state != NONE; }

pid_t mrpc_worker_pid(void) { return now_serving.state == NONE ? 0 : now_serving.pid; }

void mrpc_worker_close_fds(void) {
  close_fd(&now_serving.connection);
  close_fd(&now_serving.lifeline);
  mrpc_output_close_fds();
}

/* The client has no longer than this, in all, to open the session. */
void mrpc_worker_limit_opening(double opening_s) {
  worker *session = &now_serving;
  if (session->opens_by == MRPC_NEVER || opening_s >= session->opening_s) return;
  session->opens_by += opening_s - session->opening_s - LATER_S;
  session->opening_s = opening_s;
}

/* Ends a session whose client only pretends to open it; when to look again, if at all.
 *
 * The process limits each wait for the client; one that says a byte now and then passes that. */
static double check_opened(double now) {
  worker *session = &now_serving;
  char message[256];
  int stage = session->shared->stage;
  if (stage == MRPC_OPEN || stage == MRPC_WAS_IDLE || session->state != SERVING) return MRPC_NEVER;
  if (stage == MRPC_STARTING || session->shared->progress != MRPC_IDLE)
    return now + LATER_S; /* it is the server that takes its time */
  snprintf(message, sizeof message,
           "RPCSessionTimeoutError: Your session was not opened within %g s of this server's answer; "
           "InitServer has to come at once, as the device is yours from then on",
           session->opening_s);
  mrpc_worker_stop("was never opened", message);
  return MRPC_NEVER;
}

/* A number of seconds as Python shows a float. */
static void show_seconds(char *out, size_t room, double seconds) {
  for (int digits = 1; digits <= 17; digits++) {
    snprintf(out, room, "%.*g", digits, seconds);
    if (strtod(out, NULL) == seconds) break;
  }
  if (seconds < 1e16 && strchr(out, 'e')) snprintf(out, room, "%.1f", seconds);
  if (!strpbrk(out, ".e")) strcat(out, ".0");
}

void mrpc_worker_tick(double now) {
  worker *session = &now_serving;
  if (now >= session->expires_at) {
    char seconds[64], message[256];
    show_seconds(seconds, 48, session->timeout_s);
    snprintf(message, sizeof message,
             "RPCSessionTimeoutError: Your %ss session has expired, try to increase the "
             "\"session_timeout\" value.", /* TVM's words */
             seconds);
    session->expires_at = MRPC_NEVER;
    mrpc_worker_stop("session expired", message);
  }
  if (now >= session->opens_by) session->opens_by = check_opened(now);
  if (now >= session->asks_at) ask_to_end(now);
  if (now < session->kill_at) return;
  session->kill_at = MRPC_NEVER;
  if (session->state == STRAYS)
    mrpc_worker_reap(); /* what it left may end without a signal to us */
  else
    signal_all(SIGKILL);
}

double mrpc_worker_due(void) {
  const worker *session = &now_serving;
  double due = session->expires_at;
  if (session->kill_at < due) due = session->kill_at;
  if (session->opens_by < due) due = session->opens_by;
  return session->asks_at < due ? session->asks_at : due;
}

/* How a process ended, in a message; nothing for a clean end. */
static void how_ended(int status, char *out, size_t room) {
  const char *name = WIFSIGNALED(status) ? mrpc_signal_name(WTERMSIG(status)) : NULL;
  *out = 0;
  if (name)
    snprintf(out, room, "was killed by %s", name);
  else if (WIFSIGNALED(status))
    snprintf(out, room, "was killed by signal %d", WTERMSIG(status));
  else if (WEXITSTATUS(status))
    snprintf(out, room, "exited with %d", WEXITSTATUS(status));
}

static void crashed(const char *ended, const char *when) {
  worker *session = &now_serving;
  int nbytes;
  if (!*ended) ended = "exited with 0";
  snprintf(session->outcome, MRPC_OUTCOME, "%s", ended);
  nbytes = snprintf(session->text, TEXT, "SessionCrashedError: the session's process %s %s", ended,
                    when);
  if (!mrpc_output_last_lines(session->text + nbytes, TEXT - (size_t)nbytes))
    snprintf(session->text + nbytes, TEXT - (size_t)nbytes, "; it printed nothing");
  session->message = session->text;
}

/* Finds out what became of the session, and what its client has to hear. */
static void judge(const char *ended) {
  worker *session = &now_serving;
  int progress = session->shared->progress, stage = session->shared->stage;
  if (session->message) return; /* it was ended by us */
  if (stage == MRPC_WAS_IDLE && !*ended)
    strcpy(session->outcome, "its client asked nothing for too long");
  else if (progress == MRPC_CALLING)
    crashed(ended, "while it served a request");
  else if (stage == MRPC_OPEN && session->has_client)
    /* A thread of the session, or somebody's signal: no request has to go on for that. */
    crashed(ended, progress == MRPC_IDLE ? "between two requests" : "within an answer");
  else if (*ended && stage == MRPC_STARTING)
    crashed(ended, "before it served anything");
  else
    snprintf(session->outcome, MRPC_OUTCOME, "%s", *ended ? ended : "session ended");
}

/* Tells the client, if there is something to be told, how its session ended. */
static void conclude(int status) {
  worker *session = &now_serving;
  uint8_t packet[TEXT + MRPC_ANSWER];
  size_t nbytes = 0;
  char ended[64];
  how_ended(status, ended, sizeof ended);
  mrpc_output_close();
  judge(ended);
  if (session->message && session->shared->progress != MRPC_ANSWERING)
    nbytes = mrpc_last_packet(session->shared, session->message, packet);
  mrpc_forget(session->connection);
  mrpc_end_connection(session->connection, packet, nbytes);
  session->connection = 0;
}

static void finish(void) {
  worker *session = &now_serving;
  uint64_t dropped;
  session->state = NONE;
  mrpc_session_over();
  release();
  mrpc_directory_remove(&session->directory);
  dropped = mrpc_output_dropped();
  if (dropped)
    mrpc_report("... and %llu bytes more of its output", (unsigned long long)dropped);
  mrpc_report("finish serving %s: %s", session->address, session->outcome);
  mrpc_serve_next();
}

/* Once the process and all that it started have ended, the device is free again. The client is told
 * as soon as the process cannot say anything itself any more. */
void mrpc_worker_reap(void) {
  worker *session = &now_serving;
  if (session->state == NONE) return;
  if (session->state != STRAYS) {
    siginfo_t found;
    int status = 0;
    /* As long as it is not reaped, its number cannot belong to anybody else. */
    found.si_pid = 0;
    if (waitid(P_PID, (id_t)session->pid, &found, WEXITED | WNOHANG | WNOWAIT) || !found.si_pid)
      return;
    signal_all(SIGKILL); /* what it started and left in its group */
    waitpid(session->pid, &status, 0);
    conclude(status);
    session->state = STRAYS;
    session->expires_at = session->kill_at = session->asks_at = session->opens_by = MRPC_NEVER;
    session->give_up_at = mrpc_now() + STRAYS_S;
  }
  if (!mrpc_strays_kill(session->mark)) {
    double now = mrpc_now();
    if (now < session->give_up_at) {
      session->kill_at = now + LOOK_AGAIN_S;
      return;
    }
    strncat(session->outcome, "; processes that it started cannot be killed",
            MRPC_OUTCOME - 1 - strlen(session->outcome));
  }
  finish();
}
