/* The RPC protocol as bytes, in both dialects. No system calls, no allocation: the caller owns all
 * memory. Readers return the number of bytes they took, MRPC_PARTIAL when more are needed, or
 * MRPC_ERROR with the reason in `why`, which may be NULL. Nothing here reads past the bytes it is
 * given. */
#ifndef MRPC_WIRE_H_
#define MRPC_WIRE_H_

#include <stddef.h>
#include <stdint.h>

#include "numbers.h"

enum { MRPC_ERROR = -1, MRPC_PARTIAL = -2 };

enum { MRPC_WHY = 256 }; /* bytes of a reason, its NUL included */

typedef enum { MRPC_FFI = 0, MRPC_LEGACY = 1, MRPC_UNKNOWN = 2 } mrpc_dialect;

typedef struct {
  uint8_t code, bits;
  uint16_t lanes;
} mrpc_dtype;

typedef struct {
  int32_t device_type, device_id;
} mrpc_device;

/* A tensor as a packet describes it. */
typedef struct {
  uint64_t data; /* the handle of its memory */
  mrpc_device device;
  int32_t ndim;
  mrpc_dtype dtype;
  int64_t shape[MRPC_MAX_NDIM];
  uint64_t byte_offset;
  uint64_t nbytes; /* of its content; the product is checked for overflow */
} mrpc_record;

/* The kinds of values of a packed sequence, whatever the dialect calls them. */
typedef enum {
  MRPC_NULL,
  MRPC_INT,
  MRPC_BOOL,
  MRPC_FLOAT,
  MRPC_POINTER,
  MRPC_DTYPE,
  MRPC_DEVICE,
  MRPC_TENSOR,
  MRPC_TEXT,
  MRPC_BYTES,
  MRPC_FUNCTION,
  MRPC_MODULE,
  MRPC_OBJECT
} mrpc_kind;

typedef struct {
  mrpc_kind kind;
  union {
    int64_t integer; /* INT, BOOL */
    double number;
    uint64_t handle; /* POINTER, FUNCTION, MODULE, OBJECT */
    mrpc_dtype dtype; /* of the present numbering in both dialects */
    mrpc_device device;
    const mrpc_record *record; /* TENSOR: one of the caller's records */
    struct {
      const uint8_t *bytes; /* in the packet; not NUL-terminated */
      uint64_t nbytes;      /* of the whole text; more than are there if it is pending */
    } text;                 /* TEXT, BYTES */
  } as;
} mrpc_value;

/* What a packed sequence is read into; the caller's memory. */
typedef struct {
  mrpc_value *values;
  int most_values; /* MRPC_MAX_VALUES is always enough */
  mrpc_record *records;
  int most_records; /* as many as there are tensors, each of which takes 36 bytes or more */
  int count;        /* values that were read */
  int is_pending;   /* the last value is a text or bytes, of which a part has not arrived */
} mrpc_sequence;

/* Framing */

enum { MRPC_HEAD = 12 }; /* a packet's length of 8 bytes, then its code of 4 */

/* A packet's head. *body is the number of bytes behind the head. An empty packet (length 0) is
 * skipped: *code is 0 then, *body 0, and 8 bytes were taken. */
int64_t mrpc_read_head(const uint8_t *in, size_t nbytes, int32_t *code, uint64_t *body, char *why);

/* Sequences */

/* The number of values that a sequence says it has, 0 to MRPC_MAX_VALUES, or MRPC_ERROR. Most of
 * them may not be there: it has less than nbytes / 4. */
int mrpc_count_values(const uint8_t *in, size_t nbytes, char *why);

/* A whole packed sequence of exactly `nbytes`; returns nbytes or MRPC_ERROR.
 *
 * `missing` bytes of the packet have not arrived yet: only a last text or bytes value may reach
 * into them (is_pending is 1 then); any other value that does is MRPC_PARTIAL. After a failure,
 * the values are not to be looked at. */
