/* The server's side of the tracker: an offer while no session goes on, on a connection that is made
 * again whenever it is lost, for ever. What the tracker says is read during a session, too. */
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "server.h"

#define ANSWER_S 10.0 /* how long the tracker may take to answer */
#define POLL_S 0.5    /* how often an idle server asks whether its match key was handed out */
#define UNUSED_S 2.0  /* how long a client may take from its grant to its connection */

enum {
  FRAME = 4096,            /* the longest of ours */
  MOST_FRAME = 1 << 20,    /* the longest of the tracker's, which is TVM's own limit */
  UNSENT = 16384,
  MOST_OWED = 64,
  MATCH_KEY = 320,
  REASON = 1024
};

typedef struct {
  int code;
  unsigned about; /* which of our match keys */
  double limit;
} owed;

typedef enum { CLOSED, GREETED, OPEN } state;

static mrpc_dialler dialler;
static char name[MRPC_PATH], key[600], address[600]; /* key, address: as JSON */
static int64_t port;

static state link_state;
static int connection = -1, was_lost, is_registered;
static double retry_at, hello_limit, next_poll, absent_since;
static int pause_ms = MRPC_FIRST_PAUSE_MS;
static owed owes[MOST_OWED];
static int owed_count;
static uint8_t unsent[UNSENT], *received;
static size_t unsent_nbytes, received_nbytes, room;

static int is_offered = 1, is_serving, is_kicked;
static unsigned generation;
static char match_key[MATCH_KEY], session_key[MATCH_KEY], client[MRPC_ADDRESS], reason[REASON];
static double serving_since;

static void lose(const char *why);

static void new_match_key(void) {
  uint64_t random;
  mrpc_random(&random, sizeof random);
  generation++;
  snprintf(match_key, sizeof match_key, "%s:0.%016llu", mrpc_settings.key,
           (unsigned long long)(random % UINT64_C(10000000000000000)));
}

/* Messages to the tracker. Whatever fails here, fails again when it is sent, or is not answered. */

static void put_bytes(const void *bytes, size_t nbytes) {
  if (unsent_nbytes + nbytes > UNSENT) return; /* it takes nothing, and loses us for that */
  memcpy(unsent + unsent_nbytes, bytes, nbytes);
  unsent_nbytes += nbytes;
}

static int owe(int code) {
  if (owed_count == MOST_OWED) return 0;
  owes[owed_count].code = code;
  owes[owed_count].about = generation;
  owes[owed_count++].limit = mrpc_now() + ANSWER_S;
  return 1;
}

static int is_owed(int code) {
  for (int at = 0; at < owed_count; at++)
    if (owes[at].code == code) return 1;
  return 0;
}

/* The body, behind which comes an answer. */
static void put_frame(int code, const char *body) {
  uint8_t length[4];
  size_t nbytes = strlen(body);
  if (!owe(code) || unsent_nbytes + nbytes + 4 > UNSENT) return;
  mrpc_put_u32(length, (uint32_t)nbytes);
  put_bytes(length, 4);
  put_bytes(body, nbytes);
}

static void put_offer(void) {
  char body[FRAME], quoted[2 * MATCH_KEY];
  new_match_key();
  absent_since = MRPC_NEVER;
  next_poll = mrpc_now() + POLL_S;
  mrpc_json_quote(quoted, sizeof quoted, match_key);
  snprintf(body, sizeof body, "[%d, %s, [%d, %s], %s]", MRPC_TRACKER_PUT, key, (int)port, quoted,
           address);
  put_frame(MRPC_TRACKER_PUT, body);
}

/* Those of ours take orders, and say which session they already have. */
static void put_greeting(void) {
  char body[FRAME], serving[2 * MRPC_ADDRESS] = "", quoted[MRPC_ADDRESS + 8];
  if (is_serving) {
    mrpc_json_quote(quoted, sizeof quoted, client);
    snprintf(serving, sizeof serving, ", \"serving\": [%s, %.3f]", quoted,
             mrpc_now() - serving_since);
  }
  snprintf(body, sizeof body, "[%d, {\"tvmrpc\": 1, \"orders\": true%s}]", MRPC_TRACKER_PING,
           serving);
  put_frame(MRPC_TRACKER_PING, body);
}

