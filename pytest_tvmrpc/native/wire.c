/* What peers say: packets, sequences, records, and in which dialect. */
#include "wire_parts.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

/* Little-endian numbers */

uint32_t mrpc_get_u32(const uint8_t *in) {
  return (uint32_t)in[0] | (uint32_t)in[1] << 8 | (uint32_t)in[2] << 16 | (uint32_t)in[3] << 24;
}

uint64_t mrpc_get_u64(const uint8_t *in) {
  return mrpc_get_u32(in) | (uint64_t)mrpc_get_u32(in + 4) << 32;
}

void mrpc_put_u32(uint8_t *out, uint32_t number) {
  for (int place = 0; place < 4; ++place) out[place] = (uint8_t)(number >> 8 * place);
}

void mrpc_put_u64(uint8_t *out, uint64_t number) {
  mrpc_put_u32(out, (uint32_t)number);
  mrpc_put_u32(out + 4, (uint32_t)(number >> 32));
}

/* Names and reasons */

const char *mrpc_code_name(int32_t code) {
#define ROW(code, name) #name,
  static const char names[][26] = {MRPC_CODES(ROW)}; /* pointers would have to be relocated */
#undef ROW
  return code >= 0 && (size_t)code < sizeof names / sizeof *names ? names[code] : NULL;
}

void mrpc_explain(char *why, const char *format, ...) {
  if (!why) return;
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(why, MRPC_WHY, format, arguments);
  va_end(arguments);
}

/* Data types: up to 0.20, TVM had other numbers for some */

static mrpc_dtype from_legacy(mrpc_dtype dtype) {
  if (dtype.bits == 8 && dtype.code == CODE_BOOL) dtype.code = CODE_E4M3;
  else if (dtype.bits == 8 && dtype.code == CODE_E5M2_OLD) dtype.code = CODE_E5M2;
  return dtype;
}

int64_t mrpc_nbytes_of(mrpc_dialect dialect, mrpc_dtype dtype, const int64_t *shape, int32_t ndim) {
  const uint64_t most = INT64_MAX;
  uint64_t bits = (uint64_t)dtype.bits * dtype.lanes, all = bits, count = 1;
  int is_empty = 0;
  if (!bits) return -1;
  for (int32_t axis = 0; axis < ndim; ++axis) {
    if (shape[axis] < 0) return -1;
    if (!shape[axis]) is_empty = 1;
  }
  if (is_empty) return 0;
  for (int32_t axis = 0; axis < ndim; ++axis) {
    uint64_t length = (uint64_t)shape[axis];
    if (all > most / length) return -1;
    all *= length;
    count *= length;
  }
  /* the bool of TVM up to 0.22 takes a byte in both dialects */
  if (dialect == MRPC_LEGACY || (dtype.code == CODE_UINT && bits == 1)) {
    return (int64_t)(count * ((bits + 7) / 8));
  }
  return (int64_t)(all / 8 + (all % 8 != 0));
}

/* Framing */

int64_t mrpc_read_head(const uint8_t *in, size_t nbytes, int32_t *code, uint64_t *body, char *why) {
  *code = 0;
  *body = 0;
  if (nbytes < 8) return MRPC_PARTIAL;
  uint64_t length = mrpc_get_u64(in);
  if (!length) return 8;
  if (length < 4) {
    return FAIL(why, "a packet of %llu bytes; at least 4 are its code", (ull)length);
  }
  if (length > MRPC_MAX_PACKET) {
    return FAIL(why, "a packet of %llu bytes; at most %llu can be", (ull)length,
                (ull)MRPC_MAX_PACKET);
  }
  if (nbytes < MRPC_HEAD) return MRPC_PARTIAL;
  *code = get_i32(in + 8);
  *body = length - 4;
  return MRPC_HEAD;
}

/* Sequences, value by value. The functions return a negative result, or 0. */

typedef struct {
  mrpc_dialect dialect;
  const uint8_t *in;
  size_t at, end;
  uint64_t missing; /* bytes behind the end that are yet to come */
  int count, place;
  int is_pending;
  char *why;
} reader;

