/* Letting clients in: hello, key, options; whose turn it is, or a refusal. Waits for nobody. */
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "server.h"

#define PAUSE_S 0.1 /* until a descriptor may be free again */
#define FAIR_S 0.05 /* what a client has for its first words, however many others come */

enum {
  MOST_GREETINGS = 64, /* that have not said yet what they want; the oldest goes for one more */
  MOST_WAITING = 64,   /* for the device; others stay in the kernel's queue */
  MOST = MOST_GREETINGS + MOST_WAITING, /* all that were let in may come to wait */
  PART = 4096          /* what a client may say behind its hello before it is answered */
};

typedef struct {
  mrpc_greeting *each[MOST];
  int count;
} queue;

static queue greetings, waiting;
static int listening = -1, is_open, is_short;
static double accepts_at = MRPC_NEVER;

static void let_in(void *whose, int events);
static int attend(mrpc_greeting *greeting);
static void listen_to(void *whose, int events);

static int take_out(queue *of, const mrpc_greeting *greeting) {
  int at = 0;
  while (at < of->count && of->each[at] != greeting) at++;
  if (at == of->count) return 0;
  for (of->count--; at < of->count; at++) of->each[at] = of->each[at + 1];
  return 1;
}

static void open_up(void) {
  accepts_at = MRPC_NEVER;
  if (listening < 0 || is_open) return;
  is_open = 1;
  mrpc_watch(listening, POLLIN, let_in, NULL);
}

/* Lets nobody in: no busy loop, as who wants in is still there. */
static void shut(void) {
  if (is_open) mrpc_forget(listening);
  is_open = 0;
}

/* The greeting is the caller's from now on. */
static void release(mrpc_greeting *greeting) {
  mrpc_forget(greeting->fd);
  if (!take_out(&greetings, greeting)) take_out(&waiting, greeting);
  open_up();
}

static void drop(mrpc_greeting *greeting) {
  release(greeting);
  close(greeting->fd);
  free(greeting);
}

/* Whether one more can be listened to; for it, the oldest is sent away. */
static int has_room(void) {
  mrpc_greeting *oldest = greetings.each[0];
  double may_go_at;
  if (greetings.count < MOST_GREETINGS) return 1;
  may_go_at = oldest->until - mrpc_settings.handshake_s + FAIR_S;
  if (mrpc_now() < may_go_at) {
    accepts_at = may_go_at;
    return 0;
  }
  if (attend(oldest)) { /* its words may be here, and not have been read yet */
    mrpc_report("%s was sent away for others: it said nothing sensible yet", oldest->address);
    drop(oldest);
  }
  return 1;
}

static void cannot_accept(const char *why) {
  if (!is_short) mrpc_report("no client can be accepted now: %s", why); /* once, however long */
  is_short = 1;
  accepts_at = mrpc_now() + PAUSE_S;
  shut();
}

/* Takes the next client; one at a time, as only that one is known to be there. */
static void let_in(void *whose, int events) {
  struct sockaddr_storage address;
  socklen_t nbytes = sizeof address;
  mrpc_greeting *greeting;
  int fd;
  (void)whose;
  (void)events;
  if (waiting.count >= MOST_WAITING || !has_room()) {
    shut(); /* until one of them leaves or is served */
    return;
  }
  fd = accept4(listening, (struct sockaddr *)&address, &nbytes, SOCK_CLOEXEC | SOCK_NONBLOCK);
  if (fd < 0) {
    if (errno != EAGAIN && errno != ECONNABORTED && errno != EINTR)
      cannot_accept(strerror(errno));
    return;
  }
  greeting = malloc(sizeof *greeting);
  if (!greeting) {
    close(fd);
    cannot_accept(strerror(ENOMEM));
    return;
  }
  is_short = 0;
  greeting->fd = fd;
  greeting->has_hello = greeting->is_passed_over = 0;
  greeting->nbytes = greeting->begin = 0;
  greeting->until = mrpc_now() + mrpc_settings.handshake_s;
  mrpc_address_text(greeting->address, (struct sockaddr *)&address);
  greetings.each[greetings.count++] = greeting;
  mrpc_watch(fd, POLLIN, listen_to, greeting);
  attend(greeting); /* it has said something by now, as a rule */
}