static void introduce(void) {
  char body[FRAME];
  snprintf(body, sizeof body, "[%d, {\"key\": \"server:%s, \"addr\": [%s, %d]}]",
           MRPC_TRACKER_UPDATE_INFO, key + 1 /* its quote */, address, (int)port);
  put_frame(MRPC_TRACKER_UPDATE_INFO, body);
  if (is_offered) put_offer();
  put_greeting();
}

/* What the tracker says. Each returns what is wrong with it; NULL: nothing. */

static void copy_reason(const char *at, const char *end) {
  size_t written = 0;
  int characters = 0;
  mrpc_json_text(at, end, reason, sizeof reason);
  for (const char *from = reason; *from && written < REASON - 5; from++) {
    uint8_t byte = (uint8_t)*from;
    if ((byte & 0xC0) != 0x80 && ++characters > 256) break;
    reason[written++] = (char)(byte < ' ' || byte == 0x7F ? '?' : byte);
  }
  reason[written] = 0;
}

/* Notes the end of the session it means, or forgets the client whom it means. */
static const char *obey(const char *at, const char *end) {
  const char *why = mrpc_json_member(at, end, "kick"), *whom;
  char meant[MATCH_KEY] = "";
  int is_any;
  if (!why) return NULL; /* an order that only later servers understand */
  whom = mrpc_json_member(at, end, "match_key");
  is_any = !whom || *whom == 'n';
  if (*why != '"' || (!is_any && mrpc_json_text(whom, end, meant, sizeof meant) < 0))
    return "the tracker gave a broken order";
  if (is_serving && (is_any || !strcmp(meant, session_key))) {
    copy_reason(why, end);
    is_kicked = 1;
  } else if (!is_serving && !is_any && !strcmp(meant, match_key)) {
    put_offer(); /* kicked before he came: his key is good no more */
  }
  return NULL;
}

/* Offers anew if our key was handed out, and whoever got it has not come. */
static const char *compare(const owed *answered, const char *at, const char *end) {
  int is_pending = 0;
  double now = mrpc_now();
  if (*at != '[') return "the pending match keys must be an array of texts";
  for (at = mrpc_json_first(at, end); at; at = mrpc_json_next(at, end)) {
    char pending[MATCH_KEY];
    if (mrpc_json_text(at, end, pending, sizeof pending) < 0)
      return "the pending match keys must be an array of texts";
    if (!strcmp(pending, match_key)) is_pending = 1;
  }
  if (!is_offered || answered->about != generation) return NULL; /* about a key that is over */
  if (is_pending)
    absent_since = MRPC_NEVER;
  else if (absent_since == MRPC_NEVER)
    absent_since = now;
  else if (now - absent_since >= UNUSED_S)
    put_offer();
  return NULL;
}

static int is_success(const char *at, const char *end) {
  int64_t number;
  return mrpc_json_int(at, end, &number) && number == MRPC_TRACKER_SUCCESS;
}

/* Trackers that know no greeting answer it as any other ping. */
static const char *welcomed(const char *at, const char *end) {
  const char *words;
  if (*at != '[') return is_success(at, end) ? NULL : "the tracker refused a greeting";
  at = mrpc_json_first(at, end);
  words = at ? mrpc_json_next(at, end) : NULL;
  if (!words || !is_success(at, end)) return "the tracker refused a greeting";
  return *words == '{' && mrpc_json_member(words, end, "tvmrpc")
             ? NULL
             : "the reply to a greeting is an object";
}

static void now_registered(void) {
  is_registered = 1;
  pause_ms = MRPC_FIRST_PAUSE_MS;
  if (was_lost) mrpc_report("registered again with the tracker %s", name);
  was_lost = 0;
  mrpc_dial_remember(&dialler);
  mrpc_say_ready();
}