/* Whether so many bytes are there. */
static int need(const reader *from, uint64_t nbytes) {
  uint64_t there = from->end - from->at;
  if (nbytes <= there) return 0;
  mrpc_explain(from->why, "a packet ends early: %llu bytes expected at %llu, %llu there",
               (ull)nbytes, (ull)from->at, (ull)there);
  return nbytes - there <= from->missing ? MRPC_PARTIAL : MRPC_ERROR;
}

static int read_count(reader *from) {
  int failed = need(from, 4);
  if (failed) return failed;
  from->count = get_i32(from->in + from->at);
  if (from->count < 0 || from->count > MRPC_MAX_VALUES) {
    return FAIL(from->why, "a packed sequence of %d values; 0 to %d can be", from->count,
                MRPC_MAX_VALUES);
  }
  from->at += 4;
  from->place = 0;
  return 0;
}

static int read_codes(reader *from) {
  int failed = read_count(from);
  if (failed || from->dialect == MRPC_FFI) return failed;
  failed = need(from, 4 * (uint64_t)from->count);
  if (!failed) from->at += 4 * (size_t)from->count;
  return failed;
}

static int read_record(reader *from, mrpc_record *record) {
  enum { FIXED = 24 };
  int failed = need(from, FIXED);
  if (failed) return failed;
  const uint8_t *in = from->in + from->at;
  record->data = mrpc_get_u64(in);
  record->device.device_type = get_i32(in + 8);
  record->device.device_id = get_i32(in + 12);
  record->ndim = get_i32(in + 16);
  record->dtype.code = in[20];
  record->dtype.bits = in[21];
  record->dtype.lanes = (uint16_t)(in[22] | in[23] << 8);
  if (record->ndim < 0 || record->ndim > MRPC_MAX_NDIM) {
    return FAIL(from->why, "a tensor of %d dimensions; 0 to %d can be", record->ndim,
                MRPC_MAX_NDIM);
  }
  size_t tail = 8 * (size_t)record->ndim + 8;
  failed = need(from, FIXED + tail);
  if (failed) return failed;
  in += FIXED;
  for (int32_t axis = 0; axis < record->ndim; ++axis, in += 8) {
    record->shape[axis] = (int64_t)mrpc_get_u64(in);
    if (record->shape[axis] < 0) {
      return FAIL(from->why, "a tensor of which axis %d has a negative length", axis);
    }
  }
  record->byte_offset = mrpc_get_u64(in);
  if (!record->dtype.bits || !record->dtype.lanes) {
    return FAIL(from->why, "a tensor of elements of %d bits in %d lanes", record->dtype.bits,
                record->dtype.lanes);
  }
  if (from->dialect == MRPC_LEGACY) record->dtype = from_legacy(record->dtype);
  int64_t nbytes =
      mrpc_nbytes_of(from->dialect, record->dtype, record->shape, record->ndim);
  if (nbytes < 0) return FAIL(from->why, "a tensor of a shape that is beyond any memory");
  record->nbytes = (uint64_t)nbytes;
  from->at += FIXED + tail;
  return 0;
}

/* A text or bytes, of which a part may be missing if it is the last thing in the packet. */
static int read_text(reader *from, mrpc_value *value) {
  int failed = need(from, 8);
  if (failed) return failed;
  uint64_t nbytes = mrpc_get_u64(from->in + from->at);
  from->at += 8;
  size_t there = from->end - from->at;
  value->as.text.bytes = from->in + from->at;
  value->as.text.nbytes = nbytes;
  if (nbytes <= there) {
    from->at += (size_t)nbytes;
    return 0;
  }
  if (from->place + 1 < from->count || nbytes - there != from->missing) return need(from, nbytes);
  from->at = from->end;
  from->is_pending = 1;
  return 0;
}