int64_t mrpc_read_values(mrpc_dialect dialect, const uint8_t *in, size_t nbytes, uint64_t missing,
                         mrpc_sequence *sequence, char *why);

/* A tensor's record outside of a sequence, as copies have it. */
int64_t mrpc_read_record(mrpc_dialect dialect, const uint8_t *in, size_t nbytes,
                         mrpc_record *record, char *why);

/* The dialect of a client by a request of it; MRPC_UNKNOWN while nothing can be told, MRPC_ERROR
 * when it makes sense in none: *likely is then the one in which the client may understand that. */
int mrpc_dialect_of(int32_t code, const uint8_t *body, size_t nbytes, uint64_t missing,
                    mrpc_dialect *likely, char *why);

/* Answers; `out` is the caller's, with room for MRPC_ANSWER bytes. Each returns the bytes written,
 * of a whole packet or of all of it that comes before `nbytes` bytes of content; 0 if the dialect
 * has no such value: a data type that TVM up to 0.20 did not know, or a text with a NUL in it. */

enum { MRPC_ANSWER = 640 };

/* InitServer is answered with no values, which both dialects accept. */
size_t mrpc_return_nothing(uint8_t *out);
size_t mrpc_return_void(mrpc_dialect dialect, uint8_t *out);
/* The answer of a request of values: one value, of a kind up to DEVICE, or a TEXT that fits. */
size_t mrpc_return_value(mrpc_dialect dialect, uint8_t *out, const mrpc_value *value);
/* The result of a call. Of a TEXT or BYTES only what comes before the content (of BYTES, it need
 * not be there yet); a TENSOR has `tensor`, the handle of the tensor itself besides that of its
 * memory; an OBJECT has `type_index`, its own in the FFI dialect. */
size_t mrpc_return_result(mrpc_dialect dialect, uint8_t *out, const mrpc_value *value,
                          uint64_t tensor, int32_t type_index);
size_t mrpc_exception(mrpc_dialect dialect, uint8_t *out, uint64_t nbytes); /* before the text */
size_t mrpc_copy_ack(uint8_t *out, uint64_t nbytes);                        /* before the content */

/* The handshake */

typedef struct {
  char match_key[MRPC_MAX_KEY + 1];
  double session_timeout; /* seconds; 0: none */
} mrpc_hello;

/* A client's first words. */
int64_t mrpc_read_hello(const uint8_t *in, size_t nbytes, mrpc_hello *hello, char *why);
/* The same of the key alone ("client:KEY -timeout=2"), as a proxy passes it on. */
int mrpc_parse_client_key(const uint8_t *key, size_t nbytes, mrpc_hello *hello, char *why);
/* The server's answer; room for MRPC_MAX_KEY + 64 bytes. */
size_t mrpc_write_reply(uint8_t *out, int32_t reply, const char *key);
/* What a server says first to a proxy; room likewise. */
size_t mrpc_write_server_hello(uint8_t *out, const char *key);

/* Makes of any bytes a text that every client takes: whatever is NUL, or not UTF-8, becomes a
 * question mark. To be done with the text of an Exception. */
void mrpc_clean_text(uint8_t *text, size_t nbytes);

/* Names of packets, for messages; NULL for a code that is none. */
const char *mrpc_code_name(int32_t code);

/* Little-endian numbers at any address. */
uint32_t mrpc_get_u32(const uint8_t *in);
uint64_t mrpc_get_u64(const uint8_t *in);
void mrpc_put_u32(uint8_t *out, uint32_t number);
void mrpc_put_u64(uint8_t *out, uint64_t number);

/* The bytes of so many elements of a type; -1 if their bits are more than 63 bits count, if a
 * length is negative, or if elements of the type have no size. Types of less than 8 bits: packed in
 * the FFI dialect, whole bytes in the legacy one, and of uint1, which was bool up to 0.22, in
 * both. */
int64_t mrpc_nbytes_of(mrpc_dialect dialect, mrpc_dtype dtype, const int64_t *shape, int32_t ndim);

#endif /* MRPC_WIRE_H_ */
