/* The way to clients through a proxy: connect to it, wait for a partner, hand the socket over. The
 * proxy's tracker is the proxy's business; no byte of a session is read here. */
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "server.h"

#define WAITED_S 30.0    /* a proxy lets a server wait for minutes; sooner, it wants something else */
#define DUPLICATE_S 10.0 /* another server has our key: asking more often helps nobody */

static mrpc_dialler dialler;
static char name[MRPC_PATH], quoted[400], complaint[512];
static int connection = -1, is_refused, pause_ms = MRPC_FIRST_PAUSE_MS;
static double retry_at, waits_since;
static uint8_t reply[8 + MRPC_MAX_KEY];
static size_t heard, needed;

static int release(void) {
  int fd = connection;
  mrpc_forget(fd);
  connection = -1;
  return fd;
}

/* Tries again later; says why if that is something new. */
static void lose_for(const char *why, double pause_s) {
  if (*why && strcmp(why, complaint) != 0) {
    mrpc_report("the proxy %s: %s; trying again", name, why);
    snprintf(complaint, sizeof complaint, "%s", why);
  }
  if (connection < 0)
    is_refused = 0;
  else if (mrpc_now() >= waits_since + WAITED_S)
    pause_ms = MRPC_FIRST_PAUSE_MS;
  mrpc_dial_close(&dialler);
  if (connection >= 0) close(release());
  retry_at = mrpc_now() + (pause_s > 0 ? pause_s : mrpc_pause(&pause_ms));
  mrpc_say_ready();
}

static void lose(const char *why) { lose_for(why, 0); }

static void paired(void) {
  mrpc_hello hello;
  char why[MRPC_WHY];
  if (mrpc_parse_client_key(reply + 8, heard - 8, &hello, why)) {
    lose(why);
    return;
  }
  pause_ms = MRPC_FIRST_PAUSE_MS;
  complaint[0] = 0;
  is_refused = 0;
  retry_at = MRPC_NEVER;
  mrpc_serve_client(release(), "the proxy", &hello, NULL, 0);
}

static void refused(int32_t code) {
  char why[512];
  if (code == MRPC_REPLY_DUPLICATE) {
    is_refused = 1;
    snprintf(why, sizeof why,
             "error: another server waits there with the key %s already; give this one another --key, "
             "or end that one",
             quoted);
    lose_for(why, mrpc_about(DUPLICATE_S));
  } else if (code == MRPC_REPLY_MISMATCH) {
    is_refused = mrpc_now() < waits_since + WAITED_S;
    snprintf(why, sizeof why,
             "error: it refused this server, with the key %s; its own output says why", quoted);
    lose(is_refused ? why : ""); /* nobody came for as long as the proxy waits */
  } else {
    lose("it does not speak TVM's RPC protocol");
  }
}

/* Takes the proxy's answer, and not a byte more: what follows is the session's. */
static void readable(void *whose, int events) {
  ssize_t got = recv(connection, reply + heard, needed - heard, 0);
  (void)whose;
  (void)events;
  if (got < 0 && (errno == EAGAIN || errno == EINTR)) return;
  if (got <= 0) {
    lose(got ? strerror(errno) : "it closed the connection");
    return;
  }
  heard += (size_t)got;
  if (heard < needed) return;
  if (heard == 4) {
    int32_t code = (int32_t)mrpc_get_u32(reply);
    if (code == MRPC_REPLY_SUCCESS)
      needed = 8;
    else
      refused(code);
    return;
  }
  if (heard == 8) {
    uint32_t nbytes = mrpc_get_u32(reply + 4);
    if (nbytes > MRPC_MAX_KEY) {
      lose("it has a key of too many bytes");
      return;
    }
    needed = 8 + nbytes;
    if (nbytes) return;
  }
  paired();
}

static void connected(int fd) {
  uint8_t hello[MRPC_MAX_KEY + 64];
  size_t nbytes = mrpc_write_server_hello(hello, mrpc_settings.key);
  connection = fd;
  heard = 0;
  needed = 4;
  waits_since = mrpc_now();
  if (send(fd, hello, nbytes, MSG_NOSIGNAL) != (ssize_t)nbytes) { /* the first: it fits */
    lose("it does not take the hello");
    return;
  }
  mrpc_watch(fd, POLLIN, readable, NULL);
  if (*complaint && !is_refused) {
    mrpc_report("waiting at the proxy %s again", name);
    complaint[0] = 0;
  }
  mrpc_dial_remember(&dialler);
  mrpc_say_ready();
}

void mrpc_proxy_init(void) {
  const mrpc_config *given = &mrpc_settings;
  dialler.host = given->host;
  dialler.port = given->port;
  dialler.connected = connected;
  dialler.failed = lose;
  mrpc_dial_init(&dialler);
  mrpc_host_text(name, sizeof name, given->host, given->port);
  mrpc_quote(quoted, sizeof quoted, given->key, strnlen(given->key, 80));
}

void mrpc_proxy_tick(double now) {
  if (connection >= 0 || retry_at == MRPC_NEVER) return;
  if (mrpc_dial_is_busy(&dialler))
    mrpc_dial_tick(&dialler, now);
  else if (now >= retry_at)
    mrpc_dial(&dialler, now);
}

double mrpc_proxy_due(void) {
  if (mrpc_dial_is_busy(&dialler)) return dialler.gives_up_at;
  return connection >= 0 ? MRPC_NEVER : retry_at;
}

void mrpc_proxy_offer(void) { retry_at = mrpc_now(); }

void mrpc_proxy_close(void) {
  retry_at = MRPC_NEVER;
  mrpc_dial_close(&dialler);
  if (connection >= 0) close(release());
}