/* The kind of value that a code of a dialect stands for; -1 if it is none. */
static int kind_of(mrpc_dialect dialect, uint32_t code) {
  static const uint8_t ffi[] = {MRPC_NULL,    MRPC_INT,   MRPC_BOOL,   MRPC_FLOAT,
                                MRPC_POINTER, MRPC_DTYPE, MRPC_DEVICE, MRPC_TENSOR,
                                MRPC_TEXT,    MRPC_BYTES};
  static const uint8_t legacy[] = {MRPC_INT,    MRPC_INT,    MRPC_FLOAT,  MRPC_POINTER, MRPC_NULL,
                                   MRPC_DTYPE,  MRPC_DEVICE, MRPC_TENSOR, MRPC_OBJECT,  MRPC_MODULE,
                                   MRPC_FUNCTION, MRPC_TEXT, MRPC_BYTES};
  if (dialect == MRPC_LEGACY) {
    if (code < sizeof legacy) return legacy[code];
    return code == MRPC_ARG_BOOL ? MRPC_BOOL : -1;
  }
  if (code < sizeof ffi) return ffi[code];
  if (code == MRPC_TYPE_FUNCTION) return MRPC_FUNCTION;
  if (code == MRPC_TYPE_MODULE) return MRPC_MODULE;
  if (code == MRPC_TYPE_SMALL_STR || code == MRPC_TYPE_STR) return MRPC_TEXT;
  if (code == MRPC_TYPE_SMALL_BYTES || code == MRPC_TYPE_BYTES) return MRPC_BYTES;
  /* a reference, whose index is another one in 0.21, which had fewer objects of its own */
  return code > MRPC_TYPE_MODULE && code < 128 ? MRPC_OBJECT : -1;
}

/* The type index that stands before the value itself, where one does; it may change the kind. */
static int read_inner(reader *from, uint32_t code, int *kind) {
  int is_legacy = from->dialect == MRPC_LEGACY;
  if (*kind != MRPC_OBJECT && (is_legacy || code < MRPC_TYPE_SMALL_STR)) return 0;
  if (*kind == MRPC_FUNCTION || *kind == MRPC_MODULE) return 0;
  int failed = need(from, 12);
  if (failed) return failed;
  uint32_t inner = mrpc_get_u32(from->in + from->at);
  from->at += 4;
  if (*kind == MRPC_OBJECT) {
    if (inner == (is_legacy ? (uint32_t)MRPC_LEGACY_OBJECT_REF : code)) return 0;
    return FAIL(from->why, "an object of type index %u where a reference was announced", inner);
  }
  if (inner != MRPC_TYPE_STR && inner != MRPC_TYPE_BYTES) {
    return FAIL(from->why, "an object of type index %u where a string was announced", inner);
  }
  *kind = inner == MRPC_TYPE_STR ? MRPC_TEXT : MRPC_BYTES;
  return 0;
}

static void read_word(reader *from, mrpc_value *value) {
  const uint8_t *in = from->in + from->at;
  uint64_t word = mrpc_get_u64(in);
  from->at += 8;
  switch (value->kind) {
    case MRPC_INT: value->as.integer = (int64_t)word; break;
    case MRPC_BOOL: value->as.integer = word != 0; break;
    case MRPC_FLOAT: memcpy(&value->as.number, &word, 8); break;
    case MRPC_DTYPE:
      value->as.dtype = (mrpc_dtype){in[0], in[1], (uint16_t)(in[2] | in[3] << 8)};
      if (from->dialect == MRPC_LEGACY) value->as.dtype = from_legacy(value->as.dtype);
      break;
    case MRPC_DEVICE: value->as.device = (mrpc_device){get_i32(in), get_i32(in + 4)}; break;
    default: value->as.handle = word;
  }
}

/* The next value; a tensor's record goes to `record`. */
static int read_value(reader *from, mrpc_value *value, mrpc_record *record) {
  int failed;
  uint32_t code;
  if (from->dialect == MRPC_LEGACY) { /* the codes were found to be there */
    code = mrpc_get_u32(from->in + 4 + 4 * (size_t)from->place);
  } else {
    failed = need(from, 4);
    if (failed) return failed;
    code = mrpc_get_u32(from->in + from->at);
    from->at += 4;
  }
  int kind = kind_of(from->dialect, code);
  if (kind < 0) {
    return FAIL(from->why, "a value of unknown type %s %d",
                from->dialect == MRPC_LEGACY ? "code" : "index", (int32_t)code);
  }
  failed = read_inner(from, code, &kind);
  if (failed) return failed;
  value->kind = (mrpc_kind)kind;
  value->as.record = record;
  if (kind == MRPC_TENSOR) {
    failed = read_record(from, record);
  } else if (kind == MRPC_TEXT || kind == MRPC_BYTES) {
    failed = read_text(from, value);
  } else if (kind != MRPC_NULL) {
    failed = need(from, 8);
    if (!failed) read_word(from, value);
  }
  from->place += !failed;
  return failed;
}

