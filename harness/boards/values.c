/* Elements of tensors and numbers as the board's own instructions see them. */
#include "kernel.h"

#define EACH_INT(ROW)                                                                            \
  ROW(int8, int8_t, TYPE_INT, 8)                                                                 \
  ROW(int16, int16_t, TYPE_INT, 16)                                                              \
  ROW(int32, int32_t, TYPE_INT, 32)                                                              \
  ROW(int64, int64_t, TYPE_INT, 64)                                                              \
  ROW(uint8, uint8_t, TYPE_UINT, 8)                                                              \
  ROW(uint16, uint16_t, TYPE_UINT, 16)                                                           \
  ROW(uint32, uint32_t, TYPE_UINT, 32)                                                           \
  ROW(uint64, uint64_t, TYPE_UINT, 64)                                                           \
  ROW(float16, uint16_t, TYPE_FLOAT, 16)                                                         \
  ROW(bfloat16, uint16_t, TYPE_BFLOAT, 16)                                                       \
  ROW(bool, uint8_t, TYPE_BOOL, 8)

#define EACH_FLOAT(ROW) ROW(float32, float, 32) ROW(float64, double, 64)

/* read_T(tensor, index): an element as an int, a float16's as its bits. write_T puts one there. */
#define OF_INT(name, type, code, bits)                                                           \
  KERNEL(read_##name) {                                                                          \
    const DLTensor *tensor = tensor_of("read", args, 0, code, bits, 1);                          \
    return tensor ? return_int(result, (int64_t)((type *)elements(tensor))[args[1].as.v_int64])  \
                  : -1;                                                                          \
  }                                                                                              \
  KERNEL(write_##name) {                                                                         \
    const DLTensor *tensor = tensor_of("write", args, 0, code, bits, 1);                         \
    if (!tensor) return -1;                                                                      \
    ((type *)elements(tensor))[args[1].as.v_int64] = (type)args[2].as.v_int64;                   \
    return 0;                                                                                    \
  }
EACH_INT(OF_INT)

#define OF_FLOAT(name, type, bits)                                                               \
  KERNEL(read_##name) {                                                                          \
    const DLTensor *tensor = tensor_of("read", args, 0, TYPE_FLOAT, bits, 1);                    \
    return tensor ? return_float(result, ((type *)elements(tensor))[args[1].as.v_int64]) : -1;   \
  }                                                                                              \
  KERNEL(write_##name) {                                                                         \
    const DLTensor *tensor = tensor_of("write", args, 0, TYPE_FLOAT, bits, 1);                   \
    if (!tensor) return -1;                                                                      \
    ((type *)elements(tensor))[args[1].as.v_int64] = (type)args[2].as.v_float64;                 \
    return 0;                                                                                    \
  }
EACH_FLOAT(OF_FLOAT)

KERNEL(half_of) { return return_float(result, args[0].as.v_float64 / 2); }
KERNEL(not_of) { return return_int(result, ~args[0].as.v_int64); }
KERNEL(is_big_endian) {
  const uint16_t one = 1;
  return return_int(result, !*(const uint8_t *)&one);
}
KERNEL(pointer_bits) { return return_int(result, 8 * (int64_t)sizeof(void *)); }
