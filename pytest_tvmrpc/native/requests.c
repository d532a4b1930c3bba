/* What is done for each request. */
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "objects.h"
#include "requests.h"

enum { QUICK_NS = 100 * 1000 };

static int64_t now_ns(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

/* Requests with a form of their own */

int mrpc_init_server(mrpc_serving *self, const mrpc_request *asked) {
  uint8_t packet[MRPC_ANSWER];
  mrpc_sequence constructor;
  uint64_t length;
  int status;
  if (asked->nbytes < 8) return mrpc_protocol_error("InitServer without a version");
  length = mrpc_get_u64(asked->body);
  if (length > asked->nbytes - 8) return mrpc_protocol_error("InitServer with a version that is cut off");
  if (length != strlen(MRPC_PROTOCOL_VERSION) ||
      memcmp(asked->body + 8, MRPC_PROTOCOL_VERSION, (size_t)length) != 0) {
    self->dialect = MRPC_LEGACY; /* which clients of TVM 0.7 read, too */
    return mrpc_raise("RemoteProtocolError",
                      "the client speaks version '%.*s' of the protocol; this server speaks '%s'",
                      (int)(length < 32 ? length : 32), (const char *)asked->body + 8,
                      MRPC_PROTOCOL_VERSION);
  }
  if (mrpc_take_values(self, asked->body + 8 + length, asked->nbytes - 8 - (size_t)length, 0,
                  &constructor) != 0) {
    return -1;
  }
  status = constructor.count ? mrpc_relay(self->channel, &constructor, self->settings->idle_s, &self->is_over) : 0;
  mrpc_end_values(self, &constructor);
  if (status != 0 || self->is_over) return status;
  return mrpc_answer(self->channel, packet, mrpc_return_nothing(packet));
}

int mrpc_call_func(mrpc_serving *self, const mrpc_request *asked) {
  TVMFFIAny result;
  mrpc_sequence sequence;
  mrpc_handle *entry;
  TVMFFIObject *function;
  uint64_t handle;
  int status, is_timed;
  int64_t began = 0;
  if (asked->nbytes < 12) {
    return mrpc_protocol_error("a call without a function or without arguments");
  }
  handle = mrpc_get_u64(asked->body);
  function = mrpc_object_of(handle, MRPC_FUNCTION);
  if (function == NULL) return -1;
  entry = mrpc_handle_find(handle);
  /* Answers wait for others only as long as quick functions take. */
  if (self->channel->held && !entry->is_quick && mrpc_send_held(self->channel) != 0) return -1;
  is_timed = self->channel->begin < self->channel->end;
  if (mrpc_take_values(self, asked->body + 8, asked->nbytes - 8, 0, &sequence) != 0) return -1;
  memset(&result, 0, sizeof(result));
  mrpc_retain(function);
  self->channel->progress->progress = MRPC_CALLING;
  if (is_timed) began = now_ns();
  status = mrpc_call_with(self, function, &sequence, &result);
  if (is_timed && (entry = mrpc_handle_find(handle)) != NULL) {
    entry->is_quick = now_ns() - began < QUICK_NS;
  }
  mrpc_release(function);
  mrpc_end_values(self, &sequence);
  if (status == 0) status = mrpc_answer_result(self, &result);
  mrpc_drop(&result);
  return status;
}

/* An upload whose content has not arrived: it goes to its file as it comes. 1 if it was one. */
int mrpc_upload_in_parts(mrpc_serving *self, const mrpc_request *asked, int *status) {
  mrpc_channel *channel = self->channel;
  mrpc_sequence sequence;
  mrpc_sink *sink;
  TVMFFIByteArray name;
  uint8_t part[MRPC_BUFFER];
  size_t here;
  if (asked->nbytes < 12 || mrpc_object_of(mrpc_get_u64(asked->body), MRPC_FUNCTION) != mrpc_upload_function) {
    free(mrpc_take_error(&here)); /* a handle of no function is refused by the usual way */
    return 0;
  }
  if (mrpc_take_values(self, asked->body + 8, asked->nbytes - 8, channel->missing, &sequence) != 0) {
    free(mrpc_take_error(&here));
    return 0;
  }
  if (!sequence.is_pending || sequence.count != 2 || sequence.values[0].kind != MRPC_TEXT) {
    mrpc_end_values(self, &sequence);
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
  mrpc_end_values(self, &sequence);
  if (*status == 0) {
    TVMFFIAny none;
    memset(&none, 0, sizeof(none));
    *status = mrpc_answer_result(self, &none);
  }
  return 1;
}

/* The record and the count of a copy; returns where its content begins, or -1. */
static int64_t read_copy(mrpc_serving *self, const mrpc_request *asked, mrpc_record *record,
                         uint64_t *nbytes) {
  char why[MRPC_WHY];
  int64_t taken = mrpc_read_record(self->dialect, asked->body, asked->nbytes, record, why);
  if (taken < 0 || asked->nbytes - (size_t)taken < 8) {
    return mrpc_protocol_error(taken == MRPC_ERROR ? why : "a copy whose description is cut off");
  }
  *nbytes = mrpc_get_u64(asked->body + taken);
  return taken + 8;
}

int mrpc_copy_from_remote(mrpc_serving *self, const mrpc_request *asked) {
  uint8_t head[MRPC_ANSWER];
  mrpc_record record;
  mrpc_memory *memory;
  uint8_t *content, *swapped = NULL;
  uint64_t nbytes;
  int64_t taken = read_copy(self, asked, &record, &nbytes);
  int status;
  if (taken < 0) return -1;
  if ((size_t)taken != asked->nbytes || self->channel->missing) {
    return mrpc_protocol_error("a copy to the client with bytes behind what it holds");
  }
  memory = mrpc_memory_named(&record, nbytes);
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

int mrpc_copy_to_remote(mrpc_serving *self, const mrpc_request *asked) {
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
  memory = mrpc_memory_named(&record, nbytes);
  if (memory == NULL) return -1;
  target = memory->data + record.byte_offset;
  memcpy(target, asked->body + taken, here);
  if (channel->missing && mrpc_receive_to(channel, target + here, channel->missing) != 0) return -1;
  if (mrpc_swap(target, nbytes, record.dtype) != 0) return -1;
  return mrpc_answer_void(self);
}

/* Requests of values */

#define KIND(kind) (1u << (kind))

static int get_global_func(mrpc_serving *self, const mrpc_value *values) {
  TVMFFIObject *function =
      mrpc_global_get((const char *)values[0].as.text.bytes, (size_t)values[0].as.text.nbytes);
  uint64_t handle = 0;
  if (function != NULL) {
    handle = mrpc_handle_put(function, MRPC_HANDLE_OBJECT);
    if (handle == 0) return -1;
  }
  return mrpc_answer_pointer(self, handle);
}

static int free_handle(mrpc_serving *self, uint64_t number) {
  const mrpc_handle *entry = mrpc_handle_find(number);
  if (entry != NULL && entry->kind == MRPC_HANDLE_MEMORY) {
    /* TVM 0.21 to 0.23 frees a returned tensor by its memory's handle. */
    uint64_t returned = mrpc_handle_of_returned(number);
    if (returned != 0) number = returned;
  }
  mrpc_handle_free(number);
  return mrpc_answer_void(self);
}

static int get_attr(mrpc_serving *self, const mrpc_device *device, int64_t attribute) {
  mrpc_value value;
  value.kind = MRPC_NULL;
  if (attribute == 0) {
    value.kind = MRPC_INT;
    value.as.integer = device->device_type == MRPC_DEVICE_CPU;
  } else if (mrpc_check_device(device->device_type) != 0) {
    return -1;
  } else if (attribute == 14) { /* all of its memory */
    value.kind = MRPC_INT;
    value.as.integer = (int64_t)sysconf(_SC_PAGESIZE) * (int64_t)sysconf(_SC_PHYS_PAGES);
  }
  return mrpc_answer_value(self, &value);
}

static int alloc(mrpc_serving *self, uint64_t nbytes, uint64_t chosen) {
  mrpc_memory *memory = mrpc_memory_new(nbytes);
  uint64_t handle;
  if (memory == NULL) return -1;
  handle = chosen ? mrpc_handle_put_as(chosen, memory, MRPC_HANDLE_MEMORY)
                  : mrpc_handle_put(memory, MRPC_HANDLE_MEMORY);
  return handle ? mrpc_answer_pointer(self, handle) : -1;
}

static int alloc_data(mrpc_serving *self, const mrpc_value *values) {
  if (mrpc_check_device(values[0].as.device.device_type) != 0) return -1;
  if (values[1].as.integer < 0) {
    return mrpc_raise("ValueError", "memory of %lld bytes; expected 0 or more",
                      (long long)values[1].as.integer);
  }
  return alloc(self, (uint64_t)values[1].as.integer, 0);
}

static int alloc_with_scope(mrpc_serving *self, const mrpc_value *values) {
  const mrpc_record *record = values[0].as.record;
  const mrpc_value *scope = &values[1];
  /* Whole bytes for each element, of which clients of TVM up to 0.20 read all. */
  int64_t nbytes = mrpc_nbytes_of(MRPC_LEGACY, record->dtype, record->shape, record->ndim);
  if (mrpc_check_device(record->device.device_type) != 0) return -1;
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

static int free_data(mrpc_serving *self, uint64_t number) {
  const mrpc_handle *entry = mrpc_handle_find(number);
  if (entry != NULL && entry->kind != MRPC_HANDLE_MEMORY) {
    return mrpc_raise("DeviceError", "handle %llu is of an object, not of memory",
                      (unsigned long long)number);
  }
  mrpc_handle_free(number);
  return mrpc_answer_void(self);
}

static int copy_among(mrpc_serving *self, const mrpc_record *source, const mrpc_record *target) {
  mrpc_memory *from, *to;
  if (source->nbytes != target->nbytes) {
    return mrpc_raise("ValueError",
                      "a copy of %llu bytes to a tensor of %llu; they have to be of one size",
                      (unsigned long long)source->nbytes, (unsigned long long)target->nbytes);
  }
  from = mrpc_memory_named(source, source->nbytes);
  to = from == NULL ? NULL : mrpc_memory_named(target, target->nbytes);
  if (to == NULL) return -1;
  memmove(to->data + target->byte_offset, from->data + source->byte_offset, (size_t)source->nbytes);
  return mrpc_answer_void(self);
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

static int answer_values(mrpc_serving *self, int32_t code, const mrpc_value *values) {
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
  if (mrpc_check_device(values[0].as.device.device_type) != 0) return -1;
  switch (code) {
    case MRPC_CODE_DEV_CREATE_STREAM:
      return mrpc_answer_pointer(self, 0);
    case MRPC_CODE_DEV_GET_CURRENT_STREAM:
      return mrpc_answer_pointer(self, self->stream);
    case MRPC_CODE_DEV_SET_STREAM:
      self->stream = values[1].as.handle;
      return mrpc_answer_void(self);
    default: /* selecting a device, waiting for a stream, ending one: nothing to do on a CPU */
      return mrpc_answer_void(self);
  }
}

int mrpc_ask_values(mrpc_serving *self, const mrpc_request *asked, int required, int all) {
  mrpc_value fitted[4];
  mrpc_sequence sequence;
  int status;
  if (mrpc_take_values(self, asked->body, asked->nbytes, 0, &sequence) != 0) return -1;
  status = fit(asked->code, required, all, &sequence, fitted);
  if (status == 0) status = answer_values(self, asked->code, fitted);
  mrpc_end_values(self, &sequence);
  return status;
}
