/* The parts of tvmrpc-server. One process, one thread, one loop: so each part keeps its state in
 * its own file. Nothing here waits, except for the end of the server itself. */
#ifndef MRPC_SERVER_H_
#define MRPC_SERVER_H_

#include <math.h>
#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>
#include <sys/types.h>

#include "session.h"
#include "wire.h"

#define MRPC_NEVER HUGE_VAL /* a moment that does not come */
#define MRPC_SESSION_PREFIX "tvmrpc-session-"

enum { MRPC_ADDRESS = 80, MRPC_PATH = 1024, MRPC_OUTCOME = 1100 };

/* What the server was told; see config.py of the Python server. Times in seconds. */
typedef struct {
  const char *host, *key, *custom_addr, *work_dir;
  char *tracker; /* its name; NULL for none */
  char *libraries;
  int64_t port, port_end, tracker_port, output_nbytes;
  double idle_s, unused_s, handshake_s, goodbye_s, stop_s, send_s;
  int is_silent, is_proxy, no_reuse_addr;
  int64_t ready_fd, parent_fd, listen_fd; /* -1 for none */
} mrpc_config;

extern mrpc_config mrpc_settings; /* main.c; does not change once the server serves */

/* loop.c: what is waited for, and who is told */
typedef void mrpc_happened(void *whose, int events);
double mrpc_now(void); /* seconds of the monotonic clock */
void mrpc_watch(int fd, int events, mrpc_happened *happened, void *whose);
void mrpc_forget(int fd); /* before it is closed */
void mrpc_turn(double wait_s, const sigset_t *mask);
void mrpc_close_watched(void); /* in a process that was forked */

/* report.c: lines for whoever watches the server, and the texts in them */
void mrpc_report(const char *format, ...) __attribute__((format(printf, 1, 2)));
void mrpc_warn(const char *format, ...) __attribute__((format(printf, 1, 2)));
void mrpc_print(int fd, const char *format, ...) __attribute__((format(printf, 2, 3)));
int mrpc_can_write(int fd);
size_t mrpc_quote(char *out, size_t room, const char *text, size_t nbytes);
size_t mrpc_clean(char *out, size_t room, const uint8_t *text, size_t nbytes);
void mrpc_address_text(char *out, const struct sockaddr *address);
void mrpc_host_text(char *out, size_t room, const char *host, int64_t port);
const char *mrpc_signal_name(int number); /* NULL if it has none */
void mrpc_random(void *out, size_t nbytes);

/* sockets.c */
int mrpc_listen(char *why); /* -1: why */
int mrpc_parse_literal(const char *host, int64_t port, struct sockaddr_storage *address);
socklen_t mrpc_address_nbytes(const struct sockaddr_storage *address);
void mrpc_keepalive(int fd);
int mrpc_set_flag(int fd, int get, int set, int flag, int value);
int mrpc_set_nonblocking(int fd, int value);
void mrpc_set_cloexec(int fd);

/* dial.c: a connection to one address, as often as it is tried */
enum { MRPC_MOST_FOUND = 8 };
typedef struct {
  const char *host;
  int64_t port;
  void (*connected)(int fd); /* not blocking, and the callee's from then on */
  void (*failed)(const char *why);
  struct sockaddr_storage found[MRPC_MOST_FOUND];
  int count, next, lookup, connection; /* lookup, connection: descriptors, or -1 */
  pid_t pid;
  double gives_up_at;
} mrpc_dialler;
void mrpc_dial_init(mrpc_dialler *dialler);
void mrpc_dial(mrpc_dialler *dialler, double now);
void mrpc_dial_tick(mrpc_dialler *dialler, double now);
int mrpc_dial_is_busy(const mrpc_dialler *dialler);
void mrpc_dial_remember(mrpc_dialler *dialler); /* the last address was the right one */
void mrpc_dial_close(mrpc_dialler *dialler);

/* Pauses between attempts that fail; see protocol/pause.py */
enum { MRPC_FIRST_PAUSE_MS = 100, MRPC_LAST_PAUSE_MS = 10000 };
double mrpc_pause(int *next_ms);
double mrpc_about(double pause_s);

/* json.c: values where they lie in a frame, and text that is one */
const char *mrpc_json_check(const char *at, const char *end); /* what is wrong; NULL: one value */
const char *mrpc_json_start(const char *at, const char *end); /* the first byte of a value */
const char *mrpc_json_skip(const char *at, const char *end, int depth);
const char *mrpc_json_first(const char *at, const char *end); /* of an array or object; NULL: empty */
const char *mrpc_json_next(const char *at, const char *end);  /* behind a member; NULL: the last */
const char *mrpc_json_member(const char *at, const char *end, const char *name);
int64_t mrpc_json_text(const char *at, const char *end, char *out, size_t room);
int mrpc_json_int(const char *at, const char *end, int64_t *number);
size_t mrpc_json_quote(char *out, size_t room, const char *text);

