/* A session that another server or program serves: the bytes of both sides are passed on unread. */
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "serving.h"

enum { ANSWER_MS = 10000, ENDING_MS = 1000, PAUSE_MS = 2, PIPE = 32 * 1024 };

/* One direction. */
typedef struct {
  int from, to;
  size_t begin, end;
  int is_ended;
  size_t head_nbytes; /* of the next packet's length that have come */
  uint64_t missing;   /* of the packet whose length has come */
  uint8_t head[8], buffer[PIPE];
} direction;

static int text_of(const mrpc_sequence *constructor, int place, char *out, size_t room) {
  const mrpc_value *value = &constructor->values[place];
  if (place >= constructor->count || value->kind != MRPC_TEXT || value->as.text.nbytes >= room ||
      memchr(value->as.text.bytes, 0, (size_t)value->as.text.nbytes) != NULL) {
    return mrpc_raise("TypeError", "a session constructor whose value %d is no text of up to %d bytes",
                      place, (int)room - 1);
  }
  memcpy(out, value->as.text.bytes, (size_t)value->as.text.nbytes);
  out[value->as.text.nbytes] = 0;
  return 0;
}

static int dial(const char *host, int port) {
  char service[16];
  struct addrinfo hints, *found = NULL, *one;
  int connection = -1, status;
  memset(&hints, 0, sizeof(hints));
  hints.ai_socktype = SOCK_STREAM;
  snprintf(service, sizeof(service), "%d", port);
  status = getaddrinfo(host, service, &hints, &found);
  if (status != 0) {
    return mrpc_raise("ConnectError", "%s cannot be resolved: %s", host, gai_strerror(status));
  }
  for (one = found; one != NULL && connection < 0; one = one->ai_next) {
    struct timeval limit = {ANSWER_MS / 1000, 0};
    connection = socket(one->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (connection < 0) continue;
    setsockopt(connection, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof(limit));
    if ( connect(connection, one->ai_addr, one->ai_addrlen) != 0) {
      status = errno == EINPROGRESS ? ETIMEDOUT : errno;
      close(connection);
      connection = -1;
    }
  }
  freeaddrinfo(found);
  if (connection >= 0) return connection;
  return mrpc_raise("ConnectError", "Connect to %s:%d failed: %s", host, port, strerror(status));
}

static int write_all(int descriptor, const uint8_t *content, size_t nbytes) {
  while (nbytes > 0) {
    ssize_t written = write(descriptor, content, nbytes);
    if (written < 0 && errno == EINTR) continue;
    if (written <= 0) return -1;
    content += written;
    nbytes -= (size_t)written;
  }
  return 0;
}

/* Exactly so many bytes, of a peer that answers in time. */
static int read_exactly(int descriptor, uint8_t *target, size_t nbytes) {
  while (nbytes > 0) {
    struct pollfd waiting = {descriptor, POLLIN, 0};
    ssize_t received;
    if (poll(&waiting, 1, ANSWER_MS) <= 0) return -1;
    received = read(descriptor, target, nbytes);
    if (received < 0 && errno == EINTR) continue;
    if (received <= 0) return -1;
    target += received;
    nbytes -= (size_t)received;
  }
  return 0;
}

static int shake_hands(int connection, const char *host, int port, const char *key) {
  uint8_t words[16 + MRPC_MAX_KEY];
  char text[MRPC_MAX_KEY + 1];
  size_t length;
  int32_t reply;
  snprintf(text, sizeof(text), "client:%s", key);
  length = strlen(text);
  mrpc_put_u32(words, MRPC_MAGIC);
  mrpc_put_u32(words + 4, (uint32_t)length);
  memcpy(words + 8, text, length);
  if (write_all(connection, words, 8 + length) != 0 || read_exactly(connection, words, 4) != 0) {
    return mrpc_raise("HandshakeError", "URL %s:%d is not TVM RPC server", host, port);
  }
  reply = (int32_t)mrpc_get_u32(words);
  if (reply == MRPC_REPLY_MISMATCH || reply == MRPC_REPLY_DUPLICATE) {
    return mrpc_raise("HandshakeError", "URL %s:%d cannot find server that matches key=client:%s",
                      host, port, key);
  }
  if (reply != MRPC_REPLY_SUCCESS || read_exactly(connection, words, 4) != 0 ||
      (length = mrpc_get_u32(words)) > MRPC_MAX_KEY || read_exactly(connection, words, length) != 0) {
    return mrpc_raise("HandshakeError", "URL %s:%d is not TVM RPC server", host, port);
  }
  return 0;
}

/* Keeps count of the packets in what has come: nothing may be said in the middle of one. */
static void follow(direction *one) {
  const uint8_t *at = one->buffer, *end = at + one->end;
  while (at < end) {
    uint64_t there = (uint64_t)(end - at);
    if (one->missing) {
      if (there > one->missing) there = one->missing;
      at += there;
      one->missing -= there;
      continue;
    }
    one->head[one->head_nbytes++] = *at++;
    if (one->head_nbytes < sizeof(one->head)) continue;
    one->head_nbytes = 0;
    one->missing = mrpc_get_u64(one->head);
  }
}

static int is_amid(const direction *one) {
  return one->begin < one->end || one->head_nbytes || one->missing;
}

/* Passes on what has come, and notes what to wait for. */
static void pass(direction *one, short from_events, short to_events) {
  if (one->begin == one->end && (from_events & (POLLIN | POLLHUP | POLLERR))) {
    ssize_t received = read(one->from, one->buffer, PIPE);
    one->begin = one->end = 0;
    if (received > 0) {
      one->end = (size_t)received;
      follow(one);
    } else if (received == 0 || (errno != EINTR && errno != EAGAIN)) {
      one->is_ended = 1;
    }
  }
  if (one->begin < one->end && (to_events & (POLLOUT | POLLHUP | POLLERR))) {
    ssize_t written = write(one->to, one->buffer + one->begin, one->end - one->begin);
    if (written > 0) {
      one->begin += (size_t)written;
    } else if (written < 0 && errno != EINTR && errno != EAGAIN) {
      one->is_ended = 1;
    }
  }
}

/* Neither side may wait for the other in a write: the other may wait in one, too. */
static void never_block(int descriptor) {
  fcntl(descriptor, F_SETFL, fcntl(descriptor, F_GETFL) | O_NONBLOCK);
}

/* The client has a limit as in any session, but none while it waits for an answer. */
static void pass_on(mrpc_channel *channel, int in, int out, double idle_s) {
  static direction onward, back;
  int idle_ms = idle_s > 0 && idle_s < 1e6 ? (int)(idle_s * 1e3) + 1 : -1, is_asked = 1;
  onward.from = channel->in;
  onward.to = out;
  onward.end = channel->end - channel->begin; /* what the client said behind its InitServer */
  if (onward.end > PIPE) {
    if (write_all(out, channel->buffer + channel->begin, onward.end) != 0) return;
    onward.end = 0;
  }
  memcpy(onward.buffer, channel->buffer + channel->begin, onward.end);
  back.from = in;
  back.to = channel->out;
  channel->begin = channel->end = 0;
  never_block(channel->in);
  never_block(channel->out);
  never_block(in);
  never_block(out);
  while (!onward.is_ended && !back.is_ended) {
    struct pollfd waiting[4] = {
        /* of one that is not waited for, its end is not to be seen again and again, either */
        {onward.begin == onward.end ? onward.from : -1, POLLIN, 0},
        {onward.begin < onward.end ? onward.to : -1, POLLOUT, 0},
        {back.begin == back.end ? back.from : -1, POLLIN, 0},
        {back.begin < back.end ? back.to : -1, POLLOUT, 0},
    };
    int ready;
    channel->progress->progress = is_amid(&back) ? MRPC_ANSWERING : MRPC_IDLE;
    ready = poll(waiting, 4, is_asked ? -1 : idle_ms);
    if (ready < 0 && errno != EINTR) return;
    channel->is_late = ready == 0;
    if (channel->is_late) return;
    if (waiting[0].revents) is_asked = 1;
    pass(&onward, waiting[0].revents, waiting[1].revents);
    pass(&back, waiting[2].revents, waiting[3].revents);
    if (waiting[2].revents) is_asked = 0;
  }
}

/* Opens the session behind this one, whose answer is the client's, and serves as its wire. */
static int hand_over(mrpc_channel *channel, int in, int out, double idle_s, int *is_over) {
  static const uint8_t init[] = {21, 0, 0, 0, 0,   0,   0,   0,   2,   0, 0, 0, 5, 0, 0, 0, 0,
                                 0,  0, 0, '0', '.', '8', '.', '0', 0, 0, 0, 0};
  *is_over = 1;
  channel->progress->stage = MRPC_OPEN;
  if (write_all(out, init, sizeof(init)) == 0) pass_on(channel, in, out, idle_s);
  return 0;
}

static int connect_onward(mrpc_channel *channel, const mrpc_sequence *constructor, double idle_s,
                          int *is_over) {
  char host[256], key[MRPC_MAX_KEY - 16] = "";
  const mrpc_value *port = &constructor->values[2];
  int connection;
  if (constructor->count < 3 || port->kind != MRPC_INT || port->as.integer < 1 ||
      port->as.integer > 65535) {
    return mrpc_raise("TypeError",
                      "rpc.Connect takes a host, a port from 1 to 65535, a key and whether to log");
  }
  if (constructor->count > 5) {
    return mrpc_raise("ValueError", "a hop of this server opens no other one behind the next; "
                                    "expected rpc.Connect(host, port, key, enable_logging)");
  }
  if (text_of(constructor, 1, host, sizeof(host)) != 0 ||
      (constructor->count > 3 && text_of(constructor, 3, key, sizeof(key)) != 0)) {
    return -1;
  }
  connection = dial(host, (int)port->as.integer);
  if (connection < 0) return -1;
  if (shake_hands(connection, host, (int)port->as.integer, key) != 0) {
    close(connection);
    return -1;
  }
  hand_over(channel, connection, connection, idle_s, is_over);
  close(connection);
  return 0;
}

/* Writes a program that the client sent to a file of the session. */
static int save_program(const mrpc_value *program, char *path, size_t room) {
  int file;
  snprintf(path, room, "./.popen-%d", (int)getpid());
  file = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0700);
  if (file < 0 ||
      write_all(file, program->as.text.bytes, (size_t)program->as.text.nbytes) != 0) {
    int reason = errno;
    if (file >= 0) close(file);
    return mrpc_raise("OSError", "the program cannot be written: %s", strerror(reason));
  }
  close(file);
  return 0;
}

