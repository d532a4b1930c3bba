/* One session's answering end: takes a packet, does what it asks for, answers; until Shutdown.
 * Whatever a request raises is its answer; only what makes the stream unreadable ends the session. */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include "requests.h"

/* Copies of this process: a kernel that forked and whose child returned must not answer. */

static void make_mark(mrpc_serving *self) {
  self->process = getpid();
#ifdef MADV_WIPEONFORK
  long page = sysconf(_SC_PAGESIZE);
  uint8_t *mark = mmap(NULL, (size_t)page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (mark != MAP_FAILED && madvise(mark, (size_t)page, MADV_WIPEONFORK) == 0) {
    *mark = 1;
    self->mark = mark;
  }
#endif
}

void mrpc_leave_if_copied(const mrpc_serving *self) {
  if (self->mark != NULL ? *self->mark == 0 : getpid() != self->process) _exit(127);
}

/* Waiting */

static void set_timeout(int descriptor, int option, double seconds) {
  struct timeval limit;
  if (seconds > 1e8) seconds = 1e8;
  limit.tv_sec = (time_t)seconds;
  limit.tv_usec = (suseconds_t)((seconds - (double)limit.tv_sec) * 1e6);
  if (seconds > 0 && limit.tv_sec == 0 && limit.tv_usec == 0) limit.tv_usec = 1;
  setsockopt(descriptor, SOL_SOCKET, option, &limit, sizeof(limit));
}

static void limit_waits(const mrpc_serving *self, double receive_s) {
  if (!self->settings->is_socket) return;
  set_timeout(self->settings->in, SO_RCVTIMEO, receive_s);
  set_timeout(self->settings->out, SO_SNDTIMEO, self->settings->send_s);
}

/* Answers */

size_t mrpc_last_packet(const mrpc_progress *progress, const char *text, uint8_t *out) {
  mrpc_dialect dialect = progress->dialect ? MRPC_LEGACY : MRPC_FFI;
  size_t nbytes = strlen(text), most = MRPC_LAST / 2, head;
  if (nbytes > most) {
    nbytes = most;
    while (nbytes > 0 && (text[nbytes] & 0xC0) == 0x80) nbytes--; /* whole characters */
  }
  head = mrpc_exception(dialect, out, nbytes);
  memcpy(out + head, text, nbytes);
  mrpc_clean_text(out + head, nbytes);
  return head + nbytes;
}

static int answer_error(mrpc_serving *self) {
  uint8_t head[MRPC_ANSWER];
  size_t nbytes;
  char *text = mrpc_take_error(&nbytes);
  size_t size = mrpc_exception(self->dialect, head, nbytes);
  int status = mrpc_answer_long(self->channel, head, size, (const uint8_t *)text, nbytes);
  free(text);
  return status;
}

/* Order, dialect, dispatch */

typedef struct {
  int body, required, all, states;
} row;

static row row_of(int32_t code) {
  row found = {-1, 0, 0, 0};
  switch (code) {
#define ROW(number, name, form, answer, least, most, legal) \
  case number:                                              \
    found.body = form;                                      \
    found.required = least;                                 \
    found.all = most;                                       \
    found.states = legal;                                   \
    break;
    MRPC_REQUESTS(ROW)
#undef ROW
  }
  return found;
}

static int illegal(const mrpc_serving *self, int32_t code) {
  const char *name = mrpc_code_name(code);
  char unnamed[40];
  if (name == NULL) snprintf(unnamed, sizeof(unnamed), "of unknown code %d", (int)code);
  return mrpc_raise("RemoteProtocolError", "packet %s in a session that is %s; legal now: %s",
                    name ? name : unnamed, self->state == MRPC_STATE_OPENED ? "opened" : "ready",
                    self->state == MRPC_STATE_OPENED ? "SHUTDOWN, INIT_SERVER"
                                                     : "any request but INIT_SERVER");
}

static int learn_dialect(mrpc_serving *self, const mrpc_request *asked) {
  char why[MRPC_WHY];
  mrpc_dialect likely = MRPC_FFI;
  int found;
  if (self->is_dialect_known) return 0;
  found = mrpc_dialect_of(asked->code, asked->body, asked->nbytes, self->channel->missing, &likely,
                          why);
  if (found == MRPC_ERROR) {
    self->dialect = likely; /* for this answer; the next request may tell more */
    return mrpc_protocol_error(why);
  }
  if (found != MRPC_UNKNOWN) {
    self->dialect = (mrpc_dialect)found;
    self->is_dialect_known = 1;
    self->channel->progress->dialect = self->dialect == MRPC_LEGACY;
  }
  return 0;
}

/* The rest of a body that does not fit the buffer, as far as it really comes. */
static int collect(mrpc_serving *self, mrpc_request *asked) {
  mrpc_channel *channel = self->channel;
  size_t have = asked->nbytes, room = 0;
  uint8_t *body = NULL;
  if (!channel->missing) return 0;
  if ((int64_t)(have + channel->missing) > MRPC_MAX_COLLECTED) {
    return mrpc_raise("RemoteProtocolError", "a request of %llu bytes; at most %lld can be",
                      have + (unsigned long long)channel->missing, MRPC_MAX_COLLECTED);
  }
  while (body == NULL || channel->missing > 0) {
    uint64_t part = channel->missing;
    uint8_t *larger;
    room = body == NULL ? have + MRPC_BUFFER : 2 * room;
    if (room > have + part) room = (size_t)(have + part);
    larger = realloc(body, room + 1);
    if (larger == NULL) {
      return mrpc_raise("MemoryError", "no memory for a request of %llu bytes",
                        have + (unsigned long long)part);
    }
    if (body == NULL) memcpy(larger, asked->body, have);
    body = larger;
    asked->collected = body;
    if (part > room - have) part = room - have;
    if (mrpc_receive_to(channel, body + have, part) != 0) return -1;
    have += (size_t)part;
  }
  asked->body = body;
  asked->nbytes = have;
  return 0;
}

static int dispatch(mrpc_serving *self, mrpc_request *asked, const row *form) {
  int status;
  if (learn_dialect(self, asked) != 0) return -1;
  if (asked->code == MRPC_CODE_INIT_SERVER && self->state == MRPC_STATE_READY) {
    return mrpc_protocol_error("the session is open already; InitServer comes once");
  }
  if (form->body == MRPC_BODY_COPY) {
    return asked->code == MRPC_CODE_COPY_TO_REMOTE ? mrpc_copy_to_remote(self, asked)
                                                   : mrpc_copy_from_remote(self, asked);
  }
  if (form->body == MRPC_BODY_CALL && self->channel->missing &&
      mrpc_upload_in_parts(self, asked, &status)) {
    return status;
  }
  if (collect(self, asked) != 0) return -1;
  if (learn_dialect(self, asked) != 0) return -1; /* which may need all of it */
  if (form->body == MRPC_BODY_CALL) return mrpc_call_func(self, asked);
  if (form->body == MRPC_BODY_VALUES) {
    return mrpc_ask_values(self, asked, form->required, form->all);
  }
  status = mrpc_init_server(self, asked);
  if (status == 0) {
    self->state = MRPC_STATE_READY;
    self->channel->progress->stage = MRPC_OPEN;
    limit_waits(self, self->settings->idle_s);
  }
  return status;
}

/* One whole packet, or the first part of a long one. */
static void answer_packet(mrpc_serving *self, mrpc_request *asked) {
  mrpc_channel *channel = self->channel;
  row form = row_of(asked->code);
  if ((form.states & self->state) == 0) {
    learn_dialect(self, asked);
    illegal(self, asked->code);
    answer_error(self);
    self->is_over = 1;
    self->status = 1;
    return;
  }
  if (asked->code == MRPC_CODE_SHUTDOWN) {
    self->is_over = 1;
    return;
  }
  channel->progress->progress = MRPC_CALLING;
  if (dispatch(self, asked, &form) != 0 && !channel->is_broken && !self->is_over) {
    if ((int64_t)channel->missing > MRPC_MAX_COLLECTED) { /* too long to be passed over */
      self->is_over = 1;
      self->status = 1;
    }
    if (answer_error(self) == 0 && !self->is_over) mrpc_skip_missing(channel);
  }
  mrpc_leave_if_copied(self);
  free(asked->collected);
}

/* The next packet of what has come: 1 if there is one, 0 if more has to come, -1 if it is none. */
static int next_packet(mrpc_serving *self, mrpc_request *asked) {
  mrpc_channel *channel = self->channel;
  char why[MRPC_WHY];
  uint64_t body;
  for (;;) {
    size_t have = channel->end - channel->begin, wanted;
    const uint8_t *in = channel->buffer + channel->begin;
    int64_t taken = mrpc_read_head(in, have, &asked->code, &body, why);
    if (taken == MRPC_PARTIAL) return 0;
    if (taken < 0) {
      mrpc_protocol_error(why);
      return -1;
    }
    if (body == 0 && asked->code == 0 && taken == 8) { /* an empty packet */
      channel->begin += 8;
      continue;
    }
    have -= (size_t)taken;
    wanted = body > MRPC_BUFFER - MRPC_HEAD ? MRPC_BUFFER - MRPC_HEAD : (size_t)body;
    if (asked->code == MRPC_CODE_COPY_TO_REMOTE && wanted > MRPC_FIRST_PART && body > wanted) {
      wanted = MRPC_FIRST_PART;
    }
    if (have < wanted) return 0;
    asked->body = in + taken;
    asked->nbytes = have < body ? have : (size_t)body;
    asked->collected = NULL;
    channel->missing = body - asked->nbytes;
    channel->begin += (size_t)taken + asked->nbytes;
    return 1;
  }
}

static void serve_packets(mrpc_serving *self) {
  mrpc_channel *channel = self->channel;
  mrpc_request asked;
  while (!self->is_over && !channel->is_broken) {
    int status = next_packet(self, &asked);
    if (status > 0) {
      answer_packet(self, &asked);
      continue;
    }
    if (status < 0) {
      answer_error(self);
      mrpc_send_held(channel);
      self->status = 1;
      return;
    }
    if (mrpc_send_held(channel) != 0) return;
    channel->progress->progress = MRPC_IDLE;
    if (mrpc_receive(channel) == 0) {
      self->status = channel->begin != channel->end; /* within a packet */
      return;
    }
  }
  mrpc_send_held(channel);
}

/* The end of a session whose client asked nothing for too long. */
static void tell_late(mrpc_serving *self) {
  char text[300];
  uint8_t packet[300 + MRPC_ANSWER];
  mrpc_progress *progress = self->channel->progress;
  size_t nbytes, sent = 0;
  if (progress->progress != MRPC_IDLE) return;
  if (progress->stage != MRPC_OPEN) {
    snprintf(text, sizeof(text),
             "RPCSessionTimeoutError: Your session was not opened within %g s of this server's "
             "answer; InitServer has to come at once, as the device is yours from then on",
             self->settings->opening_s);
  } else {
    snprintf(text, sizeof(text),
             "RPCSessionTimeoutError: Your session was idle for %g s, which is this server's "
             "limit; it can be started with a longer --idle-timeout, or 0 for none",
             self->settings->idle_s);
  }
  progress->stage = MRPC_WAS_IDLE;
  nbytes = mrpc_last_packet(progress, text, packet);
  while (sent < nbytes) {
    ssize_t part = write(self->channel->out, packet + sent, nbytes - sent);
    if (part <= 0) break;
    sent += (size_t)part;
  }
  if (self->settings->is_socket) shutdown(self->settings->out, SHUT_WR);
}

int mrpc_serve(const mrpc_session *session) {
  static mrpc_channel channel; /* one for each process */
  static mrpc_serving self;
  double opening_s = session->opening_s;
  memset(&self, 0, sizeof(self));
  memset(&channel, 0, offsetof(mrpc_channel, buffer));
  self.settings = session;
  self.channel = &channel;
  self.dialect = MRPC_FFI;
  self.state = MRPC_STATE_OPENED;
  channel.in = session->in;
  channel.out = session->out;
  channel.progress = session->progress;
  signal(SIGPIPE, SIG_IGN);
  setvbuf(stdout, NULL, _IOLBF, 0); /* what a kernel printed is there when it crashes */
  make_mark(&self);
  if (session->idle_s > 0 && session->idle_s < opening_s) opening_s = session->idle_s;
  limit_waits(&self, opening_s);
  if (session->early_nbytes > MRPC_BUFFER) return 1;
  if (session->early_nbytes > 0) memcpy(channel.buffer, session->early, session->early_nbytes);
  channel.end = session->early_nbytes;
  if (mrpc_register_functions(session->directory, session->lifeline) != 0 ||
      mrpc_load_libraries(session->libraries) != 0) {
    answer_error(&self);
    mrpc_send_held(&channel);
    return 1;
  }
  mrpc_leave_if_copied(&self);
  channel.progress->stage = MRPC_SERVING;
  serve_packets(&self);
  if (channel.is_late) tell_late(&self);
  return channel.is_late ? 0 : self.status;
}
