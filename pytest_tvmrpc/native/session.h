/* One session's answering end: requests from a descriptor, answers to another. */
#ifndef MRPC_SESSION_H_
#define MRPC_SESSION_H_

#include <stdint.h>

#include "ffi.h"

/* Where a session stands, in memory shared with its supervisor: see the Python server's Progress and
 * Stage, whose numbers these are. */
enum { MRPC_IDLE, MRPC_CALLING, MRPC_ANSWERING, MRPC_ANSWERING_LONG };
enum {
  MRPC_STARTING,
  MRPC_SERVING,
  MRPC_WAS_IDLE,
  MRPC_OPEN,
  MRPC_ENDED
};

typedef struct {
  volatile uint8_t progress, dialect, stage;
} mrpc_progress;

typedef struct {
  int in, out;             /* one socket twice, or two pipes */
  int is_socket;           /* kernel timeouts, and MSG_NOSIGNAL */
  const uint8_t *early;    /* what came behind the hello */
  size_t early_nbytes;
  const char *directory;   /* the session's own, absolute, and the working directory */
  double opening_s;        /* how long the client may take until it has opened the session; 0: any */
  double idle_s;           /* how long it may ask nothing; 0: any time */
  double send_s;           /* how long it may refuse to take an answer */
  const char *libraries;   /* separated by colons, to be loaded first; or NULL */
  int lifeline;            /* the connection on which the supervisor is asked what was printed; -1 */
  mrpc_progress *progress; /* shared, or of this process */
} mrpc_session;

/* Serves until Shutdown or the end of the connection; the exit status of the process. */
int mrpc_serve(const mrpc_session *session);

/* Writes the last word of a session to a client, in its dialect: the whole packet into `out`, which
 * has room for nbytes + MRPC_ANSWER; returns its bytes. */
size_t mrpc_last_packet(const mrpc_progress *progress, const char *text, uint8_t *out);

/* The session's global functions (functions.c, files.c, timing.c) are registered by this. */
int mrpc_register_functions(const char *directory, int lifeline);

/* Loads libraries, separated by colons (NULL: none): 0, or -1 after an error was raised. */
int mrpc_load_libraries(const char *libraries);

#endif /* MRPC_SESSION_H_ */
