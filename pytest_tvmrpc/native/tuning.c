/* What TVM's tuners ask of a server: tensors with random contents, and caches without tensors. */
#include <stdlib.h>
#include <string.h>

#include "serving.h"

enum { SWEPT = 32 << 20 };

/* Formats of floating-point numbers by DLPack's code: bits of exponent and mantissa, and the bias. */
static const struct {
  uint8_t code, bits, exponent, mantissa;
  int bias;
} formats[] = {
    {2, 16, 5, 10, 15}, {4, 16, 8, 7, 127}, {7, 8, 3, 4, 3},  {8, 8, 4, 3, 7},   {9, 8, 4, 3, 11},
    {10, 8, 4, 3, 7},   {11, 8, 4, 3, 8},   {12, 8, 5, 2, 15}, {13, 8, 5, 2, 16}, {14, 8, 8, 0, 127},
    {15, 6, 2, 3, 1},   {16, 6, 3, 2, 3},   {17, 4, 2, 1, 1},
};

static uint64_t random_state;

static uint64_t random_bits(void) {
  random_state ^= random_state << 13;
  random_state ^= random_state >> 7;
  random_state ^= random_state << 17;
  return random_state;
}

/* From 1 to below 9.99, as the nearest number of a type might be 10. */
static double random_number(void) {
  return 1 + 8.99 * (double)(random_bits() >> 11) / 9007199254740992.0;
}

/* A number rounded down to a format, as bits. */
static uint64_t random_pattern(size_t format) {
  for (;;) {
    double number = random_number();
    int exponent = formats[format].bias;
    while (number >= 2) number /= 2, exponent++;
    if (exponent >= 1 << formats[format].exponent) continue; /* the format has none so large */
    return (uint64_t)exponent << formats[format].mantissa |
           (uint64_t)((number - 1) * (double)(1 << formats[format].mantissa));
  }
}

/* One element as bits; *is_number is 0 if elements of the type are no numbers. */
static uint64_t random_element(mrpc_dtype dtype, int *is_number) {
  uint64_t most, low, high;
  size_t format;
  if (dtype.code == 6 || (dtype.code == 1 && dtype.bits == 1)) return random_bits() >> 63;
  if (dtype.code <= 1 && dtype.bits >= 1 && dtype.bits <= 64) {
    unsigned bits = dtype.bits - (dtype.code == 0);
    most = bits >= 64 ? UINT64_MAX : (UINT64_C(1) << bits) - 1;
    low = most < 1 ? most : 1;
    high = most < 9 ? most : 9;
    return low + random_bits() % (high - low + 1);
  }
  for (format = 0; format < sizeof(formats) / sizeof(formats[0]); format++) {
    if (formats[format].code == dtype.code && formats[format].bits == dtype.bits) {
      return random_pattern(format);
    }
  }
  *is_number = 0;
  return 0;
}

static void store(uint8_t *at, uint64_t element, unsigned width) {
  unsigned index;
  for (index = 0; index < width; index++) {
    at[mrpc_is_big_endian() ? width - 1 - index : index] = (uint8_t)(element >> 8 * index);
  }
}

static int fill_floats(uint8_t *data, size_t nbytes, int is_double) {
  size_t at, width = is_double ? 8 : 4;
  for (at = 0; at + width <= nbytes; at += width) {
    double number = random_number();
    float shorter = (float)number;
    memcpy(data + at, is_double ? (const void *)&number : (const void *)&shorter, width);
  }
  return 0;
}