/* What is wrong with a sequence behind its last value, if anything is. */
static int read_end(const reader *from) {
  uint64_t rest = from->end - from->at + (from->is_pending ? 0 : from->missing);
  if (!rest) return 0;
  return FAIL(from->why, "%llu bytes are left over behind a packed sequence", (ull)rest);
}

int mrpc_count_values(const uint8_t *in, size_t nbytes, char *why) {
  reader from = {.in = in, .end = nbytes, .why = why};
  int failed = read_count(&from);
  return failed ? failed : from.count;
}

int64_t mrpc_read_values(mrpc_dialect dialect, const uint8_t *in, size_t nbytes, uint64_t missing,
                         mrpc_sequence *sequence, char *why) {
  reader from = {.dialect = dialect, .in = in, .end = nbytes, .missing = missing, .why = why};
  mrpc_record none;
  int tensors = 0;
  sequence->count = 0;
  sequence->is_pending = 0;
  int failed = read_codes(&from);
  while (!failed && from.place < from.count) {
    if (from.place >= sequence->most_values) {
      return FAIL(why, "a packed sequence of more than %d values", sequence->most_values);
    }
    int has_room = tensors < sequence->most_records;
    mrpc_value *value = sequence->values + from.place;
    failed = read_value(&from, value, has_room ? sequence->records + tensors : &none);
    if (failed || value->kind != MRPC_TENSOR) continue;
    if (!has_room) {
      return FAIL(why, "a packed sequence of more than %d tensors", sequence->most_records);
    }
    ++tensors;
  }
  if (!failed) failed = read_end(&from);
  if (failed) return failed;
  sequence->count = from.count;
  sequence->is_pending = from.is_pending;
  return (int64_t)nbytes;
}

int64_t mrpc_read_record(mrpc_dialect dialect, const uint8_t *in, size_t nbytes,
                         mrpc_record *record, char *why) {
  reader from = {
      .dialect = dialect, .in = in, .end = nbytes, .missing = UINT64_MAX, .why = why};
  int failed = read_record(&from, record);
  return failed ? failed : (int64_t)from.at;
}

/* Dialects */

static int body_of(int32_t code) {
#define ROW(code, name, body, answer, required, all, states) [code] = 1 + (body),
  static const uint8_t forms[] = {MRPC_REQUESTS(ROW)};
#undef ROW
  int is_known = code >= 0 && (size_t)code < sizeof forms && forms[code];
  return is_known ? forms[code] - 1 : MRPC_BODY_VALUES;
}

/* The kinds of the values that clients of TVM send with a request; returns how many those are. */
static int usual_of(int32_t code, unsigned kinds[4]) {
#define ROW(row, usual, first, second, third, fourth) {row, usual, {first, second, third, fourth}},
  static const struct {
    uint8_t code, usual;
    uint16_t kinds[4];
  } rows[] = {MRPC_ARGUMENTS(ROW)};
#undef ROW
  for (size_t row = 0; row < sizeof rows / sizeof *rows; ++row) {
    if (rows[row].code != code) continue;
    for (int place = 0; place < 4; ++place) kinds[place] = rows[row].kinds[place];
    return rows[row].usual;
  }
  return 0;
}

/* What a request is in a dialect, as bits. */
enum { READABLE = 1, NAMES_DEVICES = 2, USUAL = 4 };

