/* Feeds wire.c with anything, for libFuzzer; the first byte says which function reads the rest.
 *
 * Compiled with -DREPLAY it is a program of its own, for any machine: it reads inputs, each with
 * its size of 4 bytes (little-endian) before it, from its standard input, and prints what became
 * of each.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "wire.h"

/* Sanitizers tell where this was; so does a core. */
#define HOLDS(condition) \
  do { \
    if (!(condition)) { \
      fprintf(stderr, "%s:%d: does not hold: %s\n", __FILE__, __LINE__, #condition); \
      abort(); \
    } \
  } while (0)

#ifdef REPLAY
#define SAY(...) printf(__VA_ARGS__)
#else
#define SAY(...) ((void)0)
#endif

typedef unsigned long long ull;

static mrpc_value values[MRPC_MAX_VALUES], again[4];
static mrpc_record records[MRPC_MAX_VALUES], record_again[4];
static char why[MRPC_WHY];

static void say_refusal(int64_t result) {
  HOLDS(result == MRPC_ERROR || result == MRPC_PARTIAL);
  HOLDS(memchr(why, 0, sizeof why));
  if (result == MRPC_ERROR) HOLDS(why[0]);
  SAY(" %s %s\n", result == MRPC_ERROR ? "refused" : "partial", why);
}

static uint64_t checksum(const uint8_t *content, uint64_t nbytes) {
  uint64_t sum = nbytes;
  for (uint64_t place = 0; place < nbytes; ++place) sum = sum * 31 + content[place];
  return sum;
}

static void say_record(const mrpc_record *record) {
  HOLDS(record->ndim >= 0 && record->ndim <= MRPC_MAX_NDIM);
  HOLDS(record->nbytes <= INT64_MAX);
  for (int axis = 0; axis < record->ndim; ++axis) HOLDS(record->shape[axis] >= 0);
  SAY(" (%llx %d:%d %d %d.%d.%d +%llu =%llu", (ull)record->data, record->device.device_type,
      record->device.device_id, record->ndim, record->dtype.code, record->dtype.bits,
      record->dtype.lanes, (ull)record->byte_offset, (ull)record->nbytes);
  for (int axis = 0; axis < record->ndim; ++axis) SAY(" %lld", (long long)record->shape[axis]);
  SAY(")");
}

/* The bits of a value, whatever kind it is of. */
static uint64_t word_of(const mrpc_value *value) {
  uint64_t word = 0;
  switch (value->kind) {
    case MRPC_NULL: return 0;
    case MRPC_FLOAT: memcpy(&word, &value->as.number, 8); return word;
    case MRPC_DTYPE:
      return value->as.dtype.code | (uint64_t)value->as.dtype.bits << 8 |
             (uint64_t)value->as.dtype.lanes << 16;
    case MRPC_DEVICE:
      return (uint32_t)value->as.device.device_type |
             (uint64_t)(uint32_t)value->as.device.device_id << 32;
    case MRPC_TEXT:
    case MRPC_BYTES: return value->as.text.nbytes;
    case MRPC_TENSOR: return checksum((const uint8_t *)value->as.record->shape,
                                      8 * (uint64_t)value->as.record->ndim);
    default: return value->as.handle;
  }
}

/* A value that was read is packed as a result, and read again as it was. */
static void comes_back(mrpc_dialect dialect, const mrpc_value *value) {
  static uint8_t packet[1 << 16];
  uint64_t content = 0;
  size_t head = mrpc_return_result(dialect, packet, value, 5, MRPC_TYPE_SHAPE);
  HOLDS(head <= MRPC_ANSWER);
  if (!head) return; /* the dialect has no such result */
  if (value->kind == MRPC_TEXT || value->kind == MRPC_BYTES) content = value->as.text.nbytes;
  if (content > sizeof packet - head) return;
  if (content) memcpy(packet + head, value->as.text.bytes, (size_t)content);
  size_t nbytes = head + (size_t)content;
  int32_t code;
  uint64_t body;
  HOLDS(mrpc_read_head(packet, nbytes, &code, &body, NULL) == MRPC_HEAD);
  HOLDS(code == MRPC_CODE_RETURN && body == nbytes - MRPC_HEAD);
  mrpc_sequence sequence = {again, 4, record_again, 4, 0, 0};
  HOLDS(mrpc_read_values(dialect, packet + MRPC_HEAD, (size_t)body, 0, &sequence, NULL) ==
        (int64_t)body);
  HOLDS(sequence.count == (value->kind == MRPC_TENSOR ? 3 : 2));
  mrpc_kind kind = again[1].kind;
  if (value->kind >= MRPC_FUNCTION) HOLDS(kind == MRPC_POINTER);
  else if (value->kind == MRPC_BOOL && dialect == MRPC_LEGACY) HOLDS(kind == MRPC_INT);
  else HOLDS(kind == value->kind);
  HOLDS(word_of(&again[1]) == word_of(value));
  if (kind == MRPC_TEXT || kind == MRPC_BYTES) {
    HOLDS(!content || !memcmp(again[1].as.text.bytes, value->as.text.bytes, (size_t)content));
  }
  SAY("=%zu", head);
}

static void check_value(mrpc_dialect dialect, const uint8_t *in, size_t nbytes,
                        const mrpc_value *value, int is_pending) {
  SAY(" %d:%llx", value->kind, (ull)(value->kind == MRPC_TENSOR ? 0 : word_of(value)));
  if (value->kind == MRPC_TENSOR) {
    HOLDS(value->as.record >= records && value->as.record < records + MRPC_MAX_VALUES);
    say_record(value->as.record);
  }
  if (value->kind == MRPC_TEXT || value->kind == MRPC_BYTES) {
    HOLDS(value->as.text.bytes >= in && value->as.text.bytes <= in + nbytes);
    uint64_t there = (uint64_t)(in + nbytes - value->as.text.bytes);
    HOLDS(is_pending ? value->as.text.nbytes > there : value->as.text.nbytes <= there);
    SAY("#%llx", (ull)checksum(value->as.text.bytes, is_pending ? there : value->as.text.nbytes));
  }
  if (!is_pending) comes_back(dialect, value);
}

static void read_values(mrpc_dialect dialect, const uint8_t *in, size_t nbytes) {
  mrpc_sequence sequence = {values, MRPC_MAX_VALUES, records, MRPC_MAX_VALUES, 0, 0};
  if (nbytes < 2) return;
  uint64_t cut = in[0] % 16 ? 0 : in[1]; /* bytes of the packet's end that are yet to come */
  in += 2;
  nbytes -= 2;
  int64_t whole = mrpc_read_values(dialect, in, nbytes, 0, &sequence, why);
  HOLDS(whole == (int64_t)nbytes || whole == MRPC_ERROR);
  if (whole < 0) {
    say_refusal(whole);
  } else {
    HOLDS(!sequence.is_pending && (size_t)sequence.count <= nbytes / 4);
    HOLDS(mrpc_count_values(in, nbytes, NULL) == sequence.count);
    for (int place = 0; place < sequence.count; ++place) {
      check_value(dialect, in, nbytes, values + place, 0);
    }
    SAY("\n");
  }
  if (!cut || cut > nbytes) return;
  nbytes -= (size_t)cut;
  int64_t part = mrpc_read_values(dialect, in, nbytes, cut, &sequence, why);
  if (part < 0) {
    if (whole >= 0) HOLDS(part == MRPC_PARTIAL);
    say_refusal(part);
    return;
  }
  HOLDS(part == (int64_t)nbytes && whole >= 0 && sequence.is_pending && sequence.count);
  for (int place = 0; place < sequence.count; ++place) {
    check_value(dialect, in, nbytes, values + place, place + 1 == sequence.count);
  }
  SAY("\n");
}

static void read_head(const uint8_t *in, size_t nbytes) {
  int32_t code;
  uint64_t body;
  int64_t taken = mrpc_read_head(in, nbytes, &code, &body, why);
  if (taken < 0) {
    why[taken == MRPC_PARTIAL ? 0 : MRPC_WHY - 1] = 0;
    say_refusal(taken);
    return;
  }
  HOLDS((uint64_t)taken <= nbytes && (taken == MRPC_HEAD || (taken == 8 && !code && !body)));
  SAY(" %d %s %llu\n", code, mrpc_code_name(code) ? mrpc_code_name(code) : "-", (ull)body);
}

static void read_record(mrpc_dialect dialect, const uint8_t *in, size_t nbytes) {
  int64_t taken = mrpc_read_record(dialect, in, nbytes, records, why);
  if (taken < 0) {
    say_refusal(taken);
    return;
  }
  HOLDS((uint64_t)taken <= nbytes && taken == 32 + 8 * (int64_t)records->ndim);
  say_record(records);
  SAY("\n");
}

static void tell_dialect(const uint8_t *in, size_t nbytes) {
  mrpc_dialect likely;
  if (nbytes < 2) return;
  int32_t code = in[0] % 24 - 1;
  uint64_t missing = in[1] % 16 ? 0 : in[1];
  int dialect = mrpc_dialect_of(code, in + 2, nbytes - 2, missing, &likely, why);
  HOLDS(likely == MRPC_FFI || likely == MRPC_LEGACY);
  if (dialect < 0) {
    HOLDS(dialect == MRPC_ERROR && !missing);
    say_refusal(dialect);
  }
  SAY(" %d %d\n", dialect, likely);
}

static void read_hello(int is_key, const uint8_t *in, size_t nbytes) {
  static mrpc_hello hello;
  int64_t taken = is_key ? mrpc_parse_client_key(in, nbytes, &hello, why)
                         : mrpc_read_hello(in, nbytes, &hello, why);
  if (taken < 0) {
    if (taken == MRPC_PARTIAL) why[0] = 0;
    say_refusal(taken);
    return;
  }
  HOLDS((uint64_t)taken <= nbytes);
  HOLDS(hello.session_timeout >= 0 && hello.session_timeout * 0 == 0);
  size_t length = strlen(hello.match_key);
  HOLDS(length <= MRPC_MAX_KEY);
  uint8_t out[MRPC_MAX_KEY + 64];
  HOLDS(mrpc_write_reply(out, MRPC_REPLY_SUCCESS, hello.match_key) <= sizeof out);
  HOLDS(mrpc_write_server_hello(out, hello.match_key) <= sizeof out);
  SAY(" %s %.17g\n", hello.match_key, hello.session_timeout);
}

static void clean_text(const uint8_t *in, size_t nbytes) {
  uint8_t *text = malloc(nbytes + 1), *twice = malloc(nbytes + 1);
  HOLDS(text && twice);
  if (nbytes) memcpy(text, in, nbytes);
  mrpc_clean_text(text, nbytes);
  memcpy(twice, text, nbytes);
  mrpc_clean_text(twice, nbytes);
  HOLDS(!memcmp(text, twice, nbytes) && (!nbytes || !memchr(text, 0, nbytes)));
  SAY(" %llx\n", (ull)checksum(text, nbytes));
  free(text);
  free(twice);
}

int LLVMFuzzerTestOneInput(const uint8_t *in, size_t nbytes);

int LLVMFuzzerTestOneInput(const uint8_t *in, size_t nbytes) {
  if (!nbytes) return 0;
  int choice = *in++ % 9;
  --nbytes;
  memset(why, 'x', sizeof why);
  SAY("%d", choice);
  switch (choice) {
    case 0: read_head(in, nbytes); break;
    case 1: read_values(MRPC_FFI, in, nbytes); break;
    case 2: read_values(MRPC_LEGACY, in, nbytes); break;
    case 3: read_record(MRPC_FFI, in, nbytes); break;
    case 4: read_record(MRPC_LEGACY, in, nbytes); break;
    case 5: tell_dialect(in, nbytes); break;
    case 6: read_hello(0, in, nbytes); break;
    case 7: read_hello(1, in, nbytes); break;
    default: clean_text(in, nbytes);
  }
  return 0;
}

#ifdef REPLAY
int main(void) {
  uint8_t size[4];
  while (fread(size, 1, 4, stdin) == 4) {
    size_t nbytes = mrpc_get_u32(size);
    uint8_t *in = malloc(nbytes); /* of just this size: reads beyond it are seen */
    HOLDS(in || !nbytes);
    HOLDS(fread(in, 1, nbytes, stdin) == nbytes);
    LLVMFuzzerTestOneInput(in, nbytes);
    free(in);
  }
  return 0;
}
#endif