/* Waits a moment for the end of a program whose connection has ended; then ends it. */
static void end_program(pid_t child) {
  struct timespec pause = {0, PAUSE_MS * 1000000L};
  int left = ENDING_MS / PAUSE_MS;
  while (waitpid(child, NULL, WNOHANG) == 0) {
    if (left-- == 0) kill(child, SIGKILL);
    nanosleep(&pause, NULL);
  }
}

static int popen_onward(mrpc_channel *channel, const mrpc_sequence *constructor, double idle_s,
                        int *is_over) {
  char path[4096], number[16];
  int ends[2];
  pid_t child;
  if (constructor->count != 2) return mrpc_raise("TypeError", "rpc.PopenSession takes a program");
  if (constructor->values[1].kind == MRPC_BYTES) {
    if (save_program(&constructor->values[1], path, sizeof(path)) != 0) return -1;
  } else if (text_of(constructor, 1, path, sizeof(path)) != 0) {
    return -1;
  }
  if (access(path, X_OK) != 0) {
    return mrpc_raise("FileNotFoundError", "%s cannot be executed: %s; expected a program for this "
                                           "machine", path, strerror(errno));
  }
  if (socketpair(AF_UNIX, SOCK_STREAM, 0, ends) != 0) {
    return mrpc_raise("OSError", "no connection to a program: %s", strerror(errno));
  }
  fcntl(ends[0], F_SETFD, FD_CLOEXEC);
  snprintf(number, sizeof(number), "%d", ends[1]);
  child = fork();
  if (child == 0) {
    signal(SIGPIPE, SIG_DFL);
    execl(path, path, number, number, (char *)NULL);
    _exit(127);
  }
  close(ends[1]);
  if (child < 0) {
    close(ends[0]);
    return mrpc_raise("OSError", "no process for a program: %s", strerror(errno));
  }
  hand_over(channel, ends[0], ends[0], idle_s, is_over);
  close(ends[0]);
  end_program(child);
  return 0;
}

int mrpc_relay(mrpc_channel *channel, const mrpc_sequence *constructor, double idle_s,
               int *is_over) {
  char name[64];
  if (text_of(constructor, 0, name, sizeof(name)) != 0) return -1;
  if (strcmp(name, "rpc.LocalSession") == 0 && constructor->count == 1) return 0;
  if (strcmp(name, "rpc.Connect") == 0) {
    return connect_onward(channel, constructor, idle_s, is_over);
  }
  if (strcmp(name, "rpc.PopenSession") == 0) {
    return popen_onward(channel, constructor, idle_s, is_over);
  }
  return mrpc_raise("ValueError",
                    "Cannot find session constructor %s; this server knows rpc.LocalSession, "
                    "rpc.PopenSession(program) and rpc.Connect(host, port, key, enable_logging)",
                    name);
}