/* An order, or an answer; these come in the order of the questions. */
static const char *take(const char *at, const char *end) {
  const char *wrong = mrpc_json_check(at, end);
  owed answered;
  if (wrong) return wrong;
  at = mrpc_json_start(at, end);
  if (*at == '{') return obey(at, end);
  if (!owed_count) return "the tracker answered what it was not asked";
  answered = owes[0];
  memmove(owes, owes + 1, (size_t)--owed_count * sizeof *owes);
  if (answered.code == MRPC_TRACKER_GET_PENDING_MATCHKEYS) return compare(&answered, at, end);
  if (answered.code == MRPC_TRACKER_PING) return welcomed(at, end);
  if (!is_success(at, end)) return "the tracker refused a message; 0 was expected";
  /* A later offer of ours may be on its way already: clients can be faster than this answer. */
  if (!is_registered && (answered.code == MRPC_TRACKER_PUT || !is_owed(MRPC_TRACKER_PUT)))
    now_registered();
  return NULL;
}

/* Takes the whole frames that have come. */
static const char *take_frames(void) {
  size_t at = 0;
  const char *wrong = NULL;
  if (link_state == GREETED) {
    uint8_t magic[4];
    mrpc_put_u32(magic, MRPC_TRACKER_MAGIC);
    if (memcmp(received, magic, received_nbytes < 4 ? received_nbytes : 4) != 0)
      return "the peer does not answer like an RPC tracker";
    if (received_nbytes < 4) return NULL;
    at = 4;
    link_state = OPEN;
    introduce(); /* TVM's tracker takes the magic only as a segment of its own */
  }
  while (!wrong && received_nbytes - at >= 4) {
    uint32_t length = mrpc_get_u32(received + at);
    if (!length || length > MOST_FRAME) return "a tracker frame of no or too many bytes";
    if (received_nbytes - at - 4 < length) break;
    at += 4 + length;
    wrong = take((const char *)received + at - length, (const char *)received + at);
  }
  received_nbytes -= at;
  memmove(received, received + at, received_nbytes);
  return wrong;
}

/* The connection */

static void readable(void *whose, int events);

/* Sends what is to be said, and what could not be sent before. */
static void converse(void) {
  if (connection < 0) return;
  while (unsent_nbytes) {
    ssize_t sent = send(connection, unsent, unsent_nbytes, MSG_NOSIGNAL);
    if (sent < 0 && (errno == EAGAIN || errno == EINTR)) break;
    if (sent < 0) {
      lose(strerror(errno));
      return;
    }
    unsent_nbytes -= (size_t)sent;
    memmove(unsent, unsent + sent, unsent_nbytes);
  }
  mrpc_watch(connection, POLLIN | (unsent_nbytes ? POLLOUT : 0), readable, NULL);
}

static void close_link(void) {
  mrpc_dial_close(&dialler);
  if (connection >= 0) {
    mrpc_forget(connection);
    close(connection);
  }
  connection = -1;
  link_state = CLOSED;
  is_registered = 0;
  owed_count = 0;
  unsent_nbytes = received_nbytes = room = 0;
  absent_since = MRPC_NEVER;
  free(received);
  received = NULL;
}

static void lose(const char *why) {
  if (!was_lost) mrpc_report("the tracker %s is not there: %s; trying again", name, why);
  was_lost = 1;
  close_link();
  retry_at = mrpc_now() + mrpc_pause(&pause_ms);
  mrpc_say_ready();
}

static void connected(int fd) {
  uint8_t magic[4];
  connection = fd;
  link_state = GREETED;
  hello_limit = mrpc_now() + ANSWER_S;
  mrpc_put_u32(magic, MRPC_TRACKER_MAGIC);
  put_bytes(magic, 4);
  converse();
}

/* What has come, behind what came before; 0: nothing now. Never more memory than for what came. */
static ssize_t receive(void) {
  ssize_t got;
  if (room - received_nbytes < 2048) {
    uint8_t *larger = realloc(received, 2 * room + 4096);
    if (!larger) {
      lose(strerror(ENOMEM));
      return 0;
    }
    received = larger;
    room = 2 * room + 4096;
  }
  got = recv(connection, received + received_nbytes, room - received_nbytes, 0);
  if (got < 0 && (errno == EAGAIN || errno == EINTR)) return 0;
  if (got <= 0) {
    lose(got ? strerror(errno) : "it closed the connection");
    return 0;
  }
  received_nbytes += (size_t)got;
  return got;
}

