/* The last packet to a client, and the end of its connection, without waiting for it.
 *
 * A client that does not read has its buffers full, and then a packet that is sent once is lost. And
 * who closes with something unread resets the connection, which drops what the client has not read. */
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "server.h"

#define LIMIT_S 10.0 /* how long a client may take to hear the last word, and to close */
enum { MOST = 64, PARTS = 64, PART = 16384 };

typedef struct {
  int fd, has_shut, hears;
  double until;
  uint8_t *packet;
  size_t sent, nbytes;
} ending;

static ending *all[MOST];
static int count;

static void drop(ending *one) {
  int at = 0;
  while (at < count && all[at] != one) at++;
  for (count--; at < count; at++) all[at] = all[at + 1];
  mrpc_forget(one->fd);
  close(one->fd);
  free(one->packet);
  free(one);
}

/* Says and hears what can be now; whether there is more to do. */
static int go_on(ending *one) {
  static uint8_t heard[PART];
  while (one->sent < one->nbytes) {
    ssize_t sent = send(one->fd, one->packet + one->sent, one->nbytes - one->sent, MSG_NOSIGNAL);
    if (sent < 0 && errno == EAGAIN) break;
    if (sent < 0) return 0;
    one->sent += (size_t)sent;
  }
  if (one->sent == one->nbytes && !one->has_shut) {
    one->has_shut = 1;
    if (shutdown(one->fd, SHUT_WR)) return 0;
  }
  for (int part = 0; one->hears && part < PARTS; part++) {
    ssize_t got = recv(one->fd, heard, sizeof heard, 0);
    if (got < 0 && errno == EAGAIN) break;
    if (got < 0) return 0;
    if (!got) one->hears = 0;
  }
  return one->hears || one->sent < one->nbytes;
}

static void happened(void *whose, int events);

static void watch(ending *one) {
  int events = (one->hears ? POLLIN : 0) | (one->sent < one->nbytes ? POLLOUT : 0);
  mrpc_watch(one->fd, events, happened, one);
}

static void happened(void *whose, int events) {
  ending *one = whose;
  (void)events;
  if (go_on(one))
    watch(one);
  else
    drop(one);
}

void mrpc_end_connection(int fd, const void *packet, size_t nbytes) {
  ending *one = calloc(1, sizeof *one);
  if (one && nbytes && !(one->packet = malloc(nbytes))) {
    free(one);
    one = NULL;
  }
  if (!one) {
    close(fd);
    return;
  }
  if (nbytes) memcpy(one->packet, packet, nbytes);
  one->nbytes = nbytes;
  one->fd = fd;
  one->hears = 1;
  one->until = mrpc_now() + LIMIT_S;
  mrpc_set_nonblocking(fd, 1);
  if (count == MOST) drop(all[0]);
  all[count++] = one;
  happened(one, 0);
}

void mrpc_endings_tick(double now) {
  while (count && now >= all[0]->until) drop(all[0]); /* they are in the order of their limits */
}

double mrpc_endings_due(void) { return count ? all[0]->until : MRPC_NEVER; }

void mrpc_endings_close(void) {
  while (count) {
    go_on(all[0]);
    drop(all[0]);
  }
}
