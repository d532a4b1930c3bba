/* One loop over listener, tracker or proxy, signals and the session's process.
 *
 * It never blocks on one of them. It opens no device, loads no library and has one thread, so that it
 * can fork at any time. One session at a time: clients with the right key wait for the device, and
 * with a tracker there is only ever one such client. */
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "server.h"

enum { END_S = 10 }; /* how long the server waits for its last session */

/* How long a client may take in all to open its session while others wait for the device: time for an
 * honest one on a slow link, of which TVM's sends InitServer only when it is admitted. */
#define OPENING_S 3.0

static volatile sig_atomic_t should_exit, child_ended;
static sigset_t while_waiting; /* what is blocked then; our signals come at no other time */
static double free_since;
static int has_tracker, is_ready;

static void take_signal(int number) {
  if (number == SIGCHLD)
    child_ended = 1;
  else
    should_exit = 1;
}

static void prepare_signals(void) {
  static const int ours[] = {SIGCHLD, SIGTERM, SIGINT, SIGHUP};
  struct sigaction action, before;
  sigset_t blocked;
  memset(&action, 0, sizeof action);
  sigemptyset(&blocked);
  sigprocmask(SIG_SETMASK, NULL, &while_waiting); /* whoever started us had reasons */
  for (size_t at = 0; at < sizeof ours / sizeof *ours; at++) {
    sigaddset(&blocked, ours[at]);
    sigdelset(&while_waiting, ours[at]);
    sigaction(ours[at], NULL, &before);
    action.sa_handler = take_signal;
    if (ours[at] == SIGHUP && before.sa_handler == SIG_IGN) continue; /* nohup */
    sigaction(ours[at], &action, NULL);
  }
  sigprocmask(SIG_BLOCK, &blocked, NULL);
  signal(SIGPIPE, SIG_IGN);
}

/* The one way in which this process forks. A signal to the child is held back until it has the usual
 * handlers. */
pid_t mrpc_fork(void) {
  pid_t pid = fork();
  sigset_t none;
  if (pid) return pid;
  signal(SIGTERM, SIG_DFL);
  signal(SIGHUP, SIG_DFL);
  signal(SIGCHLD, SIG_DFL);
  signal(SIGINT, SIG_IGN); /* Ctrl-C is for the parent, which ends us */
  mrpc_worker_close_fds();
  mrpc_close_listener();
  mrpc_close_watched();
  sigemptyset(&none);
  sigprocmask(SIG_SETMASK, &none, NULL);
  return 0;
}

void mrpc_say_ready(void) {
  if (is_ready) return;
  is_ready = 1;
  mrpc_announce(mrpc_settings.port);
  mrpc_strays_adopt();
}

static void parent_ended(void *whose, int events) {
  (void)whose;
  (void)events;
  should_exit = 1;
}

int mrpc_fits(const char *match_key) {
  if (has_tracker) return mrpc_tracker_accepts(match_key);
  return strcmp(match_key, mrpc_settings.key) == 0;
}

/* The device is free: says so to whoever sends clients. */
static void offer(void) {
  free_since = mrpc_now();
  if (should_exit) return;
  if (has_tracker) mrpc_tracker_offer();
  if (mrpc_settings.is_proxy) mrpc_proxy_offer();
}

void mrpc_session_over(void) { offer(); }

/* Starts the session of a client that has been admitted. */
void mrpc_serve_client(int fd, const char *address, const mrpc_hello *hello, const uint8_t *early,
                       size_t early_nbytes) {
  static mrpc_progress unknown;
  char why[MRPC_WHY], message[2 * MRPC_WHY];
  uint8_t packet[sizeof message + MRPC_ANSWER];
  mrpc_strays_adopt();
  if (!mrpc_worker_start(fd, address, hello, early, early_nbytes, why)) {
    if (has_tracker) mrpc_tracker_occupied(address);
    return;
  }
  mrpc_report("no session for %s: %s", address, why);
  strcpy(message, "SessionCrashedError: this server cannot start a session now: ");
  strncat(message, why, MRPC_WHY);
  mrpc_end_connection(fd, packet, mrpc_last_packet(&unknown, message, packet));
  offer();
}