static int fill(uint8_t *data, size_t nbytes, mrpc_dtype dtype) {
  int is_number = 1;
  size_t at;
  if (dtype.code == 5 || (dtype.code == 2 && dtype.bits >= 32)) { /* complex: two numbers */
    unsigned bits = dtype.code == 5 ? dtype.bits / 2u : dtype.bits;
    if (bits == 32 || bits == 64) return fill_floats(data, nbytes, bits == 64);
  } else if ((dtype.bits % 8 == 0 && dtype.bits > 0) || (dtype.code == 1 && dtype.bits == 1)) {
    unsigned width = dtype.bits == 1 ? 1 : dtype.bits / 8u; /* uint1 was bool up to TVM 0.22 */
    for (at = 0; at + width <= nbytes; at += width) {
      uint64_t element = random_element(dtype, &is_number);
      if (!is_number) break;
      store(data + at, element, width);
    }
    if (is_number) return 0;
  } else if (dtype.bits > 0 && dtype.bits < 8) { /* packed, the first one in the lowest bits */
    uint32_t word = 0, bits = 0;
    for (at = 0; at < nbytes && is_number;) {
      word |= (uint32_t)random_element(dtype, &is_number) << bits;
      for (bits += dtype.bits; bits >= 8 && at < nbytes; bits -= 8, word >>= 8) {
        data[at++] = (uint8_t)word;
      }
    }
    if (is_number) return 0;
  }
  return mrpc_raise("ValueError",
                    "there are no random elements of type code %d with %d bits; expected a type of "
                    "numbers", dtype.code, dtype.bits);
}

static int random_fill(void *self, const TVMFFIAny *args, int32_t num_args, TVMFFIAny *result) {
  DLTensor *tensor = num_args > 0 ? mrpc_tensor_of(&args[0]) : NULL;
  int64_t nbytes;
  (void)self, (void)result;
  if (tensor == NULL) return mrpc_raise("TypeError", "random_fill takes a tensor");
  nbytes = mrpc_nbytes_of(MRPC_FFI, tensor->dtype, tensor->shape, tensor->ndim);
  if (nbytes < 0) return mrpc_raise("ValueError", "a tensor of more bytes than can be counted");
  if (random_state == 0) random_state = (uint64_t)(uintptr_t)&nbytes | 0x9E3779B97F4A7C15ull;
  return fill((uint8_t *)tensor->data + tensor->byte_offset, (size_t)nbytes, tensor->dtype);
}

/* Removes what lies there from the caches: line by line, or by other memory in its place. */
static void flush(char *start, size_t nbytes) {
#if defined(__x86_64__) || defined(__i386__)
  size_t at;
  for (at = 0; at < nbytes; at += 64) __builtin_ia32_clflush(start + at);
  __builtin_ia32_mfence();
#elif defined(__aarch64__)
  uint64_t line, at, end = (uint64_t)(uintptr_t)start + nbytes;
  __asm__ volatile("mrs %0, ctr_el0" : "=r"(line));
  line = UINT64_C(4) << (line >> 16 & 15);
  for (at = (uint64_t)(uintptr_t)start & ~(line - 1); at < end; at += line) {
    __asm__ volatile("dc civac, %0" : : "r"(at) : "memory");
  }
  __asm__ volatile("dsb sy" : : : "memory");
#else
  volatile char *swept = malloc(SWEPT);
  size_t at;
  (void)start, (void)nbytes;
  for (at = 0; swept != NULL && at < SWEPT; at += 32) swept[at] = 1;
  free((void *)(uintptr_t)swept);
#endif
}

static int flush_all_but_first(void *self, const TVMFFIAny *args, int32_t num_args,
                               TVMFFIAny *result) {
  int32_t index;
  (void)self, (void)result;
  for (index = 1; index < num_args; index++) {
    const DLTensor *tensor = mrpc_tensor_of(&args[index]);
    int64_t nbytes;
    if (tensor == NULL) continue;
    nbytes = mrpc_nbytes_of(MRPC_FFI, tensor->dtype, tensor->shape, tensor->ndim);
    if (nbytes > 0) flush((char *)tensor->data + tensor->byte_offset, (size_t)nbytes);
  }
  return 0;
}

int mrpc_register_tuning(void) {
  static const mrpc_named functions[] = {
      {"tvm.contrib.random.random_fill", random_fill},
      {"tvm.contrib.random.random_fill_for_measure", random_fill},
      {"cache_flush_cpu_non_first_arg", flush_all_but_first},
  };
  return mrpc_register(functions, sizeof(functions) / sizeof(functions[0]));
}
