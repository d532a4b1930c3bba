/* What this session's process has printed, as its supervisor keeps it.
 *
 * The process cannot know by itself: what it printed is in a pipe that the supervisor reads. So it
 * asks, over the connection between the two; by then the supervisor has taken all that came before. */
#include "printed.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "wire.h"

enum { LIMIT_MS = 2000 }; /* for the supervisor in all, which does nothing that takes long */

static int64_t now_ns(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

static int exactly(int lifeline, void *out, size_t nbytes, int64_t until_ns, char *why) {
  uint8_t *at = out;
  while (nbytes) {
    struct pollfd polled = {lifeline, POLLIN, 0};
    int64_t left_ms = (until_ns - now_ns()) / 1000000;
    int ready = poll(&polled, 1, left_ms > 0 ? (int)left_ms : 0);
    ssize_t got;
    if (ready < 0 && errno == EINTR) continue;
    if (ready <= 0) {
      snprintf(why, MRPC_WHY,
               "TimeoutError: the server's process did not say within %d s what was printed; it may "
               "be stopped; try again",
               LIMIT_MS / 1000);
      return MRPC_ERROR;
    }
    got = recv(lifeline, at, nbytes, 0);
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) {
      strcpy(why, "ConnectionError: the server's process has ended");
      return MRPC_ERROR;
    }
    at += got;
    nbytes -= (size_t)got;
  }
  return 0;
}

/* The answer and its content, for which there is room for a piece. */
static int ask(int lifeline, uint64_t offset, int64_t until_ns, mrpc_printed_answer *answer,
               uint8_t *content, char *why) {
  mrpc_printed_question question;
  question.number = (uint64_t)now_ns(); /* no other question of this process has it */
  question.offset = offset;
  if (send(lifeline, &question, sizeof question, MSG_NOSIGNAL) != sizeof question) {
    strcpy(why, "ConnectionError: the server's process has ended");
    return MRPC_ERROR;
  }
  do {
    if (exactly(lifeline, answer, sizeof *answer, until_ns, why)) return MRPC_ERROR;
    if (answer->nbytes > MRPC_PRINTED_PIECE) {
      strcpy(why, "ConnectionError: the server's process said something else");
      return MRPC_ERROR;
    }
    if (exactly(lifeline, content, (size_t)answer->nbytes, until_ns, why)) return MRPC_ERROR;
  } while (answer->number != question.number); /* to a question that was given up */
  return 0;
}

int64_t mrpc_printed(int lifeline, uint64_t since, int64_t limit, uint8_t **out, char *why) {
  static uint8_t content[MRPC_PRINTED_PIECE];
  int64_t until_ns = now_ns() + LIMIT_MS * (int64_t)1000000;
  mrpc_printed_answer answer;
  uint64_t offset = since, end;
  size_t nbytes = 8;
  fflush(NULL);
  if (lifeline < 0) {
    strcpy(why, "RuntimeError: this server does not keep what its sessions print");
    return MRPC_ERROR;
  }
  if (ask(lifeline, MRPC_PRINTED_END, until_ns, &answer, content, why)) return MRPC_ERROR;
  end = answer.end;
  if (limit >= 0 && end > (uint64_t)limit && offset < end - (uint64_t)limit)
    offset = end - (uint64_t)limit;
  *out = malloc(nbytes);
  while (*out && offset < end) {
    uint64_t part;
    uint8_t *larger;
    if (ask(lifeline, offset, until_ns, &answer, content, why)) {
      free(*out);
      return MRPC_ERROR;
    }
    if (answer.begin != offset) nbytes = 8; /* overtaken by what is printed meanwhile */
    part = answer.begin >= end ? 0 : end - answer.begin;
    if (part > answer.nbytes) part = answer.nbytes;
    larger = realloc(*out, nbytes + (size_t)part);
    if (!larger) free(*out);
    *out = larger;
    if (larger && part) memcpy(larger + nbytes, content, (size_t)part);
    nbytes += (size_t)part;
    offset = answer.begin + answer.nbytes;
  }
  if (!*out) {
    strcpy(why, "MemoryError: there is no memory for what was printed");
    return MRPC_ERROR;
  }
  mrpc_put_u64(*out, end);
  return (int64_t)nbytes;
}
