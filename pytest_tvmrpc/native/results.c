/* From what a function returned to the packet that answers a call. */
#include <string.h>

#include "requests.h"

/* An answer that the dialect may have no form for. */
int mrpc_send_answer(mrpc_serving *self, const uint8_t *packet, size_t nbytes) {
  if (nbytes > 0) return mrpc_answer(self->channel, packet, nbytes);
  return mrpc_raise("LocalProtocolError",
                    "TVM up to 0.20 has no such data type; send the bytes through a view");
}

int mrpc_answer_void(mrpc_serving *self) {
  uint8_t packet[MRPC_ANSWER];
  return mrpc_answer(self->channel, packet, mrpc_return_void(self->dialect, packet));
}

int mrpc_answer_value(mrpc_serving *self, const mrpc_value *value) {
  uint8_t packet[MRPC_ANSWER];
  return mrpc_send_answer(self, packet, mrpc_return_value(self->dialect, packet, value));
}

int mrpc_answer_pointer(mrpc_serving *self, uint64_t handle) {
  mrpc_value value;
  value.kind = MRPC_POINTER;
  value.as.handle = handle;
  return mrpc_answer_value(self, &value);
}

/* Results */

static int answer_content(mrpc_serving *self, const TVMFFIAny *result, mrpc_kind kind) {
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

static int answer_tensor(mrpc_serving *self, TVMFFIAny *result) {
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
  if (handle == 0) {
    mrpc_handle_free(data);
    return -1;
  }
  mrpc_handle_find(handle)->memory = data;
  record.data = data;
  value.kind = MRPC_TENSOR;
  value.as.record = &record;
  if (mrpc_send_answer(self, packet, mrpc_return_result(self->dialect, packet, &value, handle, 0)) == 0) {
    return 0;
  }
  mrpc_handle_free(handle);
  return -1;
}

static int answer_object(mrpc_serving *self, TVMFFIAny *result) {
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

static int answer_file(mrpc_serving *self, const TVMFFIAny *result) {
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
int mrpc_answer_result(mrpc_serving *self, TVMFFIAny *result) {
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
  return mrpc_send_answer(self, packet, mrpc_return_result(self->dialect, packet, &value, 0, 0));
}