/* ending.c: the last packet to a client; takes the socket, which is not watched */
void mrpc_end_connection(int fd, const void *packet, size_t nbytes);
void mrpc_endings_tick(double now);
double mrpc_endings_due(void);
void mrpc_endings_close(void);

/* clients.c: those that have no session yet */
typedef struct {
  int fd;
  double until;
  int has_hello, is_passed_over;
  char address[MRPC_ADDRESS];
  size_t nbytes, begin; /* heard; begin: what came behind the hello */
  mrpc_hello hello;
  uint8_t heard[9 + 2 * MRPC_MAX_KEY];
} mrpc_greeting;
void mrpc_clients_open(int listener); /* -1 for a server that waits at a proxy */
void mrpc_clients_tick(double now);
double mrpc_clients_due(void);
int mrpc_clients_wait(void); /* whether somebody waits for the device */
mrpc_greeting *mrpc_clients_take(void); /* the caller's, to be freed; NULL if nobody waits */
void mrpc_clients_close(void);
void mrpc_close_listener(void); /* in a process that was forked */

/* directory.c */
typedef struct {
  char path[MRPC_PATH];
  int lock; /* a descriptor, or -1 */
} mrpc_directory;
int mrpc_directory_make(mrpc_directory *directory, char *why);
int mrpc_directory_check(char *why); /* 1: why is only a warning */
void mrpc_directory_remove(mrpc_directory *directory); /* at once, or by another process */
void mrpc_directory_find_abandoned(void (*found)(mrpc_directory *directory));
int mrpc_remove_tree(const char *path, int entries, int64_t nbytes); /* 1: there is more */

/* strays.c */
int mrpc_strays_adopt(void);
uint64_t mrpc_strays_mark(void);
void mrpc_strays_bear(uint64_t mark);
int mrpc_strays_kill(uint64_t mark); /* of our children; whether none is left */
void mrpc_strays_reap(pid_t session);
void mrpc_strays_kill_all(uint64_t mark, double limit_s);
void mrpc_errand(pid_t pid); /* a child for something else than a session */
int mrpc_list(int folder, char *buffer, size_t room, int (*found)(const char *name, void *more),
              void *more);

/* output.c */
int mrpc_output_open(int64_t limit_nbytes); /* the session's end, or -1 */
void mrpc_output_started(int lifeline);
void mrpc_output_close(void);
void mrpc_output_close_fds(void); /* in the session's process */
size_t mrpc_output_last_lines(char *out, size_t room);
uint64_t mrpc_output_dropped(void);

/* worker.c: the session that goes on */
int mrpc_worker_start(int fd, const char *address, const mrpc_hello *hello, const uint8_t *early,
                      size_t early_nbytes, char *why);
int mrpc_worker_is_there(void);
void mrpc_worker_limit_opening(double opening_s);
void mrpc_worker_tick(double now);
double mrpc_worker_due(void);
void mrpc_worker_reap(void);
void mrpc_worker_stop(const char *outcome, const char *message);
pid_t mrpc_worker_pid(void);
void mrpc_worker_close_fds(void); /* in a process that was forked for something else */

/* born.c: the session's process, seen from within */
typedef struct {
  mrpc_session session;
  int output;
  uint64_t mark;
  pid_t parent;
} mrpc_birth;
void mrpc_born(const mrpc_birth *birth) __attribute__((noreturn));

/* tracker.c, proxy.c: where clients come from */
void mrpc_tracker_init(int64_t port);
int mrpc_tracker_accepts(const char *match_key);
void mrpc_tracker_tick(double now);
double mrpc_tracker_due(void);
void mrpc_tracker_occupied(const char *address);
void mrpc_tracker_offer(void);
void mrpc_tracker_close(void);
void mrpc_proxy_init(void);
void mrpc_proxy_tick(double now);
double mrpc_proxy_due(void);
void mrpc_proxy_offer(void);
void mrpc_proxy_close(void);

/* supervisor.c */
int mrpc_supervise(int listener, int64_t port);
void mrpc_say_ready(void);
pid_t mrpc_fork(void); /* 0 in the child, which has no signals and descriptors of ours any more */
void mrpc_serve_client(int fd, const char *address, const mrpc_hello *hello, const uint8_t *early,
                       size_t early_nbytes);
void mrpc_serve_next(void);
void mrpc_session_over(void);
int mrpc_fits(const char *match_key);

/* main.c: what whoever started us is told */
void mrpc_announce(int64_t port);

#endif /* MRPC_SERVER_H_ */
