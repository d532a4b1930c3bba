/* Binding, and the options of sockets. */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "server.h"

enum { VANISHED_S = 60 }; /* after so long, a machine that says nothing is taken to be gone */

int mrpc_set_flag(int fd, int get, int set, int flag, int value) {
  int flags = fcntl(fd, get);
  return flags < 0 ? -1 : fcntl(fd, set, value ? flags | flag : flags & ~flag);
}

int mrpc_set_nonblocking(int fd, int value) {
  return mrpc_set_flag(fd, F_GETFL, F_SETFL, O_NONBLOCK, value);
}

void mrpc_set_cloexec(int fd) { mrpc_set_flag(fd, F_GETFD, F_SETFD, FD_CLOEXEC, 1); }

static void set(int fd, int level, int option, int value) {
  /* Without one of them, it is slower, or the end of a peer is seen later. */
  (void)setsockopt(fd, level, option, &value, sizeof value);
}

void mrpc_keepalive(int fd) {
  set(fd, IPPROTO_TCP, TCP_NODELAY, 1);
  set(fd, SOL_SOCKET, SO_KEEPALIVE, 1);
  set(fd, IPPROTO_TCP, TCP_KEEPIDLE, 2 * VANISHED_S / 5);
  set(fd, IPPROTO_TCP, TCP_KEEPINTVL, VANISHED_S / 5);
  set(fd, IPPROTO_TCP, TCP_KEEPCNT, 3);
#ifdef TCP_USER_TIMEOUT
  set(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, 1000 * VANISHED_S);
#endif
}

socklen_t mrpc_address_nbytes(const struct sockaddr_storage *address) {
  return address->ss_family == AF_INET6 ? sizeof(struct sockaddr_in6) : sizeof(struct sockaddr_in);
}

/* The address if it is one already, and no name. */
int mrpc_parse_literal(const char *host, int64_t port, struct sockaddr_storage *address) {
  struct sockaddr_in *v4 = (struct sockaddr_in *)address;
  struct sockaddr_in6 *v6 = (struct sockaddr_in6 *)address;
  memset(address, 0, sizeof *address);
  if (inet_pton(AF_INET, host, &v4->sin_addr) == 1) {
    v4->sin_family = AF_INET;
    v4->sin_port = htons((uint16_t)port);
    return 1;
  }
  memset(address, 0, sizeof *address);
  if (inet_pton(AF_INET6, host, &v6->sin6_addr) != 1) return 0;
  v6->sin6_family = AF_INET6;
  v6->sin6_port = htons((uint16_t)port);
  return 1;
}

static int resolve(const char *host, struct sockaddr_storage *address, char *why) {
  struct addrinfo hints, *found = NULL;
  int code;
  if (!*host) host = "0.0.0.0";
  if (mrpc_parse_literal(host, 0, address)) return 0;
  memset(&hints, 0, sizeof hints);
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_family = strchr(host, ':') ? AF_INET6 : AF_INET;
  code = getaddrinfo(host, NULL, &hints, &found);
  if (code) {
    snprintf(why, MRPC_WHY, "%s", gai_strerror(code));
    return -1;
  }
  memcpy(address, found->ai_addr, found->ai_addrlen);
  freeaddrinfo(found);
  return 0;
}

/* A listening socket, or -1 with errno. What it accepts inherits its options. */
static int bind_to(struct sockaddr_storage *address, int64_t port) {
  int fd = socket(address->ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0), code;
  if (fd < 0) return -1;
  if (address->ss_family == AF_INET6)
    ((struct sockaddr_in6 *)address)->sin6_port = htons((uint16_t)port);
  else
    ((struct sockaddr_in *)address)->sin_port = htons((uint16_t)port);
  if (!mrpc_settings.no_reuse_addr) set(fd, SOL_SOCKET, SO_REUSEADDR, 1);
  mrpc_keepalive(fd);
  if (!bind(fd, (struct sockaddr *)address, mrpc_address_nbytes(address)) && !listen(fd, 1024))
    return fd;
  code = errno;
  close(fd);
  errno = code;
  return -1;
}

int mrpc_listen(char *why) {
  const mrpc_config *given = &mrpc_settings;
  struct sockaddr_storage address;
  char reason[MRPC_WHY], ports[48];
  int64_t first = given->port, end = first + 1;
  if (first && given->port_end > end) end = given->port_end;
  if (resolve(given->host, &address, reason) == 0) {
    for (int64_t port = first; port < end && port < 65536; port++) {
      int fd = bind_to(&address, port);
      if (fd >= 0) return fd;
      snprintf(reason, sizeof reason, "%s", strerror(errno));
      if (errno != EADDRINUSE && errno != EACCES) break;
    }
  }
  if (end == first + 1)
    snprintf(ports, sizeof ports, "port %d", (int)first);
  else
    snprintf(ports, sizeof ports, "any port in [%d, %d)", (int)first, (int)end);
  snprintf(why, MRPC_WHY,
           "cannot bind to %s on %.50s: %.50s; give another port, or 0 to let the system choose one",
           ports, given->host, reason);
  return -1;
}
