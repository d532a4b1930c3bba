/* From the values of a packet to the arguments of a function. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "objects.h"
#include "requests.h"

int mrpc_protocol_error(const char *why) {
  return mrpc_raise("RemoteProtocolError", "%s", why);
}

/* Values */

/* The sequence's own memory: the session's for a few values, else the heap's. */
static int room_for(mrpc_serving *self, const uint8_t *in, size_t nbytes, mrpc_sequence *sequence) {
  char why[MRPC_WHY];
  int count = mrpc_count_values(in, nbytes, why);
  if (count < 0) return mrpc_protocol_error(why);
  memset(sequence, 0, sizeof(*sequence));
  sequence->values = self->few_values;
  sequence->records = self->few_records;
  sequence->most_values = sequence->most_records = MRPC_FEW;
  if ((size_t)count > nbytes / 4) count = (int)(nbytes / 4);
  if (count > MRPC_FEW) {
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

void mrpc_end_values(mrpc_serving *self, mrpc_sequence *sequence) {
  if (sequence->values == self->few_values) return;
  free(sequence->values);
  free(sequence->records);
}

int mrpc_take_values(mrpc_serving *self, const uint8_t *in, size_t nbytes, uint64_t missing,
                       mrpc_sequence *sequence) {
  char why[MRPC_WHY];
  int64_t taken;
  if (room_for(self, in, nbytes, sequence) != 0) return -1;
  taken = mrpc_read_values(self->dialect, in, nbytes, missing, sequence, why);
  if (taken >= 0) return 0;
  mrpc_end_values(self, sequence);
  if (taken == MRPC_PARTIAL) snprintf(why, sizeof(why), "a packet ends within a value");
  return mrpc_protocol_error(why);
}

TVMFFIObject *mrpc_object_of(uint64_t number, mrpc_kind kind) {
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

/* The memory that a record names, with so many bytes from the record's offset on. */
mrpc_memory *mrpc_memory_named(const mrpc_record *record, uint64_t nbytes) {
  const mrpc_handle *entry = mrpc_handle_find(record->data);
  mrpc_memory *memory;
  if (mrpc_check_device(record->device.device_type) != 0) return NULL;
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

static int pointer_argument(TVMFFIAny *argument, uint64_t address) {
  if ((uintptr_t)address != address)
    return mrpc_raise("OverflowError",
                      "the pointer 0x%llx has more than the %d bits of a pointer on this machine",
                      (unsigned long long)address, (int)(8 * sizeof(void *)));
  argument->type_index = MRPC_TYPE_OPAQUE_PTR;
  argument->as.v_ptr = (void *)(uintptr_t)address;
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
      return pointer_argument(argument, value->as.handle);
    case MRPC_DTYPE:
      argument->type_index = MRPC_TYPE_DATA_TYPE;
      argument->as.v_dtype = value->as.dtype;
      return 0;
    case MRPC_DEVICE:
      argument->type_index = MRPC_TYPE_DEVICE;
      argument->as.v_device = value->as.device;
      return 0;
    case MRPC_TENSOR:
      memory = mrpc_memory_named(value->as.record, value->as.record->nbytes);
      return memory == NULL ? -1 : own(argument, mrpc_tensor_in(memory, value->as.record));
    case MRPC_TEXT:
      return text_argument(argument, value);
    case MRPC_BYTES:
      return own(argument, mrpc_text_new(MRPC_TYPE_BYTES, value->as.text.bytes,
                                         (size_t)value->as.text.nbytes));
    case MRPC_FUNCTION:
    case MRPC_MODULE:
    case MRPC_OBJECT:
      object = mrpc_object_of(value->as.handle, value->kind);
      if (object != NULL) mrpc_retain(object);
      return own(argument, object);
  }
  return mrpc_protocol_error("a value of unknown kind");
}

static void drop_arguments(TVMFFIAny *arguments, int count) {
  while (count-- > 0) mrpc_drop(&arguments[count]);
}

/* Calls a function with the values of a sequence; the result is owned. */
int mrpc_call_with(mrpc_serving *self, TVMFFIObject *function, const mrpc_sequence *sequence,
                     TVMFFIAny *result) {
  TVMFFIAny *arguments = self->few_arguments;
  int made = 0, status = 0;
  if (sequence->count > MRPC_FEW) {
    arguments = calloc((size_t)sequence->count, sizeof(*arguments));
    if (arguments == NULL) return mrpc_raise("MemoryError", "no memory for the arguments");
  }
  while (made < sequence->count && status == 0) {
    status = make_argument(&arguments[made], &sequence->values[made]);
    if (status == 0) made++;
  }
  if (status == 0) status = mrpc_call(function, arguments, made, result);
  mrpc_leave_if_copied(self);
  drop_arguments(arguments, made);
  if (arguments != self->few_arguments) free(arguments);
  return status;
}
