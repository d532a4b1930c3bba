/* Descriptors, and whom it concerns what happens there. What they do is theirs. */
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include "server.h"

enum { MOST = 256, ALWAYS = POLLHUP | POLLERR | POLLNVAL };

typedef struct {
  mrpc_happened *happened;
  void *whose;
  unsigned serial;
} watch;

static struct pollfd polled[MOST];
static watch watches[MOST];
static int count;
static unsigned serial;

double mrpc_now(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

static int find(int fd) {
  int at = 0;
  while (at < count && polled[at].fd != fd) at++;
  return at;
}

void mrpc_watch(int fd, int events, mrpc_happened *happened, void *whose) {
  int at = find(fd);
  if (at == MOST) abort(); /* each part has a limit, and their sum is below this one */
  if (at == count) count++;
  polled[at].fd = fd;
  polled[at].events = (short)events;
  polled[at].revents = 0;
  watches[at].happened = happened;
  watches[at].whose = whose;
  watches[at].serial = ++serial;
}

void mrpc_forget(int fd) {
  int at = find(fd);
  if (at == count) return;
  polled[at] = polled[--count];
  watches[at] = watches[count];
}

/* Waits until something happens, and calls who wanted to know. One of those may close a descriptor
 * for which there is another event, and the next may watch a new one of the same number: that
 * event is none of its business. */
void mrpc_turn(double wait_s, const sigset_t *mask) {
  static struct {
    int fd, events;
    unsigned serial;
  } happened[MOST];
  struct timespec wait;
  int found = 0, ready;
  if (!(wait_s > 0)) wait_s = 0;
  if (wait_s > 3600) wait_s = 3600;
  wait.tv_sec = (time_t)wait_s;
  wait.tv_nsec = (long)((wait_s - (double)wait.tv_sec) * 1e9);
  ready = ppoll(polled, (nfds_t)count, &wait, mask);
  if (ready < 0) {
    struct timespec pause = {0, 100L * 1000 * 1000};
    if (errno != EINTR) nanosleep(&pause, NULL); /* more descriptors than the limit allows now */
    return;
  }
  for (int at = 0; at < count && found < ready; at++) {
    if (!polled[at].revents) continue;
    happened[found].fd = polled[at].fd;
    happened[found].events = polled[at].revents;
    happened[found++].serial = watches[at].serial;
  }
  for (int which = 0; which < found; which++) {
    int at = find(happened[which].fd);
    if (at == count || watches[at].serial != happened[which].serial) continue;
    if (happened[which].events & (polled[at].events | ALWAYS))
      watches[at].happened(watches[at].whose, happened[which].events);
  }
}

void mrpc_close_watched(void) {
  for (int at = 0; at < count; at++) close(polled[at].fd);
  count = 0;
}
