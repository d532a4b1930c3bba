/* One session's answering end: takes a packet, does what it asks for, answers; until Shutdown.
 * Whatever a request raises is its answer; only what makes the stream unreadable ends the session. */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#include "serving.h"

enum { FEW = 32, QUICK_NS = 100 * 1000 };

/* A request in hand. */
typedef struct {
  int32_t code;
  const uint8_t *body;
  size_t nbytes;      /* that are here */
  uint8_t *collected; /* a body that was too long for the buffer */
} request;

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
  mrpc_value few_values[FEW];
  mrpc_record few_records[FEW];
  TVMFFIAny few_arguments[FEW];
} serving;


/* Copies of this process: a kernel that forked and whose child returned must not answer. */

static void make_mark(serving *self) {
  self->process = getpid();
#ifdef MADV_WIPEONFORK
  long page = sysconf(_SC_PAGESIZE);
  uint8_t *mark = mmap(NULL, (size_t)page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (mark != MAP_FAILED && madvise(mark, (size_t)page, MADV_WIPEONFORK) == 0) {
    *mark = 1;
    self->mark = mark;
  }
#endif
}

static void leave_if_copied(const serving *self) {
  if (self->mark != NULL ? *self->mark == 0 : getpid() != self->process) _exit(127);
}

/* Waiting */

static void set_timeout(int descriptor, int option, double seconds) {
  struct timeval limit;
  if (seconds > 1e8) seconds = 1e8;
  limit.tv_sec = (time_t)seconds;
  limit.tv_usec = (suseconds_t)((seconds - (double)limit.tv_sec) * 1e6);
  if (seconds > 0 && limit.tv_sec == 0 && limit.tv_usec == 0) limit.tv_usec = 1;
  setsockopt(descriptor, SOL_SOCKET, option, &limit, sizeof(limit));
}

static void limit_waits(const serving *self, double receive_s) {
  if (!self->settings->is_socket) return;
  set_timeout(self->settings->in, SO_RCVTIMEO, receive_s);
  set_timeout(self->settings->out, SO_SNDTIMEO, self->settings->send_s);
}

static int64_t now_ns(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

/* Answers */

size_t mrpc_last_packet(const mrpc_progress *progress, const char *text, uint8_t *out) {
  mrpc_dialect dialect = progress->dialect ? MRPC_LEGACY : MRPC_FFI;
  size_t nbytes = strlen(text), most = MRPC_LAST / 2, head;
  if (nbytes > most) {
    nbytes = most;
    while (nbytes > 0 && (text[nbytes] & 0xC0) == 0x80) nbytes--; /* whole characters */
  }
  head = mrpc_exception(dialect, out, nbytes);
  memcpy(out + head, text, nbytes);
  mrpc_clean_text(out + head, nbytes);
  return head + nbytes;
}

static int answer_error(serving *self) {
  uint8_t head[MRPC_ANSWER];
  size_t nbytes;
  char *text = mrpc_take_error(&nbytes);
  size_t size = mrpc_exception(self->dialect, head, nbytes);
  int status;
  mrpc_clean_text((uint8_t *)text, nbytes);
  status = mrpc_answer_long(self->channel, head, size, (const uint8_t *)text, nbytes);
  free(text);
  return status;
}

static int protocol_error(const char *why) {
  return mrpc_raise("RemoteProtocolError", "%s", why);
}

/* An answer that the dialect may have no form for. */
static int send_answer(serving *self, const uint8_t *packet, size_t nbytes) {
  if (nbytes > 0) return mrpc_answer(self->channel, packet, nbytes);
  return mrpc_raise("LocalProtocolError",
                    "TVM up to 0.20 has no such data type; send the bytes through a view");
}

static int answer_void(serving *self) {
  uint8_t packet[MRPC_ANSWER];
  return mrpc_answer(self->channel, packet, mrpc_return_void(self->dialect, packet));
}

static int answer_value(serving *self, const mrpc_value *value) {
  uint8_t packet[MRPC_ANSWER];
  return send_answer(self, packet, mrpc_return_value(self->dialect, packet, value));
}

static int answer_pointer(serving *self, uint64_t handle) {
  mrpc_value value;
  value.kind = MRPC_POINTER;
  value.as.handle = handle;
  return answer_value(self, &value);
}

/* Values */

/* The sequence's own memory: the session's for a few values, else the heap's. */
static int room_for(serving *self, const uint8_t *in, size_t nbytes, mrpc_sequence *sequence) {
  char why[MRPC_WHY];
  int count = mrpc_count_values(in, nbytes, why);
  if (count < 0) return protocol_error(why);
  memset(sequence, 0, sizeof(*sequence));
  sequence->values = self->few_values;
  sequence->records = self->few_records;
  sequence->most_values = sequence->most_records = FEW;
  if ((size_t)count > nbytes / 4) count = (int)(nbytes / 4);
  if (count > FEW) {
    sequence->values = calloc((size_t)count, sizeof(mrpc_value));
    sequence->records = calloc((size_t)count, sizeof(mrpc_record));
    sequence->most_values = sequence->most_records = count;
    if (sequence->values == NULL || sequence->records == NULL) {
      free(sequence->values);
      free(sequence->records);
      return mrpc_raise("MemoryError", "no memory for %d values", count);
    }
  }
  return 0;
}

static void end_sequence(serving *self, mrpc_sequence *sequence) {
  if (sequence->values == self->few_values) return;
  free(sequence->values);
  free(sequence->records);
}

static int read_values(serving *self, const uint8_t *in, size_t nbytes, uint64_t missing,
                       mrpc_sequence *sequence) {
  char why[MRPC_WHY];
  int64_t taken;
  if (room_for(self, in, nbytes, sequence) != 0) return -1;
  taken = mrpc_read_values(self->dialect, in, nbytes, missing, sequence, why);
  if (taken >= 0) return 0;
  end_sequence(self, sequence);
  if (taken == MRPC_PARTIAL) snprintf(why, sizeof(why), "a packet ends within a value");
  return protocol_error(why);
}

static TVMFFIObject *object_of(uint64_t number, mrpc_kind kind) {
  const mrpc_handle *entry = mrpc_handle_find(number);
  TVMFFIObject *object = entry != NULL ? entry->target : NULL;
  int wanted = kind == MRPC_FUNCTION ? MRPC_TYPE_FUNCTION : MRPC_TYPE_MODULE;
  if (entry == NULL) {
    mrpc_raise("HandleError", "handle %#llx names nothing here; it was never given out, or freed",
               (unsigned long long)number);
    return NULL;
  }
  if (entry->kind == MRPC_HANDLE_MEMORY ||
      (kind != MRPC_OBJECT && object->type_index != wanted)) {
    mrpc_raise("TypeError", "handle %llu is of %s, not of a %s", (unsigned long long)number,
               entry->kind == MRPC_HANDLE_MEMORY ? "memory" : "another object",
               kind == MRPC_FUNCTION ? "function" : kind == MRPC_MODULE ? "module" : "object");
    return NULL;
  }
  return object;
}

static int check_device(const mrpc_device *device) {
  if (device->device_type == MRPC_DEVICE_CPU) return 0;
  return mrpc_raise("DeviceError",
                    "nobody drives devices of kind %d on this server; expected the CPU, which is 1",
                    (int)device->device_type);
}

/* The memory that a record names, with so many bytes from the record's offset on. */
static mrpc_memory *memory_of(const mrpc_record *record, uint64_t nbytes) {
  const mrpc_handle *entry = mrpc_handle_find(record->data);
  mrpc_memory *memory;
  if (check_device(&record->device) != 0) return NULL;
  if (entry != NULL && entry->kind == MRPC_HANDLE_RETURNED) entry = mrpc_handle_find(entry->memory);
  if (entry == NULL || entry->kind != MRPC_HANDLE_MEMORY) {
    mrpc_raise(entry == NULL ? "HandleError" : "DeviceError",
               entry == NULL ? "handle %#llx names nothing here; it was never given out, or freed"
                             : "handle %llu is of an object, not of memory",
               (unsigned long long)record->data);
    return NULL;
  }
  memory = entry->target;
  if (record->byte_offset > memory->nbytes || nbytes > memory->nbytes - record->byte_offset) {
    mrpc_raise("ValueError",
               "%llu bytes from offset %llu on reach beyond memory of %llu bytes",
               (unsigned long long)nbytes, (unsigned long long)record->byte_offset,
               (unsigned long long)memory->nbytes);
    return NULL;
  }
  return memory;
}

static int own(TVMFFIAny *argument, TVMFFIObject *object) {
  if (object == NULL) return -1;
  argument->type_index = object->type_index;
  argument->as.v_obj = object;
  return 0;
}

/* A text as compiled code takes it: characters with a NUL at the end. */
static int text_argument(TVMFFIAny *argument, const mrpc_value *value) {
  size_t nbytes = (size_t)value->as.text.nbytes;
  TVMFFIObject *text = mrpc_text_new(MRPC_TYPE_STR, value->as.text.bytes, nbytes);
  if (own(argument, text) != 0) return -1;
  return 0;
}

/* An argument of a function; objects are owned until `drop_arguments`. */
static int make_argument(TVMFFIAny *argument, const mrpc_value *value) {
  mrpc_memory *memory;
  TVMFFIObject *object;
  memset(argument, 0, sizeof(*argument));
  switch (value->kind) {
    case MRPC_NULL:
      return 0;
    case MRPC_INT:
    case MRPC_BOOL:
      argument->type_index = value->kind == MRPC_INT ? MRPC_TYPE_INT : MRPC_TYPE_BOOL;
      argument->as.v_int64 = value->as.integer;
      return 0;
    case MRPC_FLOAT:
      argument->type_index = MRPC_TYPE_FLOAT;
      argument->as.v_float64 = value->as.number;
      return 0;
    case MRPC_POINTER:
      argument->type_index = MRPC_TYPE_OPAQUE_PTR;
      argument->as.v_ptr = (void *)(uintptr_t)value->as.handle;
      return 0;
    case MRPC_DTYPE:
      argument->type_index = MRPC_TYPE_DATA_TYPE;
      argument->as.v_dtype = value->as.dtype;
      return 0;
    case MRPC_DEVICE:
      argument->type_index = MRPC_TYPE_DEVICE;
      argument->as.v_device = value->as.device;
      return 0;
    case MRPC_TENSOR:
      memory = memory_of(value->as.record, value->as.record->nbytes);
      return memory == NULL ? -1 : own(argument, mrpc_tensor_in(memory, value->as.record));
    case MRPC_TEXT:
      return text_argument(argument, value);
    case MRPC_BYTES:
      return own(argument, mrpc_text_new(MRPC_TYPE_BYTES, value->as.text.bytes,
                                         (size_t)value->as.text.nbytes));
    case MRPC_FUNCTION:
    case MRPC_MODULE:
    case MRPC_OBJECT:
      object = object_of(value->as.handle, value->kind);
      if (object != NULL) mrpc_retain(object);
      return own(argument, object);
  }
  return protocol_error("a value of unknown kind");
}

static void drop_arguments(TVMFFIAny *arguments, int count) {
  while (count-- > 0) mrpc_drop(&arguments[count]);
}

/* Calls a function with the values of a sequence; the result is owned. */
static int call_with(serving *self, TVMFFIObject *function, const mrpc_sequence *sequence,
                     TVMFFIAny *result) {
  TVMFFIAny *arguments = self->few_arguments;
  int made = 0, status = 0;
  if (sequence->count > FEW) {
    arguments = calloc((size_t)sequence->count, sizeof(*arguments));
    if (arguments == NULL) return mrpc_raise("MemoryError", "no memory for the arguments");
  }
  while (made < sequence->count && status == 0) {
    status = make_argument(&arguments[made], &sequence->values[made]);
    if (status == 0) made++;
  }
  if (status == 0) status = mrpc_call(function, arguments, made, result);
  leave_if_copied(self);
  drop_arguments(arguments, made);
  if (arguments != self->few_arguments) free(arguments);
  return status;
}

/* Results */

static int answer_content(serving *self, const TVMFFIAny *result, mrpc_kind kind) {
  uint8_t head[MRPC_ANSWER];
  TVMFFIByteArray content;
  mrpc_value value;
  size_t size;
  if (mrpc_content_of(result, &content) != 0) {
    return mrpc_raise("TypeError", "a function returned a text that is none");
  }
  value.kind = kind;
  value.as.text.bytes = (const uint8_t *)content.data;
  value.as.text.nbytes = content.size;
  size = mrpc_return_result(self->dialect, head, &value, 0, 0);
  if (size == 0) {
    return mrpc_raise("LocalProtocolError",
                      "a text with a NUL cannot be sent: TVM ends a text there; send it as bytes");
  }
  return mrpc_answer_long(self->channel, head, size, value.as.text.bytes, content.size);
}

static int answer_tensor(serving *self, TVMFFIAny *result) {
  uint8_t packet[MRPC_ANSWER];
  TVMFFIObject *object = result->as.v_obj;
  DLTensor *tensor = &((mrpc_tensor *)object)->tensor;
  mrpc_memory *memory = mrpc_memory_of(object);
  mrpc_record record;
  mrpc_value value;
  uint64_t data, handle;
  if (memory == NULL) return -1;
  if (tensor->ndim < 0 || tensor->ndim > MRPC_MAX_NDIM) {
    mrpc_memory_release(memory);
    return mrpc_raise("ValueError", "a function returned a tensor of %d dimensions; 0 to %d can be",
                      (int)tensor->ndim, MRPC_MAX_NDIM);
  }
  record.device = tensor->device;
  record.ndim = tensor->ndim;
  record.dtype = tensor->dtype;
  memcpy(record.shape, tensor->shape, (size_t)tensor->ndim * sizeof(int64_t));
  record.byte_offset = (uint64_t)((uint8_t *)tensor->data - memory->data) + tensor->byte_offset;
  data = mrpc_handle_put(memory, MRPC_HANDLE_MEMORY);
  if (data == 0) return -1;
  mrpc_retain(object);
  handle = mrpc_handle_put(object, MRPC_HANDLE_RETURNED);
  if (handle == 0) return -1;
  mrpc_handle_find(handle)->memory = data;
  record.data = data;
  value.kind = MRPC_TENSOR;
  value.as.record = &record;
  if (send_answer(self, packet, mrpc_return_result(self->dialect, packet, &value, handle, 0)) == 0) {
    return 0;
  }
  mrpc_handle_free(handle);
  return -1;
}

static int answer_object(serving *self, TVMFFIAny *result) {
  uint8_t packet[MRPC_ANSWER];
  int32_t index = result->type_index;
  mrpc_value value;
  value.kind = index == MRPC_TYPE_FUNCTION ? MRPC_FUNCTION
               : index == MRPC_TYPE_MODULE ? MRPC_MODULE
                                           : MRPC_OBJECT;
  mrpc_retain(result->as.v_obj);
  value.as.handle = mrpc_handle_put(result->as.v_obj, MRPC_HANDLE_OBJECT);
  if (value.as.handle == 0) return -1;
  return mrpc_answer(self->channel, packet,
                     mrpc_return_result(self->dialect, packet, &value, 0, MRPC_TYPE_SHAPE));
}

static int answer_file(serving *self, const TVMFFIAny *result) {
  uint8_t head[MRPC_ANSWER];
  const mrpc_file *file = (const mrpc_file *)result->as.v_obj;
  mrpc_value value;
  value.kind = MRPC_BYTES;
  value.as.text.bytes = NULL;
  value.as.text.nbytes = file->nbytes;
  return mrpc_answer_file(self->channel, head,
                          mrpc_return_result(self->dialect, head, &value, 0, 0), file->file,
                          file->nbytes);
}

/* The answer to a call; -1 after an error was raised, or when the client is gone. */
static int answer_result(serving *self, TVMFFIAny *result) {
  uint8_t packet[MRPC_ANSWER];
  mrpc_value value;
  switch (result->type_index) {
    case MRPC_TYPE_NONE:
      value.kind = MRPC_NULL;
      break;
    case MRPC_TYPE_INT:
    case MRPC_TYPE_BOOL:
      value.kind = result->type_index == MRPC_TYPE_INT ? MRPC_INT : MRPC_BOOL;
      value.as.integer = result->as.v_int64;
      break;
    case MRPC_TYPE_FLOAT:
      value.kind = MRPC_FLOAT;
      value.as.number = result->as.v_float64;
      break;
    case MRPC_TYPE_OPAQUE_PTR:
      value.kind = MRPC_POINTER;
      value.as.handle = (uint64_t)(uintptr_t)result->as.v_ptr;
      break;
    case MRPC_TYPE_DATA_TYPE:
      value.kind = MRPC_DTYPE;
      value.as.dtype = result->as.v_dtype;
      break;
    case MRPC_TYPE_DEVICE:
      value.kind = MRPC_DEVICE;
      value.as.device = result->as.v_device;
      break;
    case MRPC_TYPE_RAW_STR:
    case MRPC_TYPE_SMALL_STR:
    case MRPC_TYPE_STR:
      return answer_content(self, result, MRPC_TEXT);
    case MRPC_TYPE_BYTE_ARRAY_PTR:
    case MRPC_TYPE_SMALL_BYTES:
    case MRPC_TYPE_BYTES:
      return answer_content(self, result, MRPC_BYTES);
    case MRPC_TYPE_TENSOR:
      return answer_tensor(self, result);
    case MRPC_TYPE_FILE:
      return answer_file(self, result);
    default:
      if (result->type_index >= MRPC_TYPE_OBJECT) return answer_object(self, result);
      return mrpc_raise("TypeError", "a function returned a value of kind %d, which cannot be sent",
                        (int)result->type_index);
  }
  return send_answer(self, packet, mrpc_return_result(self->dialect, packet, &value, 0, 0));
}

/* Requests with a form of their own */

static int init_server(serving *self, const request *asked) {
  uint8_t packet[MRPC_ANSWER];
  mrpc_sequence constructor;
  uint64_t length;
  int status;
  if (asked->nbytes < 8) return protocol_error("InitServer without a version");
  length = mrpc_get_u64(asked->body);
  if (length > asked->nbytes - 8) return protocol_error("InitServer with a version that is cut off");
  if (length != strlen(MRPC_PROTOCOL_VERSION) ||
      memcmp(asked->body + 8, MRPC_PROTOCOL_VERSION, (size_t)length) != 0) {
    self->dialect = MRPC_LEGACY; /* which clients of TVM 0.7 read, too */
    return mrpc_raise("RemoteProtocolError",
                      "the client speaks version '%.*s' of the protocol; this server speaks '%s'",
                      (int)(length < 32 ? length : 32), (const char *)asked->body + 8,
                      MRPC_PROTOCOL_VERSION);
  }
  if (read_values(self, asked->body + 8 + length, asked->nbytes - 8 - (size_t)length, 0,
                  &constructor) != 0) {
    return -1;
  }
  status = constructor.count ? mrpc_relay(self->channel, &constructor, &self->is_over) : 0;
  end_sequence(self, &constructor);
  if (status != 0 || self->is_over) return status;
  return mrpc_answer(self->channel, packet, mrpc_return_nothing(packet));
}

static int call_func(serving *self, const request *asked) {
  TVMFFIAny result;
  mrpc_sequence sequence;
  mrpc_handle *entry;
  TVMFFIObject *function;
  uint64_t handle;
  int status, is_timed;
  int64_t began = 0;
  if (asked->nbytes < 12) {
    return protocol_error("a call without a function or without arguments");
  }
  handle = mrpc_get_u64(asked->body);
  function = object_of(handle, MRPC_FUNCTION);
  if (function == NULL) return -1;
  entry = mrpc_handle_find(handle);
  /* Answers wait for others only as long as quick functions take. */
  if (self->channel->held && !entry->is_quick && mrpc_send_held(self->channel) != 0) return -1;
  is_timed = self->channel->begin < self->channel->end;
  if (read_values(self, asked->body + 8, asked->nbytes - 8, 0, &sequence) != 0) return -1;
  memset(&result, 0, sizeof(result));
  mrpc_retain(function);
  self->channel->progress->progress = MRPC_CALLING;
  if (is_timed) began = now_ns();
  status = call_with(self, function, &sequence, &result);
  if (is_timed && (entry = mrpc_handle_find(handle)) != NULL) {
    entry->is_quick = now_ns() - began < QUICK_NS;
  }
  mrpc_release(function);
  end_sequence(self, &sequence);
  if (status == 0) status = answer_result(self, &result);
  mrpc_drop(&result);
  return status;
}

/* An upload whose content has not arrived: it goes to its file as it comes. 1 if it was one. */
static int upload_in_parts(serving *self, const request *asked, int *status) {
  mrpc_channel *channel = self->channel;
  mrpc_sequence sequence;
  mrpc_sink *sink;
  TVMFFIByteArray name;
  uint8_t part[MRPC_BUFFER];
  size_t here;
  if (asked->nbytes < 12 || object_of(mrpc_get_u64(asked->body), MRPC_FUNCTION) != mrpc_upload_function) {
    free(mrpc_take_error(&here)); /* a handle of no function is refused by the usual way */
    return 0;
  }
  if (read_values(self, asked->body + 8, asked->nbytes - 8, channel->missing, &sequence) != 0) {
    free(mrpc_take_error(&here));
    return 0;
  }
  if (!sequence.is_pending || sequence.count != 2 || sequence.values[0].kind != MRPC_TEXT) {
    end_sequence(self, &sequence);
    return 0;
  }
  name.data = (const char *)sequence.values[0].as.text.bytes;
  name.size = (size_t)sequence.values[0].as.text.nbytes;
  here = (size_t)(asked->body + asked->nbytes - sequence.values[1].as.text.bytes);
  sink = calloc(1, sizeof(*sink));
  *status = sink == NULL ? mrpc_raise("MemoryError", "no memory for an upload")
                         : mrpc_sink_open(sink, &name, sequence.values[1].as.text.nbytes);
  if (*status == 0) {
    *status = mrpc_sink_write(sink, sequence.values[1].as.text.bytes, here);
    while (*status == 0 && channel->missing > 0) {
      size_t next = channel->missing < sizeof(part) ? (size_t)channel->missing : sizeof(part);
      *status = mrpc_receive_to(channel, part, next);
      if (*status == 0) *status = mrpc_sink_write(sink, part, next);
    }
    if (*status == 0) {
      *status = mrpc_sink_finish(sink);
    } else {
      mrpc_sink_abort(sink);
    }
  }
  free(sink);
  end_sequence(self, &sequence);
  if (*status == 0) {
    TVMFFIAny none;
    memset(&none, 0, sizeof(none));
    *status = answer_result(self, &none);
  }
  return 1;
}

/* The record and the count of a copy; returns where its content begins, or -1. */
static int64_t read_copy(serving *self, const request *asked, mrpc_record *record,
                         uint64_t *nbytes) {
  char why[MRPC_WHY];
  int64_t taken = mrpc_read_record(self->dialect, asked->body, asked->nbytes, record, why);
  if (taken < 0 || asked->nbytes - (size_t)taken < 8) {
    return protocol_error(taken == MRPC_ERROR ? why : "a copy whose description is cut off");
  }
  *nbytes = mrpc_get_u64(asked->body + taken);
  return taken + 8;
}

static int copy_from_remote(serving *self, const request *asked) {
  uint8_t head[MRPC_ANSWER];
  mrpc_record record;
  mrpc_memory *memory;
  uint8_t *content, *swapped = NULL;
  uint64_t nbytes;
  int64_t taken = read_copy(self, asked, &record, &nbytes);
  int status;
  if (taken < 0) return -1;
  if ((size_t)taken != asked->nbytes || self->channel->missing) {
    return protocol_error("a copy to the client with bytes behind what it holds");
  }
  memory = memory_of(&record, nbytes);
  if (memory == NULL) return -1;
  content = memory->data + record.byte_offset;
  if (mrpc_is_big_endian() && nbytes > 0) {
    swapped = malloc((size_t)nbytes);
    if (swapped == NULL) return mrpc_raise("MemoryError", "no memory to change the bytes' order in");
    memcpy(swapped, content, (size_t)nbytes);
    if (mrpc_swap(swapped, nbytes, record.dtype) != 0) {
      free(swapped);
      return -1;
    }
    content = swapped;
  }
  status = mrpc_answer_long(self->channel, head, mrpc_copy_ack(head, nbytes), content, nbytes);
  free(swapped);
  return status;
}

static int copy_to_remote(serving *self, const request *asked) {
  mrpc_channel *channel = self->channel;
  mrpc_record record;
  mrpc_memory *memory;
  uint8_t *target;
  uint64_t nbytes;
  int64_t taken = read_copy(self, asked, &record, &nbytes);
  size_t here;
  if (taken < 0) return -1;
  here = asked->nbytes - (size_t)taken;
  if (here + channel->missing != nbytes) {
    return mrpc_raise("RemoteProtocolError", "a copy of %llu bytes in a packet with %llu",
                      (unsigned long long)nbytes, here + (unsigned long long)channel->missing);
  }
  memory = memory_of(&record, nbytes);
  if (memory == NULL) return -1;
  target = memory->data + record.byte_offset;
  memcpy(target, asked->body + taken, here);
  if (channel->missing && mrpc_receive_to(channel, target + here, channel->missing) != 0) return -1;
  if (mrpc_swap(target, nbytes, record.dtype) != 0) return -1;
  return answer_void(self);
}

/* Requests of values */

#define KIND(kind) (1u << (kind))

static int get_global_func(serving *self, const mrpc_value *values) {
  TVMFFIObject *function =
      mrpc_global_find((const char *)values[0].as.text.bytes, (size_t)values[0].as.text.nbytes);
  uint64_t handle = 0;
  if (function != NULL) {
    mrpc_retain(function);
    handle = mrpc_handle_put(function, MRPC_HANDLE_OBJECT);
    if (handle == 0) return -1;
  }
  return answer_pointer(self, handle);
}

static int free_handle(serving *self, uint64_t number) {
  const mrpc_handle *entry = mrpc_handle_find(number);
  if (entry != NULL && entry->kind == MRPC_HANDLE_MEMORY) {
    /* TVM 0.21 to 0.23 frees a returned tensor by its memory's handle. */
    uint64_t returned = mrpc_handle_of_returned(number);
    if (returned != 0) number = returned;
  }
  mrpc_handle_free(number);
  return answer_void(self);
}

static int get_attr(serving *self, const mrpc_device *device, int64_t attribute) {
  mrpc_value value;
  value.kind = MRPC_NULL;
  if (attribute == 0) {
    value.kind = MRPC_INT;
    value.as.integer = device->device_type == MRPC_DEVICE_CPU;
  } else if (check_device(device) != 0) {
    return -1;
  } else if (attribute == 14) { /* all of its memory */
    value.kind = MRPC_INT;
    value.as.integer = (int64_t)sysconf(_SC_PAGESIZE) * (int64_t)sysconf(_SC_PHYS_PAGES);
  }
  return answer_value(self, &value);
}

static int alloc(serving *self, uint64_t nbytes, uint64_t chosen) {
  mrpc_memory *memory = mrpc_memory_new(nbytes);
  uint64_t handle;
  if (memory == NULL) return -1;
  handle = chosen ? mrpc_handle_put_as(chosen, memory, MRPC_HANDLE_MEMORY)
                  : mrpc_handle_put(memory, MRPC_HANDLE_MEMORY);
  return handle ? answer_pointer(self, handle) : -1;
}

static int alloc_data(serving *self, const mrpc_value *values) {
  if (check_device(&values[0].as.device) != 0) return -1;
  if (values[1].as.integer < 0) {
    return mrpc_raise("ValueError", "memory of %lld bytes; expected 0 or more",
                      (long long)values[1].as.integer);
  }
  return alloc(self, (uint64_t)values[1].as.integer, 0);
}

static int alloc_with_scope(serving *self, const mrpc_value *values) {
  const mrpc_record *record = values[0].as.record;
  const mrpc_value *scope = &values[1];
  /* Whole bytes for each element, of which clients of TVM up to 0.20 read all. */
  int64_t nbytes = mrpc_nbytes_of(MRPC_LEGACY, record->dtype, record->shape, record->ndim);
  if (check_device(&record->device) != 0) return -1;
  if (scope->kind == MRPC_TEXT && scope->as.text.nbytes > 0 &&
      (scope->as.text.nbytes != 6 || memcmp(scope->as.text.bytes, "global", 6) != 0)) {
    return mrpc_raise("DeviceError",
                      "Device does not support allocate data space with specified memory scope: %.*s",
                      (int)(scope->as.text.nbytes < 80 ? scope->as.text.nbytes : 80),
                      (const char *)scope->as.text.bytes);
  }
  if (nbytes < 0) return mrpc_raise("ValueError", "a tensor of more bytes than can be counted");
  return alloc(self, (uint64_t)nbytes, values[2].as.handle);
}

static int free_data(serving *self, uint64_t number) {
  const mrpc_handle *entry = mrpc_handle_find(number);
  if (entry != NULL && entry->kind != MRPC_HANDLE_MEMORY) {
    return mrpc_raise("DeviceError", "handle %llu is of an object, not of memory",
                      (unsigned long long)number);
  }
  mrpc_handle_free(number);
  return answer_void(self);
}

static int copy_among(serving *self, const mrpc_record *source, const mrpc_record *target) {
  mrpc_memory *from, *to;
  if (source->nbytes != target->nbytes) {
    return mrpc_raise("ValueError",
                      "a copy of %llu bytes to a tensor of %llu; they have to be of one size",
                      (unsigned long long)source->nbytes, (unsigned long long)target->nbytes);
  }
  from = memory_of(source, source->nbytes);
  to = from == NULL ? NULL : memory_of(target, target->nbytes);
  if (to == NULL) return -1;
  memmove(to->data + target->byte_offset, from->data + source->byte_offset, (size_t)source->nbytes);
  return answer_void(self);
}

/* The kinds that a value of a request may have, as bits. An integer may stand for a pointer, as may
 * nothing; and a bool is an integer. */
static unsigned kinds_of(int32_t code, int place) {
  unsigned kinds[4] = {0, 0, 0, 0};
  switch (code) {
#define ROW(number, values, first, second, third, fourth) \
  case number:                                            \
    kinds[0] = first;                                     \
    kinds[1] = second;                                    \
    kinds[2] = third;                                     \
    kinds[3] = fourth;                                    \
    break;
    MRPC_ARGUMENTS(ROW)
#undef ROW
  }
  if (kinds[place] & KIND(MRPC_POINTER)) kinds[place] |= KIND(MRPC_INT) | KIND(MRPC_NULL);
  if (kinds[place] & KIND(MRPC_INT)) kinds[place] |= KIND(MRPC_BOOL);
  return kinds[place];
}

/* Checks the values of a request, and fills up what was left out. */
static int fit(int32_t code, int required, int all, const mrpc_sequence *sequence,
               mrpc_value fitted[4]) {
  int place;
  if (sequence->count < required) {
    return mrpc_raise("RemoteProtocolError",
                      "%s with %d values, which it does not take; %d are needed",
                      mrpc_code_name(code), sequence->count, required);
  }
  for (place = 0; place < all; place++) {
    if (place < sequence->count) {
      fitted[place] = sequence->values[place];
    } else {
      fitted[place].kind = MRPC_NULL;
    }
    if ((kinds_of(code, place) & KIND(fitted[place].kind)) == 0 &&
        !(fitted[place].kind == MRPC_NULL && place >= required)) {
      return mrpc_raise("RemoteProtocolError", "%s with a value of another kind in place %d",
                        mrpc_code_name(code), place + 1);
    }
    if (fitted[place].kind == MRPC_NULL) fitted[place].as.handle = 0;
  }
  return 0;
}

static int answer_values(serving *self, int32_t code, const mrpc_value *values) {
  switch (code) {
    case MRPC_CODE_GET_GLOBAL_FUNC:
      return get_global_func(self, values);
    case MRPC_CODE_FREE_HANDLE:
      return free_handle(self, values[0].as.handle);
    case MRPC_CODE_DEV_GET_ATTR:
      return get_attr(self, &values[0].as.device, values[1].as.integer);
    case MRPC_CODE_DEV_ALLOC_DATA:
      return alloc_data(self, values);
    case MRPC_CODE_DEV_ALLOC_DATA_WITH_SCOPE:
      return alloc_with_scope(self, values);
    case MRPC_CODE_DEV_FREE_DATA:
      return free_data(self, values[1].as.handle);
    case MRPC_CODE_COPY_AMONG_REMOTE:
      return copy_among(self, values[0].as.record, values[1].as.record);
    default:
      break;
  }
  if (check_device(&values[0].as.device) != 0) return -1;
  switch (code) {
    case MRPC_CODE_DEV_CREATE_STREAM:
      return answer_pointer(self, 0);
    case MRPC_CODE_DEV_GET_CURRENT_STREAM:
      return answer_pointer(self, self->stream);
    case MRPC_CODE_DEV_SET_STREAM:
      self->stream = values[1].as.handle;
      return answer_void(self);
    default: /* selecting a device, waiting for a stream, ending one: nothing to do on a CPU */
      return answer_void(self);
  }
}

static int syscall_of_values(serving *self, const request *asked, int required, int all) {
  mrpc_value fitted[4];
  mrpc_sequence sequence;
  int status;
  if (read_values(self, asked->body, asked->nbytes, 0, &sequence) != 0) return -1;
  status = fit(asked->code, required, all, &sequence, fitted);
  if (status == 0) status = answer_values(self, asked->code, fitted);
  end_sequence(self, &sequence);
  return status;
}

/* Order, dialect, dispatch */

typedef struct {
  int body, required, all, states;
} row;

static row row_of(int32_t code) {
  row found = {-1, 0, 0, 0};
  switch (code) {
#define ROW(number, name, form, answer, least, most, legal) \
  case number:                                              \
    found.body = form;                                      \
    found.required = least;                                 \
    found.all = most;                                       \
    found.states = legal;                                   \
    break;
    MRPC_REQUESTS(ROW)
#undef ROW
  }
  return found;
}

static int illegal(const serving *self, int32_t code) {
  const char *name = mrpc_code_name(code);
  char unnamed[40];
  if (name == NULL) snprintf(unnamed, sizeof(unnamed), "of unknown code %d", (int)code);
  return mrpc_raise("RemoteProtocolError", "packet %s in a session that is %s; legal now: %s",
                    name ? name : unnamed, self->state == MRPC_STATE_OPENED ? "opened" : "ready",
                    self->state == MRPC_STATE_OPENED ? "SHUTDOWN, INIT_SERVER"
                                                     : "any request but INIT_SERVER");
}

static int learn_dialect(serving *self, const request *asked) {
  char why[MRPC_WHY];
  mrpc_dialect likely = MRPC_FFI;
  int found;
  if (self->is_dialect_known) return 0;
  found = mrpc_dialect_of(asked->code, asked->body, asked->nbytes, self->channel->missing, &likely,
                          why);
  if (found == MRPC_ERROR) {
    self->dialect = likely; /* for this answer; the next request may tell more */
    return protocol_error(why);
  }
  if (found != MRPC_UNKNOWN) {
    self->dialect = (mrpc_dialect)found;
    self->is_dialect_known = 1;
    self->channel->progress->dialect = self->dialect == MRPC_LEGACY;
  }
  return 0;
}

/* The rest of a body that does not fit the buffer, as far as it really comes. */
static int collect(serving *self, request *asked) {
  mrpc_channel *channel = self->channel;
  size_t have = asked->nbytes, room = 0;
  uint8_t *body = NULL;
  if (!channel->missing) return 0;
  if ((int64_t)(have + channel->missing) > MRPC_MAX_COLLECTED) {
    return mrpc_raise("RemoteProtocolError", "a request of %llu bytes; at most %lld can be",
                      have + (unsigned long long)channel->missing, MRPC_MAX_COLLECTED);
  }
  while (body == NULL || channel->missing > 0) {
    uint64_t part = channel->missing;
    uint8_t *larger;
    room = body == NULL ? have + MRPC_BUFFER : 2 * room;
    if (room > have + part) room = (size_t)(have + part);
    larger = realloc(body, room + 1);
    if (larger == NULL) {
      return mrpc_raise("MemoryError", "no memory for a request of %llu bytes",
                        have + (unsigned long long)part);
    }
    if (body == NULL) memcpy(larger, asked->body, have);
    body = larger;
    asked->collected = body;
    if (part > room - have) part = room - have;
    if (mrpc_receive_to(channel, body + have, part) != 0) return -1;
    have += (size_t)part;
  }
  asked->body = body;
  asked->nbytes = have;
  return 0;
}

static int dispatch(serving *self, request *asked, const row *form) {
  int status;
  if (learn_dialect(self, asked) != 0) return -1;
  if (asked->code == MRPC_CODE_INIT_SERVER && self->state == MRPC_STATE_READY) {
    return protocol_error("the session is open already; InitServer comes once");
  }
  if (form->body == MRPC_BODY_COPY) {
    return asked->code == MRPC_CODE_COPY_TO_REMOTE ? copy_to_remote(self, asked)
                                                   : copy_from_remote(self, asked);
  }
  if (form->body == MRPC_BODY_CALL && self->channel->missing &&
      upload_in_parts(self, asked, &status)) {
    return status;
  }
  if (collect(self, asked) != 0) return -1;
  if (learn_dialect(self, asked) != 0) return -1; /* which may need all of it */
  if (form->body == MRPC_BODY_CALL) return call_func(self, asked);
  if (form->body == MRPC_BODY_VALUES) {
    return syscall_of_values(self, asked, form->required, form->all);
  }
  status = init_server(self, asked);
  if (status == 0) {
    self->state = MRPC_STATE_READY;
    self->channel->progress->stage = MRPC_OPEN;
    limit_waits(self, self->settings->idle_s);
  }
  return status;
}

/* One whole packet, or the first part of a long one. */
static void answer_packet(serving *self, request *asked) {
  mrpc_channel *channel = self->channel;
  row form = row_of(asked->code);
  if ((form.states & self->state) == 0) {
    learn_dialect(self, asked);
    illegal(self, asked->code);
    answer_error(self);
    self->is_over = 1;
    self->status = 1;
    return;
  }
  if (asked->code == MRPC_CODE_SHUTDOWN) {
    self->is_over = 1;
    return;
  }
  channel->progress->progress = MRPC_CALLING;
  if (dispatch(self, asked, &form) != 0 && !channel->is_broken && !self->is_over) {
    if ((int64_t)channel->missing > MRPC_MAX_COLLECTED) { /* too long to be passed over */
      self->is_over = 1;
      self->status = 1;
    }
    if (answer_error(self) == 0 && !self->is_over) mrpc_skip_missing(channel);
  }
  leave_if_copied(self);
  free(asked->collected);
}

/* The next packet of what has come: 1 if there is one, 0 if more has to come, -1 if it is none. */
static int next_packet(serving *self, request *asked) {
  mrpc_channel *channel = self->channel;
  char why[MRPC_WHY];
  uint64_t body;
  for (;;) {
    size_t have = channel->end - channel->begin, wanted;
    const uint8_t *in = channel->buffer + channel->begin;
    int64_t taken = mrpc_read_head(in, have, &asked->code, &body, why);
    if (taken == MRPC_PARTIAL) return 0;
    if (taken < 0) {
      protocol_error(why);
      return -1;
    }
    if (body == 0 && asked->code == 0 && taken == 8) { /* an empty packet */
      channel->begin += 8;
      continue;
    }
    have -= (size_t)taken;
    wanted = body > MRPC_BUFFER - MRPC_HEAD ? MRPC_BUFFER - MRPC_HEAD : (size_t)body;
    if (asked->code == MRPC_CODE_COPY_TO_REMOTE && wanted > MRPC_FIRST_PART && body > wanted) {
      wanted = MRPC_FIRST_PART;
    }
    if (have < wanted) return 0;
    asked->body = in + taken;
    asked->nbytes = have < body ? have : (size_t)body;
    asked->collected = NULL;
    channel->missing = body - asked->nbytes;
    channel->begin += (size_t)taken + asked->nbytes;
    return 1;
  }
}

static void serve_packets(serving *self) {
  mrpc_channel *channel = self->channel;
  request asked;
  while (!self->is_over && !channel->is_broken) {
    int status = next_packet(self, &asked);
    if (status > 0) {
      answer_packet(self, &asked);
      continue;
    }
    if (status < 0) {
      answer_error(self);
      mrpc_send_held(channel);
      self->status = 1;
      return;
    }
    if (mrpc_send_held(channel) != 0) return;
    channel->progress->progress = MRPC_IDLE;
    if (mrpc_receive(channel) == 0) {
      self->status = channel->begin != channel->end; /* within a packet */
      return;
    }
  }
  mrpc_send_held(channel);
}

/* The end of a session whose client asked nothing for too long. */
static void tell_late(serving *self) {
  char text[300];
  uint8_t packet[300 + MRPC_ANSWER];
  mrpc_progress *progress = self->channel->progress;
  size_t nbytes, sent = 0;
  if (progress->progress != MRPC_IDLE) return;
  if (self->state == MRPC_STATE_OPENED) {
    snprintf(text, sizeof(text),
             "RPCSessionTimeoutError: Your session was not opened within %g s of this server's "
             "answer; InitServer has to come at once, as the device is yours from then on",
             self->settings->opening_s);
  } else {
    snprintf(text, sizeof(text),
             "RPCSessionTimeoutError: Your session was idle for %g s, which is this server's "
             "limit; it can be started with a longer --idle-timeout, or 0 for none",
             self->settings->idle_s);
  }
  progress->stage = MRPC_WAS_IDLE;
  nbytes = mrpc_last_packet(progress, text, packet);
  while (sent < nbytes) {
    ssize_t part = write(self->channel->out, packet + sent, nbytes - sent);
    if (part <= 0) break;
    sent += (size_t)part;
  }
  if (self->settings->is_socket) shutdown(self->settings->out, SHUT_WR);
}

int mrpc_serve(const mrpc_session *session) {
  static mrpc_channel channel; /* one for each process */
  static serving self;
  double opening_s = session->opening_s;
  memset(&self, 0, sizeof(self));
  memset(&channel, 0, offsetof(mrpc_channel, buffer));
  self.settings = session;
  self.channel = &channel;
  self.dialect = MRPC_FFI;
  self.state = MRPC_STATE_OPENED;
  channel.in = session->in;
  channel.out = session->out;
  channel.progress = session->progress;
  signal(SIGPIPE, SIG_IGN);
  setvbuf(stdout, NULL, _IOLBF, 0); /* what a kernel printed is there when it crashes */
  make_mark(&self);
  if (session->idle_s > 0 && session->idle_s < opening_s) opening_s = session->idle_s;
  limit_waits(&self, opening_s);
  if (session->early_nbytes > MRPC_BUFFER) return 1;
  if (session->early_nbytes > 0) memcpy(channel.buffer, session->early, session->early_nbytes);
  channel.end = session->early_nbytes;
  if (mrpc_register_functions(session->directory, session->lifeline) != 0 ||
      mrpc_load_libraries(session->libraries) != 0) {
    answer_error(&self);
    mrpc_send_held(&channel);
    return 1;
  }
  leave_if_copied(&self);
  channel.progress->stage = MRPC_SERVING;
  serve_packets(&self);
  if (channel.is_late) tell_late(&self);
  return channel.is_late ? 0 : self.status;
}
