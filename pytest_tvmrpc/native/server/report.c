/* Lines for whoever watches the server, and the texts in them.
 *
 * Who reads our output may have gone or stopped reading, and its disk may be full. A device is worth
 * more than the lines about it, so none of this ends the server or keeps it waiting. */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#include "server.h"

enum { LINE = 3000 }; /* what poll() says about a pipe holds for 4096 bytes */

int mrpc_can_write(int fd) {
  struct pollfd polled = {fd, POLLOUT, 0};
  return poll(&polled, 1, 0) == 1 && polled.revents & POLLOUT;
}

static void print(int fd, char *line, int begin, const char *format, va_list values) {
  int nbytes = vsnprintf(line + begin, (size_t)(LINE - begin), format, values);
  if (nbytes < 0) return;
  nbytes += begin;
  if (nbytes > LINE - 2) nbytes = LINE - 2;
  line[nbytes++] = '\n';
  if (mrpc_can_write(fd) && write(fd, line, (size_t)nbytes) < 0) return;
}

void mrpc_print(int fd, const char *format, ...) {
  char line[LINE];
  va_list values;
  va_start(values, format);
  print(fd, line, 0, format, values);
  va_end(values);
}

static void print_stamped(const char *level, const char *format, va_list values) {
  char line[LINE];
  struct timeval now;
  struct tm local;
  size_t begin;
  if (mrpc_settings.is_silent) return;
  gettimeofday(&now, NULL);
  localtime_r(&now.tv_sec, &local);
  begin = strftime(line, LINE, "%Y-%m-%d %H:%M:%S", &local);
  begin += (size_t)snprintf(line + begin, LINE - begin, ".%03d %s ", (int)(now.tv_usec / 1000),
                            level);
  print(2, line, (int)begin, format, values);
}

void mrpc_report(const char *format, ...) {
  va_list values;
  va_start(values, format);
  print_stamped("INFO", format, values);
  va_end(values);
}

void mrpc_warn(const char *format, ...) {
  va_list values;
  va_start(values, format);
  print_stamped("WARNING", format, values);
  va_end(values);
}

/* The bytes of the UTF-8 character at `text`, or 0 if there is none. */
static size_t character(const uint8_t *text, size_t nbytes) {
  size_t length;
  uint32_t code;
  if (text[0] < 0x80) return 1;
  length = text[0] >= 0xF0 ? 4 : text[0] >= 0xE0 ? 3 : 2;
  if (text[0] < 0xC2 || text[0] > 0xF4 || length > nbytes) return 0;
  code = text[0] & (0x7Fu >> length);
  for (size_t at = 1; at < length; at++) {
    if ((text[at] & 0xC0) != 0x80) return 0;
    code = code << 6 | (text[at] & 0x3Fu);
  }
  if (code < (length == 4 ? 0x10000u : length == 3 ? 0x800u : 0x80u)) return 0;
  return code > 0x10FFFF || (code >= 0xD800 && code < 0xE000) ? 0 : length;
}

/* Text of a peer or a kernel as UTF-8; what is none becomes U+FFFD. Returns bytes, a NUL behind. */
size_t mrpc_clean(char *out, size_t room, const uint8_t *text, size_t nbytes) {
  size_t written = 0;
  for (size_t at = 0; at < nbytes;) {
    size_t length = character(text + at, nbytes - at);
    const char *from = length ? (const char *)text + at : "\xEF\xBF\xBD";
    size_t more = length ? length : 3;
    if (written + more + 1 > room) break;
    memcpy(out + written, from, more);
    written += more;
    at += length ? length : 1;
  }
  out[written] = 0;
  return written;
}

/* Text of a peer for a line: in quotes, without what a terminal could take for an order. */
size_t mrpc_quote(char *out, size_t room, const char *text, size_t nbytes) {
  size_t written = 0;
  out[written++] = '\'';
  for (size_t at = 0; at < nbytes && written + 8 < room; at++) {
    uint8_t byte = (uint8_t)text[at];
    size_t length = character((const uint8_t *)text + at, nbytes - at);
    int is_c1 = length == 2 && byte == 0xC2 && (uint8_t)text[at + 1] < 0xA1;
    if (length && byte >= 0x20 && byte != 0x7F && !is_c1) {
      if (byte == '\'' || byte == '\\') out[written++] = '\\';
      memcpy(out + written, text + at, length);
      written += length;
      at += length - 1;
    } else {
      written += (size_t)snprintf(out + written, room - written, "\\x%02x", byte);
    }
  }
  out[written++] = '\'';
  out[written] = 0;
  return written;
}

void mrpc_host_text(char *out, size_t room, const char *host, int64_t port) {
  int is_v6 = strchr(host, ':') != NULL;
  snprintf(out, room, "%s%s%s:%d", is_v6 ? "[" : "", host, is_v6 ? "]" : "", (int)port);
}

void mrpc_address_text(char *out, const struct sockaddr *address) {
  char host[INET6_ADDRSTRLEN] = "?";
  int port = 0;
  if (address->sa_family == AF_INET6) {
    const struct sockaddr_in6 *v6 = (const struct sockaddr_in6 *)address;
    inet_ntop(AF_INET6, &v6->sin6_addr, host, sizeof host);
    port = ntohs(v6->sin6_port);
  } else if (address->sa_family == AF_INET) {
    const struct sockaddr_in *v4 = (const struct sockaddr_in *)address;
    inet_ntop(AF_INET, &v4->sin_addr, host, sizeof host);
    port = ntohs(v4->sin_port);
  }
  mrpc_host_text(out, MRPC_ADDRESS, host, port);
}

const char *mrpc_signal_name(int number) {
  switch (number) {
#define NAMED(name) \
  case name:        \
    return #name
    NAMED(SIGHUP);
    NAMED(SIGINT);
    NAMED(SIGQUIT);
    NAMED(SIGILL);
    NAMED(SIGTRAP);
    NAMED(SIGABRT);
    NAMED(SIGBUS);
    NAMED(SIGFPE);
    NAMED(SIGKILL);
    NAMED(SIGUSR1);
    NAMED(SIGSEGV);
    NAMED(SIGUSR2);
    NAMED(SIGPIPE);
    NAMED(SIGALRM);
    NAMED(SIGTERM);
    NAMED(SIGVTALRM);
    NAMED(SIGPROF);
    NAMED(SIGIO);
    NAMED(SIGPWR);
    NAMED(SIGXCPU);
    NAMED(SIGXFSZ);
    NAMED(SIGSYS);
#undef NAMED
    default:
      return NULL;
  }
}

void mrpc_random(void *out, size_t nbytes) {
  uint64_t mixed;
  int fd;
#ifdef SYS_getrandom
  if (syscall(SYS_getrandom, out, nbytes, 0) == (long)nbytes) return;
#endif
  fd = open("/dev/urandom", O_RDONLY | O_CLOEXEC);
  if (fd >= 0) {
    ssize_t got = read(fd, out, nbytes);
    close(fd);
    if (got == (ssize_t)nbytes) return;
  }
  /* Neither: a board so bare that keys are only different, not secret. */
  mixed = (uint64_t)(mrpc_now() * 1e9) ^ (uint64_t)getpid() << 40;
  for (size_t at = 0; at < nbytes; at++) {
    mixed = mixed * 6364136223846793005u + 1442695040888963407u;
    ((uint8_t *)out)[at] = (uint8_t)(mixed >> 56);
  }
}
