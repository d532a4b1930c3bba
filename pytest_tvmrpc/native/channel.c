/* The connection to a client: bytes in, answers out. Knows packets only by their length. */
#include <errno.h>
#include <string.h>
#include <sys/sendfile.h>
#include <sys/uio.h>
#include <unistd.h>

#include "serving.h"

enum { SHORT = 1024, AT_ONCE = 1 << 20 };

/* The client is gone, or takes nothing. */
static int give_up(mrpc_channel *channel) {
  channel->is_broken = 1;
  return -1;
}

/* It says nothing, or is gone. */
static int hear_no_more(mrpc_channel *channel) {
  if (errno == EAGAIN || errno == EWOULDBLOCK) channel->is_late = 1;
  return give_up(channel);
}

int mrpc_receive(mrpc_channel *channel) {
  ssize_t received;
  if (channel->begin == channel->end) {
    channel->begin = channel->end = 0;
  } else if (channel->begin > 0) {
    memmove(channel->buffer, channel->buffer + channel->begin, channel->end - channel->begin);
    channel->end -= channel->begin;
    channel->begin = 0;
  }
  do {
    received = read(channel->in, channel->buffer + channel->end, MRPC_BUFFER - channel->end);
  } while (received < 0 && errno == EINTR);
  if (received < 0) return hear_no_more(channel);
  channel->end += (size_t)received;
  return received > 0;
}

int mrpc_receive_to(mrpc_channel *channel, uint8_t *target, uint64_t nbytes) {
  while (nbytes > 0) {
    size_t most = nbytes > (1u << 30) ? (1u << 30) : (size_t)nbytes;
    ssize_t received = read(channel->in, target, most);
    if (received < 0 && errno == EINTR) continue;
    if (received < 0) return hear_no_more(channel);
    if (received == 0) return give_up(channel);
    target += received;
    nbytes -= (uint64_t)received;
    channel->missing -= (uint64_t)received;
  }
  return 0;
}

int mrpc_skip_missing(mrpc_channel *channel) {
  uint8_t nothing[4096];
  while (channel->missing > 0) {
    uint64_t part = channel->missing < sizeof(nothing) ? channel->missing : sizeof(nothing);
    if (mrpc_receive_to(channel, nothing, part) != 0) return -1;
  }
  return 0;
}

/* Writes all of it, in as few system calls as the kernel allows. */
static int send_all(mrpc_channel *channel, struct iovec *parts, int count) {
  while (count > 0) {
    ssize_t sent;
    if (parts->iov_len == 0) {
      parts++, count--;
      continue;
    }
    sent = writev(channel->out, parts, count);
    if (sent < 0 && errno == EINTR) continue;
    if (sent < 0) return give_up(channel);
    while (count > 0 && (size_t)sent >= parts->iov_len) {
      sent -= (ssize_t)parts->iov_len;
      parts++, count--;
    }
    if (count > 0) {
      parts->iov_base = (uint8_t *)parts->iov_base + sent;
      parts->iov_len -= (size_t)sent;
    }
  }
  return 0;
}

int mrpc_send_held(mrpc_channel *channel) {
  struct iovec part;
  int status;
  if (channel->held == 0) return 0;
  part.iov_base = channel->answers;
  part.iov_len = channel->held;
  /* Whoever is killed has sent a short answer whole, or not at all. */
  channel->progress->progress = channel->held <= SHORT ? MRPC_IDLE : MRPC_ANSWERING;
  status = send_all(channel, &part, 1);
  channel->held = 0;
  channel->progress->progress = MRPC_IDLE;
  return status;
}

int mrpc_answer(mrpc_channel *channel, const uint8_t *packet, size_t nbytes) {
  if (channel->held + nbytes > MRPC_HELD && mrpc_send_held(channel) != 0) return -1;
  memcpy(channel->answers + channel->held, packet, nbytes);
  channel->held += nbytes;
  return 0;
}

/* Sends what was held, and the beginning of a packet. */
static int send_head(mrpc_channel *channel, const uint8_t *head, size_t nbytes) {
  struct iovec parts[2];
  channel->progress->progress = MRPC_ANSWERING;
  parts[0].iov_base = channel->answers;
  parts[0].iov_len = channel->held;
  parts[1].iov_base = (uint8_t *)(uintptr_t)head;
  parts[1].iov_len = nbytes;
  channel->held = 0;
  return send_all(channel, parts, 2);
}

/* How much of so many bytes goes next: of a long answer all but its end, after which nothing else
 * could be taken for that. */
static uint64_t next_part(mrpc_channel *channel, uint64_t nbytes, uint64_t rest) {
  int is_long = nbytes > 4ull * MRPC_LAST && rest > MRPC_LAST;
  channel->progress->progress = is_long ? MRPC_ANSWERING_LONG : MRPC_ANSWERING;
  return is_long ? rest - MRPC_LAST : rest;
}

int mrpc_answer_long(mrpc_channel *channel, const uint8_t *head, size_t head_nbytes,
                     const uint8_t *content, uint64_t nbytes) {
  uint64_t rest = nbytes;
  if (head_nbytes + nbytes <= SHORT) {
    if (mrpc_answer(channel, head, head_nbytes) != 0) return -1;
    return nbytes == 0 ? 0 : mrpc_answer(channel, content, (size_t)nbytes);
  }
  if (send_head(channel, head, head_nbytes) != 0) return -1;
  while (rest > 0) {
    struct iovec part;
    size_t size = (size_t)next_part(channel, nbytes, rest);
    part.iov_base = (uint8_t *)(uintptr_t)content + (nbytes - rest);
    part.iov_len = size; /* which send_all counts down */
    rest -= size;
    if (send_all(channel, &part, 1) != 0) return -1;
  }
  channel->progress->progress = MRPC_IDLE;
  return 0;
}

int mrpc_answer_file(mrpc_channel *channel, const uint8_t *head, size_t head_nbytes, int file,
                     uint64_t nbytes) {
  uint8_t buffer[8192];
  off_t offset = 0;
  if (send_head(channel, head, head_nbytes) != 0) return -1;
  while ((uint64_t)offset < nbytes) {
    uint64_t part = next_part(channel, nbytes, nbytes - (uint64_t)offset);
    ssize_t sent = sendfile(channel->out, file, &offset, part > AT_ONCE ? AT_ONCE : (size_t)part);
    if (sent < 0 && errno == EINTR) continue;
    if (sent < 0 && (errno == EINVAL || errno == ENOSYS)) { /* not to such a descriptor */
      struct iovec piece;
      size_t size = part < sizeof(buffer) ? (size_t)part : sizeof(buffer);
      ssize_t got = pread(file, buffer, size, offset);
      if (got <= 0) return give_up(channel);
      piece.iov_base = buffer;
      piece.iov_len = (size_t)got;
      if (send_all(channel, &piece, 1) != 0) return -1;
      offset += got;
      continue;
    }
    if (sent <= 0) return give_up(channel);
  }
  channel->progress->progress = MRPC_IDLE;
  return 0;
}