/* Takes what has arrived; 0: the client is gone, MRPC_ERROR: why it is no client. */
static int hear(mrpc_greeting *greeting, char *why) {
  size_t room = sizeof greeting->heard - greeting->nbytes;
  ssize_t got = recv(greeting->fd, greeting->heard + greeting->nbytes, room, 0);
  if (got < 0 && (errno == EAGAIN || errno == EINTR)) return 1;
  if (got <= 0) return 0;
  greeting->nbytes += (size_t)got;
  if (!greeting->has_hello) {
    int64_t taken = mrpc_read_hello(greeting->heard, greeting->nbytes, &greeting->hello, why);
    if (taken == MRPC_ERROR) return MRPC_ERROR;
    if (taken == MRPC_PARTIAL) return 1;
    greeting->has_hello = 1;
    greeting->begin = (size_t)taken;
  }
  if (greeting->nbytes - greeting->begin <= PART) return 1;
  strcpy(why, "the client talks on before it was answered");
  return MRPC_ERROR;
}

/* Takes what it says, and does what it asks for; whether it is still to be listened to. */
static int attend(mrpc_greeting *greeting) {
  int had_hello = greeting->has_hello, heard;
  char why[MRPC_WHY], key[400];
  heard = hear(greeting, why);
  if (heard == MRPC_ERROR) mrpc_report("%s was sent away: %s", greeting->address, why);
  if (heard != 1) {
    drop(greeting);
    return 0;
  }
  if (!greeting->has_hello || had_hello) return !had_hello;
  if (!mrpc_fits(greeting->hello.match_key)) {
    uint8_t reply[MRPC_MAX_KEY + 64];
    size_t nbytes = mrpc_write_reply(reply, MRPC_REPLY_MISMATCH, "");
    size_t shown = strnlen(greeting->hello.match_key, 80);
    mrpc_quote(key, sizeof key, greeting->hello.match_key, shown);
    mrpc_report("mismatch key from %s: %s", greeting->address, key);
    release(greeting);
    mrpc_end_connection(greeting->fd, reply, nbytes);
    free(greeting);
    return 0;
  }
  take_out(&greetings, greeting);
  waiting.each[waiting.count++] = greeting;
  mrpc_serve_next();
  return 0;
}

static void listen_to(void *whose, int events) {
  (void)events;
  attend(whose);
}

/* Whose turn it is. One that has only said hello may not be there any more: once, the next one that
 * has asked for its session goes first. TVM's clients ask when they are admitted. */
static mrpc_greeting *first(void) {
  mrpc_greeting *first = waiting.each[0];
  if (first->nbytes > first->begin || first->is_passed_over) return first;
  first->is_passed_over = 1;
  for (int at = 1; at < waiting.count; at++)
    if (waiting.each[at]->nbytes > waiting.each[at]->begin) return waiting.each[at];
  return first;
}

mrpc_greeting *mrpc_clients_take(void) {
  mrpc_greeting *greeting;
  if (!waiting.count) return NULL;
  greeting = first();
  release(greeting);
  return greeting;
}

int mrpc_clients_wait(void) { return waiting.count > 0; }

void mrpc_clients_open(int listener) {
  listening = listener;
  open_up();
}

void mrpc_clients_tick(double now) {
  if (now >= accepts_at) open_up();
  while (greetings.count && now >= greetings.each[0]->until) {
    mrpc_report("%s said nothing sensible in time", greetings.each[0]->address);
    drop(greetings.each[0]);
  }
}

double mrpc_clients_due(void) {
  double due = greetings.count ? greetings.each[0]->until : MRPC_NEVER;
  return due < accepts_at ? due : accepts_at;
}

void mrpc_clients_close(void) {
  while (waiting.count) drop(waiting.each[0]);
  while (greetings.count) drop(greetings.each[0]);
  shut();
  mrpc_close_listener();
}

void mrpc_close_listener(void) {
  if (listening >= 0) close(listening);
  listening = -1;
}