static int reading_of(mrpc_dialect dialect, int32_t code, const uint8_t *in, size_t nbytes,
                      uint64_t missing) {
  reader from = {.dialect = dialect, .in = in, .end = nbytes, .missing = missing};
  unsigned kinds[4];
  int usual = usual_of(code, kinds), result = READABLE | NAMES_DEVICES | USUAL;
  if (read_codes(&from)) return 0;
  if (from.count < usual) result &= ~USUAL;
  while (from.place < from.count) {
    mrpc_value value;
    mrpc_record record;
    int place = from.place;
    if (read_value(&from, &value, &record)) return 0;
    /* in the wrong dialect, the type of one of several devices is 0 */
    if (value.kind == MRPC_DEVICE && value.as.device.device_type <= 0) result &= ~NAMES_DEVICES;
    if (place < usual && !(kinds[place] & 1u << value.kind)) result &= ~USUAL;
  }
  return read_end(&from) ? 0 : result;
}

/* Whether a sequence begins with the codes that a legacy client sends for this request. */
static int has_legacy_codes(int32_t code, const uint8_t *in, size_t nbytes) {
  unsigned kinds[4];
  int usual = usual_of(code, kinds);
  if (nbytes < 4 + 4 * (size_t)usual) return 0;
  for (int place = 0; place < usual; ++place) {
    uint32_t word = mrpc_get_u32(in + 4 + 4 * (size_t)place);
    int kind = kind_of(MRPC_LEGACY, word);
    if (kind < 0 || word == MRPC_ARG_UINT || !(kinds[place] & 1u << kind)) return 0;
  }
  return 1;
}

/* Whether a sequence that cannot be read may be one of a legacy client. */
static int looks_legacy(int32_t code, const uint8_t *in, size_t nbytes) {
  if (mrpc_get_u32(in + 4) != MRPC_ARG_STR) {
    unsigned kinds[4];
    return usual_of(code, kinds) > 1 && has_legacy_codes(code, in, nbytes);
  }
  if (nbytes < 9) return 1;
  uint8_t behind = in[8]; /* both numbers are of one byte */
  for (size_t place = 9; place < 12 && place < nbytes; ++place) {
    if (in[place]) return 1;
  }
  return behind != MRPC_TYPE_STR && behind != MRPC_TYPE_BYTES;
}

int mrpc_dialect_of(int32_t code, const uint8_t *body, size_t nbytes, uint64_t missing,
                    mrpc_dialect *likely, char *why) {
  int form = body_of(code);
  uint64_t start = form == MRPC_BODY_CALL ? 8 : 0;
  *likely = MRPC_FFI;
  if (form == MRPC_BODY_EMPTY || form == MRPC_BODY_COPY || nbytes < 8) return MRPC_UNKNOWN;
  if (form == MRPC_BODY_VERSION) {
    start = mrpc_get_u64(body);
    if (start > nbytes) return MRPC_UNKNOWN;
    start += 8;
  }
  if (nbytes < start + 8) return MRPC_UNKNOWN;
  body += start;
  nbytes -= (size_t)start;
  /* nearly every client's first words, of which there is no need to think twice */
  int is_plain = code == MRPC_CODE_GET_GLOBAL_FUNC && !missing &&
                 mrpc_get_u32(body + 4) == MRPC_TYPE_RAW_STR;
  int ffi = reading_of(MRPC_FFI, code, body, nbytes, missing);
  int legacy = is_plain ? 0 : reading_of(MRPC_LEGACY, code, body, nbytes, missing);
  if (!ffi && !legacy && !missing) {
    const char *name = mrpc_code_name(code);
    if (looks_legacy(code, body, nbytes)) *likely = MRPC_LEGACY;
    return FAIL(why,
                "%s makes sense in no dialect, neither in that of TVM 0.8 to 0.20 nor in that of 0.21 "
                "and later; see whether client and network leave the bytes as they are",
                name ? name : "a packet of unknown code");
  }
  if (ffi && legacy && (ffi ^ legacy) & NAMES_DEVICES) {
    if (ffi & NAMES_DEVICES) legacy = 0;
    else ffi = 0;
  }
  if (ffi && legacy) {
    ffi &= USUAL;
    if (!(legacy & USUAL) || !has_legacy_codes(code, body, nbytes)) legacy = 0;
  }
  if (!ffi == !legacy) return MRPC_UNKNOWN;
  return ffi ? MRPC_FFI : MRPC_LEGACY;
}
