/* What the parts of a session that answer requests share. */
#ifndef MRPC_REQUESTS_H_
#define MRPC_REQUESTS_H_

#include <sys/types.h>

#include "serving.h"

enum { MRPC_FEW = 32 }; /* values that need no memory of their own */

/* A request in hand. */
typedef struct {
  int32_t code;
  const uint8_t *body;
  size_t nbytes;      /* that are here */
  uint8_t *collected; /* a body that was too long for the buffer */
} mrpc_request;

typedef struct {
  const mrpc_session *settings;
  mrpc_channel *channel;
  mrpc_dialect dialect;
  int is_dialect_known;
  int state; /* MRPC_STATE_... */
  int is_over;
  int status;
  volatile uint8_t *mark; /* 0 in a copy of this process */
  pid_t process;
  uint64_t stream;
  mrpc_value few_values[MRPC_FEW];
  mrpc_record few_records[MRPC_FEW];
  TVMFFIAny few_arguments[MRPC_FEW];
} mrpc_serving;

/* Ends a copy of this process: a kernel that forked and whose child returned must not answer. */
void mrpc_leave_if_copied(const mrpc_serving *self);

/* What a request raises whose bytes break the protocol; -1. */
int mrpc_protocol_error(const char *why);

/* Arguments (arguments.c) */

/* The values of a packed sequence, `missing` bytes of which may not have arrived; to be ended. */
int mrpc_take_values(mrpc_serving *self, const uint8_t *in, size_t nbytes, uint64_t missing,
                     mrpc_sequence *sequence);
void mrpc_end_values(mrpc_serving *self, mrpc_sequence *sequence);
/* What a handle names, borrowed; NULL after an error: it names nothing, or something else. */
TVMFFIObject *mrpc_object_of(uint64_t number, mrpc_kind kind);
/* The memory that a record names, with so many bytes from the record's offset on; NULL after an
 * error. */
mrpc_memory *mrpc_memory_named(const mrpc_record *record, uint64_t nbytes);
/* Calls a function with the values of a sequence; the result is owned. */
int mrpc_call_with(mrpc_serving *self, TVMFFIObject *function, const mrpc_sequence *sequence,
                   TVMFFIAny *result);

/* Answers (results.c): each 0, or -1 after an error was raised or when the client is gone. */

int mrpc_send_answer(mrpc_serving *self, const uint8_t *packet, size_t nbytes);
int mrpc_answer_void(mrpc_serving *self);
int mrpc_answer_value(mrpc_serving *self, const mrpc_value *value);
int mrpc_answer_pointer(mrpc_serving *self, uint64_t handle);
int mrpc_answer_result(mrpc_serving *self, TVMFFIAny *result);

/* Requests (requests.c) */

int mrpc_init_server(mrpc_serving *self, const mrpc_request *asked);
int mrpc_call_func(mrpc_serving *self, const mrpc_request *asked);
/* An upload whose content has not arrived: it goes to its file as it comes. 1 if it was one. */
int mrpc_upload_in_parts(mrpc_serving *self, const mrpc_request *asked, int *status);
int mrpc_copy_from_remote(mrpc_serving *self, const mrpc_request *asked);
int mrpc_copy_to_remote(mrpc_serving *self, const mrpc_request *asked);
/* A request of values: `required` of them there must be, of `all` that it knows. */
int mrpc_ask_values(mrpc_serving *self, const mrpc_request *asked, int required, int all);

#endif /* MRPC_REQUESTS_H_ */
