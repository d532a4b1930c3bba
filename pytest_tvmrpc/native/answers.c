/* What this side answers, as bytes. */
#include "wire_parts.h"

#include <string.h>

static uint8_t *add_u32(uint8_t *out, uint32_t number) {
  mrpc_put_u32(out, number);
  return out + 4;
}

static uint8_t *add_u64(uint8_t *out, uint64_t number) {
  mrpc_put_u64(out, number);
  return out + 8;
}

/* 0, or -1 if there was no such type. */
static int to_legacy(mrpc_dtype *dtype) {
  if (dtype->code < CODE_BOOL || dtype->code >= CODE_CUSTOM) return 0;
  if (dtype->bits != 8) return -1;
  if (dtype->code == CODE_BOOL && dtype->lanes == 1) {
    dtype->code = CODE_UINT;
    dtype->bits = 1;
  } else if (dtype->code == CODE_E4M3) {
    dtype->code = CODE_BOOL;
  } else if (dtype->code == CODE_E5M2) {
    dtype->code = CODE_E5M2_OLD;
  } else {
    return -1;
  }
  return 0;
}

/* The codes of both dialects for the kinds of values, in their order. Booleans are integers to a
 * legacy client of up to 0.17; tensors of kind 7 are accepted by clients of every version. */
static const uint8_t codes_of[2][13] = {
    {MRPC_TYPE_NONE, MRPC_TYPE_INT, MRPC_TYPE_BOOL, MRPC_TYPE_FLOAT, MRPC_TYPE_OPAQUE_PTR,
     MRPC_TYPE_DATA_TYPE, MRPC_TYPE_DEVICE, MRPC_TYPE_DL_TENSOR_PTR, MRPC_TYPE_RAW_STR,
     MRPC_TYPE_BYTE_ARRAY_PTR, MRPC_TYPE_FUNCTION, MRPC_TYPE_MODULE, MRPC_TYPE_SHAPE},
    {MRPC_ARG_NULL, MRPC_ARG_INT, MRPC_ARG_INT, MRPC_ARG_FLOAT, MRPC_ARG_HANDLE,
     MRPC_ARG_DATA_TYPE, MRPC_ARG_DEVICE, MRPC_ARG_DL_TENSOR, MRPC_ARG_STR, MRPC_ARG_BYTES,
     MRPC_ARG_FUNCTION, MRPC_ARG_MODULE, MRPC_ARG_OBJECT}};

/* Completes a packet that goes up to `end`, and then on by so many bytes of content. */
static size_t finish(uint8_t *out, const uint8_t *end, int32_t code, uint64_t content) {
  size_t nbytes = (size_t)(end - out);
  mrpc_put_u64(out, nbytes - 8 + content);
  mrpc_put_u32(out + 8, (uint32_t)code);
  return nbytes;
}

static uint8_t *add_dtype(uint8_t *out, mrpc_dtype dtype) {
  out[0] = dtype.code;
  out[1] = dtype.bits;
  out[2] = (uint8_t)dtype.lanes;
  out[3] = (uint8_t)(dtype.lanes >> 8);
  return out + 4;
}

/* A value without its code, and without the content of a text; NULL if the dialect has it not. */
static uint8_t *add_value(mrpc_dialect dialect, uint8_t *out, const mrpc_value *value) {
  uint64_t word;
  mrpc_dtype dtype;
  const mrpc_record *record = value->as.record;
  switch (value->kind) {
    case MRPC_NULL: return out;
    case MRPC_INT:
    case MRPC_BOOL: return add_u64(out, (uint64_t)value->as.integer);
    case MRPC_FLOAT: memcpy(&word, &value->as.number, 8); return add_u64(out, word);
    case MRPC_DTYPE:
      dtype = value->as.dtype;
      if (dialect == MRPC_LEGACY && to_legacy(&dtype)) return NULL;
      return add_u32(add_dtype(out, dtype), 0);
    case MRPC_DEVICE:
      out = add_u32(out, (uint32_t)value->as.device.device_type);
      return add_u32(out, (uint32_t)value->as.device.device_id);
    case MRPC_TEXT:
    case MRPC_BYTES: return add_u64(out, value->as.text.nbytes);
    case MRPC_TENSOR:
      dtype = record->dtype;
      if (dialect == MRPC_LEGACY && to_legacy(&dtype)) return NULL;
      out = add_u64(out, record->data);
      out = add_u32(out, (uint32_t)record->device.device_type);
      out = add_u32(out, (uint32_t)record->device.device_id);
      out = add_u32(out, (uint32_t)record->ndim);
      out = add_dtype(out, dtype);
      for (int axis = 0; axis < record->ndim; ++axis) {
        out = add_u64(out, (uint64_t)record->shape[axis]);
      }
      return add_u64(out, record->byte_offset);
    default: return add_u64(out, value->as.handle);
  }
}