static void kick(void) {
  char outcome[MRPC_OUTCOME], message[MRPC_OUTCOME + 32];
  if (!is_kicked) return;
  is_kicked = 0;
  if (!*reason) strcpy(reason, "the session was ended by somebody in charge of the tracker");
  snprintf(outcome, sizeof outcome, "kicked: %s", reason);
  snprintf(message, sizeof message, "SessionKickedError: %s", reason);
  mrpc_worker_stop(outcome, message);
}

static void readable(void *whose, int events) {
  const char *wrong;
  (void)whose;
  if (events & POLLOUT) converse();
  if (!(events & ~POLLOUT) || connection < 0 || !receive()) return;
  wrong = take_frames();
  if (wrong) {
    lose(wrong);
  } else {
    if (!received_nbytes) {
      free(received);
      received = NULL;
      room = 0;
    }
    converse();
  }
  kick();
}

void mrpc_tracker_init(int64_t own_port) {
  const mrpc_config *given = &mrpc_settings;
  port = own_port;
  dialler.host = given->tracker;
  dialler.port = given->tracker_port;
  dialler.connected = connected;
  dialler.failed = lose;
  mrpc_dial_init(&dialler);
  mrpc_host_text(name, sizeof name, given->tracker, given->tracker_port);
  mrpc_json_quote(key, sizeof key, given->key);
  if (given->custom_addr)
    mrpc_json_quote(address, sizeof address, given->custom_addr);
  else
    strcpy(address, "null");
  absent_since = MRPC_NEVER;
  new_match_key();
}

int mrpc_tracker_accepts(const char *other) { return is_offered && !strcmp(other, match_key); }

static int is_polled(void) { return link_state == OPEN && is_offered; }

void mrpc_tracker_tick(double now) {
  if (connection < 0) {
    if (mrpc_dial_is_busy(&dialler))
      mrpc_dial_tick(&dialler, now);
    else if (now >= retry_at)
      mrpc_dial(&dialler, now);
  } else if (link_state == GREETED && now >= hello_limit) {
    lose("the peer did not answer like an RPC tracker within 10 s");
  } else if (owed_count && now >= owes[0].limit) {
    lose("the tracker did not answer a message within 10 s");
  } else if (is_polled() && now >= next_poll) {
    char body[8];
    next_poll = now + POLL_S;
    if (is_owed(MRPC_TRACKER_GET_PENDING_MATCHKEYS)) return;
    snprintf(body, sizeof body, "[%d]", MRPC_TRACKER_GET_PENDING_MATCHKEYS);
    put_frame(MRPC_TRACKER_GET_PENDING_MATCHKEYS, body);
    converse();
  }
}

double mrpc_tracker_due(void) {
  double due = MRPC_NEVER;
  if (connection < 0) return mrpc_dial_is_busy(&dialler) ? dialler.gives_up_at : retry_at;
  if (link_state == GREETED) due = hello_limit;
  if (owed_count && owes[0].limit < due) due = owes[0].limit;
  return is_polled() && next_poll < due ? next_poll : due;
}

/* The client with our match key has come. The tracker is told if a question of ours made it believe
 * that he has not; it is asked only while nobody has come, and knows it from our silence otherwise. */
void mrpc_tracker_occupied(const char *from) {
  int is_doubtful = absent_since != MRPC_NEVER || is_owed(MRPC_TRACKER_GET_PENDING_MATCHKEYS);
  is_serving = 1;
  is_offered = 0;
  memcpy(session_key, match_key, sizeof session_key);
  snprintf(client, sizeof client, "%s", from);
  serving_since = mrpc_now();
  match_key[0] = 0;
  absent_since = MRPC_NEVER;
  if (link_state != OPEN || !is_doubtful) return;
  put_greeting();
  converse();
}

/* The device is free again. */
void mrpc_tracker_offer(void) {
  is_offered = 1;
  is_serving = is_kicked = 0;
  if (link_state != OPEN) {
    new_match_key();
    return;
  }
  put_offer();
  converse();
}

/* Leaves the tracker, which drops our offer. */
void mrpc_tracker_close(void) { close_link(); }
