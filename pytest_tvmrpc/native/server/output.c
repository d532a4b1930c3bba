/* What a session prints: passed on up to a limit, and its end kept for the client. Reads no lines.
 *
 * A session writes into a pipe that is always read. Were it given the server's own output, whoever
 * does not read that would stop the kernels, and a kernel that prints for ever would fill the disk. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "printed.h"
#include "server.h"

enum {
  PART = 65536,
  MOST_PARTS = 16,     /* in a pipe, at most: a session can enlarge its own to 1 MiB */
  AT_ONCE = 4096,      /* what a pipe that is ready to be written takes without blocking */
  KEPT = 1 << 20,      /* how much of what was printed last a client can still ask for */
  TAIL = 2048,
  TAIL_LINES = 8
};

static int reader = -1, writer = -1, asked = -1; /* asked: the lifeline, as long as it is watched */
static uint64_t begin, end, left, dropped;       /* begin, end: what of all the output is kept */
static uint8_t *ring;                            /* mapped, so that it goes back to the system */

static uint64_t least(uint64_t one, uint64_t other) { return one < other ? one : other; }

static void keep(const uint8_t *part, size_t nbytes) {
  size_t at = end % KEPT, first = least(nbytes, KEPT - at);
  if (!ring) {
    void *mapped = mmap(NULL, KEPT, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (mapped != MAP_FAILED) ring = mapped; /* without, it is passed on all the same */
    begin = end;
  }
  end += nbytes;
  if (!ring) {
    begin = end;
    return;
  }
  memcpy(ring + at, part, first);
  memcpy(ring, part + first, nbytes - first);
  if (end - begin > KEPT) begin = end - KEPT;
}

/* Writes to stderr as much as it takes now; a reader that is slow must not block the server. */
static size_t pass_on(const uint8_t *part, size_t nbytes) {
  size_t written = 0;
  while (written < nbytes && mrpc_can_write(2)) {
    ssize_t got = write(2, part + written, least(nbytes - written, AT_ONCE));
    if (got < 0) break; /* closed, or its disk is full */
    written += (size_t)got;
  }
  return written;
}

/* Passes on what is there, or a part of it: the bytes, 0 at the end, -1 if there is nothing now. */
static ssize_t take(void) {
  static uint8_t part[PART];
  ssize_t got = read(reader, part, sizeof part);
  size_t passed;
  if (got <= 0) return got;
  keep(part, (size_t)got);
  passed = pass_on(part, least((uint64_t)got, left));
  left -= passed;
  dropped += (uint64_t)got - passed;
  return got;
}

static void readable(void *whose, int events) {
  (void)whose;
  (void)events;
  if (!take()) mrpc_forget(reader);
}

/* Takes all that is in the pipe, though not from who goes on writing. */
static void drain(int parts) {
  while (parts-- && reader >= 0 && take() > 0)
    ;
}

static void stop_answering(void) {
  if (asked >= 0) mrpc_forget(asked);
  asked = -1;
}

/* Answers a question of the session's process. One that breaks the rules only harms itself: what it
 * does not take now, it never gets. */
static void answer(void *whose, int events) {
  struct {
    mrpc_printed_answer head;
    uint8_t content[MRPC_PRINTED_PIECE];
  } said;
  mrpc_printed_question question;
  ssize_t got = read(asked, &question, sizeof question);
  uint64_t from, nbytes;
  (void)whose;
  (void)events;
  if (got < 0 && (errno == EAGAIN || errno == EINTR)) return;
  if (got != sizeof question) {
    stop_answering();
    return;
  }
  if (question.offset == MRPC_PRINTED_END) drain(MOST_PARTS);
  from = least(question.offset > begin ? question.offset : begin, end);
  nbytes = least(least(MRPC_PRINTED_PIECE, end - from), KEPT - from % KEPT);
  said.head.number = question.number;
  said.head.begin = from;
  said.head.end = end;
  said.head.nbytes = nbytes;
  if (nbytes) memcpy(said.content, ring + from % KEPT, nbytes);
  if (write(asked, &said, sizeof said.head + nbytes) < 0 && errno != EAGAIN) stop_answering();
}

int mrpc_output_open(int64_t limit_nbytes) {
  int both[2];
  if (pipe2(both, O_CLOEXEC)) return -1;
  reader = both[0];
  writer = both[1];
  mrpc_set_nonblocking(reader, 1);
  begin = end = dropped = 0;
  left = (uint64_t)limit_nbytes;
  return writer;
}

static void close_writer(void) {
  if (writer >= 0) close(writer);
  writer = -1;
}

/* The session's process has its end; ours is closed, so that there is an end of it all. */
void mrpc_output_started(int lifeline) {
  close_writer();
  asked = lifeline;
  mrpc_watch(reader, POLLIN, readable, NULL);
  mrpc_watch(lifeline, POLLIN, answer, NULL);
}

void mrpc_output_close_fds(void) {
  if (reader >= 0) close(reader);
}

/* Takes what is still in the pipe; may be called twice. */
void mrpc_output_close(void) {
  close_writer();
  stop_answering();
  if (reader < 0) return;
  drain(2); /* a pipe holds one part */
  mrpc_forget(reader);
  close(reader);
  reader = -1;
}

uint64_t mrpc_output_dropped(void) {
  if (ring) munmap(ring, KEPT);
  ring = NULL;
  return dropped;
}

/* What was printed last, as the end of a message; empty if nothing was. */
size_t mrpc_output_last_lines(char *out, size_t room) {
  static const char words[] = "; it printed last:\n";
  uint8_t tail[TAIL] = {0};
  size_t nbytes = least(end - begin, TAIL), from, lines = 0;
  *out = 0;
  for (size_t at = 0; at < nbytes; at++) tail[at] = ring[(end - nbytes + at) % KEPT];
  while (nbytes && (tail[nbytes - 1] == '\n' || tail[nbytes - 1] == '\r')) nbytes--;
  for (from = nbytes; from; from--)
    if (tail[from - 1] == '\n' && ++lines == TAIL_LINES) break;
  if (!nbytes || room < sizeof words) return 0;
  strcpy(out, words);
  return sizeof words - 1 +
         mrpc_clean(out + sizeof words - 1, room - sizeof words + 1, tail + from, nbytes - from);
}