static int has_nul(const mrpc_value *text) {
  return text->as.text.nbytes && memchr(text->as.text.bytes, 0, (size_t)text->as.text.nbytes);
}

size_t mrpc_return_nothing(uint8_t *out) {
  return finish(out, add_u32(out + MRPC_HEAD, 0), MRPC_CODE_RETURN, 0);
}

size_t mrpc_return_void(mrpc_dialect dialect, uint8_t *out) {
  uint8_t *end = add_u32(add_u32(out + MRPC_HEAD, 1), codes_of[dialect][MRPC_NULL]);
  return finish(out, end, MRPC_CODE_RETURN, 0);
}

size_t mrpc_return_value(mrpc_dialect dialect, uint8_t *out, const mrpc_value *value) {
  uint8_t *end = add_u32(add_u32(out + MRPC_HEAD, 1), codes_of[dialect][value->kind]);
  end = add_value(dialect, end, value);
  if (end && value->kind == MRPC_TEXT) {
    uint64_t nbytes = value->as.text.nbytes;
    if (nbytes > MRPC_ANSWER - (uint64_t)(end - out) || has_nul(value)) return 0;
    if (nbytes) memcpy(end, value->as.text.bytes, (size_t)nbytes);
    end += nbytes;
  }
  return end ? finish(out, end, MRPC_CODE_RETURN, 0) : 0;
}

size_t mrpc_return_result(mrpc_dialect dialect, uint8_t *out, const mrpc_value *value,
                          uint64_t tensor, int32_t type_index) {
  int is_text = value->kind == MRPC_TEXT, is_bytes = value->kind == MRPC_BYTES;
  int is_tensor = value->kind == MRPC_TENSOR;
  uint32_t code = codes_of[dialect][value->kind], kind = code;
  uint32_t pointer = codes_of[dialect][MRPC_POINTER];
  uint64_t content = is_text || is_bytes ? value->as.text.nbytes : 0;
  int is_whole = is_text && has_nul(value); /* which only an object keeps */
  if (is_whole && dialect == MRPC_LEGACY) return 0;
  if (value->kind > MRPC_BYTES) code = pointer;
  if (dialect == MRPC_FFI) {
    if (value->kind == MRPC_OBJECT) kind = (uint32_t)type_index;
    if (is_text) kind = content <= 7 && !is_whole ? MRPC_TYPE_SMALL_STR : MRPC_TYPE_STR;
    if (is_bytes) kind = content <= 7 ? MRPC_TYPE_SMALL_BYTES : MRPC_TYPE_BYTES;
  }
  uint8_t *end = add_u32(out + MRPC_HEAD, is_tensor ? 3 : 2);
  end = add_u32(end, codes_of[dialect][MRPC_INT]);
  if (dialect == MRPC_LEGACY) {
    end = add_u32(end, code);
    if (is_tensor) end = add_u32(end, pointer);
    end = add_u64(end, kind);
  } else {
    end = add_u32(add_u64(end, kind), is_whole ? MRPC_TYPE_STR : code);
    if (is_whole) end = add_u32(end, MRPC_TYPE_STR);
  }
  end = add_value(dialect, end, value);
  if (!end) return 0;
  if (is_tensor && dialect == MRPC_FFI) end = add_u32(end, pointer);
  if (is_tensor) end = add_u64(end, tensor);
  return finish(out, end, MRPC_CODE_RETURN, content);
}

size_t mrpc_exception(mrpc_dialect dialect, uint8_t *out, uint64_t nbytes) {
  uint8_t *end = add_u32(add_u32(out + MRPC_HEAD, 1), codes_of[dialect][MRPC_TEXT]);
  return finish(out, add_u64(end, nbytes), MRPC_CODE_EXCEPTION, nbytes);
}

size_t mrpc_copy_ack(uint8_t *out, uint64_t nbytes) {
  return finish(out, out + MRPC_HEAD, MRPC_CODE_COPY_ACK, nbytes);
}
