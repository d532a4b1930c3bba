/* Functions as a compiler of TVM 0.8 to 0.20 exports them, and not as later ones do. */

#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <unistd.h>

typedef union {
  int64_t integer;
  double number;
  void *handle;
} Value;

typedef struct {
  void *data;
  int32_t device_type, device_id, ndim;
  uint8_t code, bits;
  uint16_t lanes;
  int64_t *shape, *strides;
  uint64_t byte_offset;
} Tensor;

typedef void (*SetLastError)(const char *);

/* Filled by whoever loads the library. */
SetLastError __TVMAPISetLastError = NULL;
const char __tvm_main__[] = "addone";

static int64_t calls = 0;

static int refuse(const char *text) {
  __TVMAPISetLastError(text);
  return -1;
}

int addone(Value *args, int *codes, int count, Value *result, int *result_code, void *resource) {
  (void)resource;
  calls += 1;
  if (count != 1 || codes[0] != 0) return refuse("addone wants one int");
  result->integer = args[0].integer + 1;
  *result_code = 0;
  return 0;
}

/* How often addone was called. */
int count(Value *args, int *codes, int count, Value *result, int *result_code, void *resource) {
  (void)args, (void)codes, (void)count, (void)resource;
  result->integer = calls;
  *result_code = 0;
  return 0;
}

/* The codes of its arguments as one number, two decimal digits each, the last argument's last. */
int codes(Value *args, int *codes, int count, Value *result, int *result_code, void *resource) {
  (void)args, (void)resource;
  result->integer = 0;
  for (int i = 0; i < count; ++i) result->integer = 100 * result->integer + codes[i];
  *result_code = 0;
  return 0;
}

/* fill(tensor of float32, float): as compiled code does, it ignores byte_offset unless it is 0. */
int fill(Value *args, int *codes, int count, Value *result, int *result_code, void *resource) {
  (void)result, (void)result_code, (void)resource;
  if (count != 2 || (codes[0] != 7 && codes[0] != 13) || codes[1] != 2)
    return refuse("fill wants a tensor and a float");
  Tensor *tensor = args[0].handle;
  if (tensor->code != 2 || tensor->bits != 32) return refuse("fill wants float32");
  if (tensor->byte_offset != 0) return refuse("fill wants byte_offset 0");
  int64_t size = 1;
  for (int i = 0; i < tensor->ndim; ++i) size *= tensor->shape[i];
  for (int64_t i = 0; i < size; ++i) ((float *)tensor->data)[i] = (float)args[1].number;
  return 0;
}

/* The type of a tensor as one number: code, bits and lanes, two digits each. */
int dtype(Value *args, int *codes, int count, Value *result, int *result_code, void *resource) {
  (void)codes, (void)count, (void)resource;
  Tensor *tensor = args[0].handle;
  result->integer = 10000 * tensor->code + 100 * tensor->bits + tensor->lanes;
  *result_code = 0;
  return 0;
}

int crash(Value *args, int *codes, int count, Value *result, int *result_code, void *resource) {
  (void)args, (void)codes, (void)count, (void)result, (void)result_code, (void)resource;
  abort();
}

/* A minute. */
int nap(Value *args, int *codes, int count, Value *result, int *result_code, void *resource) {
  (void)args, (void)codes, (void)count, (void)result, (void)result_code, (void)resource;
  for (unsigned left = 60; left;) left = sleep(left);
  return 0;
}