/* Agrees; whether the client still was there to hear it. */
static int admit(int fd) {
  uint8_t reply[MRPC_MAX_KEY + 64];
  size_t nbytes = mrpc_write_reply(reply, MRPC_REPLY_SUCCESS, mrpc_settings.key);
  return send(fd, reply, nbytes, MSG_NOSIGNAL) == (ssize_t)nbytes; /* the first that it is sent */
}

/* Gives the device to the first who waits, if it is free. */
void mrpc_serve_next(void) {
  while (!mrpc_worker_is_there() && !should_exit) {
    mrpc_greeting *greeting = mrpc_clients_take();
    if (!greeting) return;
    if (admit(greeting->fd))
      mrpc_serve_client(greeting->fd, greeting->address, &greeting->hello,
                        greeting->heard + greeting->begin, greeting->nbytes - greeting->begin);
    else
      close(greeting->fd);
    free(greeting);
  }
}

static void reap(void) {
  if (!child_ended) return;
  child_ended = 0;
  mrpc_worker_reap();
  mrpc_strays_reap(mrpc_worker_pid());
}

static void tick(double now) {
  if (mrpc_worker_is_there()) {
    if (mrpc_clients_wait()) mrpc_worker_limit_opening(OPENING_S);
    mrpc_worker_tick(now);
  } else if (mrpc_settings.unused_s > 0 && now >= free_since + mrpc_settings.unused_s) {
    mrpc_report("no client came for %g s, which is the timeout", mrpc_settings.unused_s);
    should_exit = 1;
  }
  mrpc_clients_tick(now);
  mrpc_endings_tick(now);
  if (has_tracker) mrpc_tracker_tick(now);
  if (mrpc_settings.is_proxy) mrpc_proxy_tick(now);
}

static double due(void) {
  double moments[5] = {mrpc_clients_due(), mrpc_endings_due(), MRPC_NEVER, MRPC_NEVER, MRPC_NEVER};
  double first = MRPC_NEVER;
  if (mrpc_worker_is_there())
    moments[2] = mrpc_worker_due();
  else if (mrpc_settings.unused_s > 0)
    moments[2] = free_since + mrpc_settings.unused_s;
  if (has_tracker) moments[3] = mrpc_tracker_due();
  if (mrpc_settings.is_proxy) moments[4] = mrpc_proxy_due();
  for (int at = 0; at < 5; at++)
    if (moments[at] < first) first = moments[at];
  return first;
}

/* Ends the session in a bounded time, and closes what is open. */
static void end(void) {
  double until = mrpc_now() + END_S; /* one that the kernel holds fast stays */
  mrpc_clients_close();
  mrpc_worker_stop("the server ended", "SessionCrashedError: the server was ended");
  while (mrpc_worker_is_there() && mrpc_now() < until) {
    struct timespec moment = {0, 20L * 1000 * 1000};
    mrpc_worker_tick(mrpc_now());
    ppoll(NULL, 0, &moment, &while_waiting);
    mrpc_worker_reap();
  }
  if (has_tracker) mrpc_tracker_close();
  if (mrpc_settings.is_proxy) mrpc_proxy_close();
  mrpc_endings_close();
}

int mrpc_supervise(int listener, int64_t port) {
  const mrpc_config *given = &mrpc_settings;
  prepare_signals();
  free_since = mrpc_now();
  has_tracker = given->tracker && !given->is_proxy;
  if (given->is_proxy) mrpc_proxy_init();
  if (has_tracker) mrpc_tracker_init(port);
  mrpc_clients_open(listener);
  if (given->parent_fd >= 0) mrpc_watch((int)given->parent_fd, POLLIN, parent_ended, NULL);
  if (!has_tracker && !given->is_proxy) mrpc_say_ready();
  mrpc_directory_find_abandoned(mrpc_directory_remove);
  while (!should_exit) {
    tick(mrpc_now());
    if (!should_exit) mrpc_turn(due() - mrpc_now(), &while_waiting);
    reap();
  }
  end();
  return 0;
}
