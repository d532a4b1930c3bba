/* A connection out of the loop, which never waits: look-up, attempts, their limits. When to try, and
 * what to say once it stands, its owner knows. */
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "server.h"

#define CONNECT_S 10.0
#define LOOKUP_S 30

/* What the process says that looks a name up: one write, which a pipe takes whole. */
typedef struct {
  int32_t count;
  char why[128];
  struct sockaddr_storage found[MRPC_MOST_FOUND];
} answer;

double mrpc_about(double pause_s) {
  uint8_t random;
  mrpc_random(&random, 1);
  return pause_s * (0.5 + random / 512.0); /* jitter: many lose a peer at once */
}

double mrpc_pause(int *next_ms) {
  double pause_s = *next_ms / 1000.0;
  *next_ms *= 2;
  if (*next_ms > MRPC_LAST_PAUSE_MS) *next_ms = MRPC_LAST_PAUSE_MS;
  return mrpc_about(pause_s);
}

void mrpc_dial_init(mrpc_dialler *dialler) {
  dialler->count = dialler->next = 0;
  dialler->lookup = dialler->connection = -1;
  dialler->gives_up_at = MRPC_NEVER;
}

static void end_lookup(mrpc_dialler *dialler) {
  if (dialler->lookup < 0) return;
  mrpc_forget(dialler->lookup);
  close(dialler->lookup);
  kill(dialler->pid, SIGKILL); /* it may go on waiting otherwise; it is reaped as an errand */
  dialler->lookup = -1;
}

void mrpc_dial_close(mrpc_dialler *dialler) {
  dialler->gives_up_at = MRPC_NEVER;
  end_lookup(dialler);
  if (dialler->connection < 0) return;
  mrpc_forget(dialler->connection);
  close(dialler->connection);
  dialler->connection = -1;
}

static void fail(mrpc_dialler *dialler, const char *why) {
  mrpc_dial_close(dialler);
  dialler->failed(why);
}

static void settled(void *whose, int events) {
  mrpc_dialler *dialler = whose;
  int fd = dialler->connection, code = 0;
  socklen_t nbytes = sizeof code;
  (void)events;
  if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &code, &nbytes)) code = errno;
  if (code) {
    fail(dialler, strerror(code));
    return;
  }
  mrpc_forget(fd);
  dialler->connection = -1;
  dialler->gives_up_at = MRPC_NEVER;
  mrpc_keepalive(fd);
  dialler->connected(fd);
}

/* Each attempt takes the next address: localhost may be ::1 here, and the peer on 127.0.0.1. */
static void attempt(mrpc_dialler *dialler, double now) {
  const struct sockaddr_storage *address = &dialler->found[dialler->next++];
  int fd = socket(address->ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (fd < 0) {
    fail(dialler, strerror(errno));
    return;
  }
  dialler->connection = fd;
  dialler->gives_up_at = now + CONNECT_S;
  if (connect(fd, (const struct sockaddr *)address, mrpc_address_nbytes(address)) &&
      errno != EINPROGRESS) /* it knows at once: no route, no permission */
    fail(dialler, strerror(errno));
  else
    mrpc_watch(fd, POLLOUT, settled, dialler);
}

/* The addresses of the name, or why there are none; then, old ones will do. */
static void resolved(mrpc_dialler *dialler, const char *why) {
  dialler->gives_up_at = MRPC_NEVER;
  dialler->next = 0;
  if (dialler->count)
    attempt(dialler, mrpc_now());
  else
    fail(dialler, why);
}

static void look_up(const mrpc_dialler *dialler, int fd) {
  struct addrinfo hints, *found = NULL;
  answer said;
  char port[24];
  int code;
  alarm(LOOKUP_S + 1); /* also when nobody is left to end it */
  memset(&said, 0, sizeof said);
  memset(&hints, 0, sizeof hints);
  hints.ai_socktype = SOCK_STREAM;
  snprintf(port, sizeof port, "%d", (int)dialler->port);
  code = getaddrinfo(dialler->host, port, &hints, &found);
  for (; !code && found && said.count < MRPC_MOST_FOUND; found = found->ai_next)
    if (found->ai_addrlen <= sizeof *said.found)
      memcpy(&said.found[said.count++], found->ai_addr, found->ai_addrlen);
  if (!said.count)
    snprintf(said.why, sizeof said.why, "the host name cannot be resolved: %.80s",
             gai_strerror(code));
  _exit(write(fd, &said, sizeof said) == (ssize_t)sizeof said ? 0 : 1);
}

static void answered(void *whose, int events) {
  mrpc_dialler *dialler = whose;
  answer said;
  ssize_t got = read(dialler->lookup, &said, sizeof said);
  (void)events;
  if (got < 0 && (errno == EINTR || errno == EAGAIN)) return;
  end_lookup(dialler);
  if (got != (ssize_t)sizeof said || said.count < 0 || said.count > MRPC_MOST_FOUND) {
    resolved(dialler, "the look-up of its name did not end well");
    return;
  }
  if (said.count) {
    dialler->count = said.count;
    memcpy(dialler->found, said.found, sizeof said.found);
  }
  said.why[sizeof said.why - 1] = 0;
  resolved(dialler, said.why);
}

static void start_lookup(mrpc_dialler *dialler, double now) {
  int both[2];
  if (pipe2(both, O_CLOEXEC)) {
    resolved(dialler, strerror(errno));
    return;
  }
  dialler->pid = mrpc_fork();
  if (dialler->pid == 0) {
    close(both[0]);
    look_up(dialler, both[1]);
  }
  close(both[1]);
  if (dialler->pid < 0) {
    close(both[0]);
    resolved(dialler, "no process for the look-up of its name");
    return;
  }
  mrpc_errand(dialler->pid);
  dialler->lookup = both[0];
  dialler->gives_up_at = now + LOOKUP_S;
  mrpc_watch(both[0], POLLIN, answered, dialler);
}

/* Tries the next address of the name; looks the name up again when all have failed. */
void mrpc_dial(mrpc_dialler *dialler, double now) {
  struct sockaddr_storage literal; /* of its own: the old addresses of a name are kept */
  if (dialler->next < dialler->count) {
    attempt(dialler, now);
  } else if (mrpc_parse_literal(dialler->host, dialler->port, &literal)) {
    dialler->found[0] = literal;
    dialler->count = 1;
    resolved(dialler, "");
  } else {
    start_lookup(dialler, now);
  }
}

void mrpc_dial_tick(mrpc_dialler *dialler, double now) {
  if (now < dialler->gives_up_at) return;
  if (dialler->lookup >= 0) {
    end_lookup(dialler);
    resolved(dialler, "no answer to the look-up of its name in 30 s");
  } else {
    fail(dialler, "no answer to a connection attempt");
  }
}

int mrpc_dial_is_busy(const mrpc_dialler *dialler) { return dialler->gives_up_at < MRPC_NEVER; }

void mrpc_dial_remember(mrpc_dialler *dialler) { dialler->next--; }
