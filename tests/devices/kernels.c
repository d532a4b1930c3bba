/* Host code as TVM makes it for a device: it looks into DLTensors, and has a kernel launched. */
#include <stdint.h>

typedef struct {
  int32_t type_index;
  uint32_t length;
  union {
    int64_t i;
    void *p;
  } v;
} Any;

typedef int (*SafeCall)(void *, const Any *, int32_t, Any *);

typedef struct {
  uint64_t counts;
  int32_t type_index;
  uint32_t padding;
  void (*deleter)(void *, int);
  SafeCall safe_call;
} Function;

typedef struct {
  void *data;
  int32_t device_type, device_id, ndim;
  uint8_t code, bits;
  uint16_t lanes;
  int64_t *shape, *strides;
  uint64_t byte_offset;
} Tensor;

#define FUNCTION(name) int __tvm_ffi_##name(void *self, const Any *args, int32_t n, Any *out)

static Any integer(int64_t value) {
  Any any = {1, 0, {value}};
  return any;
}

FUNCTION(scale) { /* launch(device_type, device_id, data, byte_offset, count, factor) of a tensor */
  Function *launch = args[0].v.p;
  const Tensor *tensor = args[1].v.p;
  int64_t count = tensor->bits * tensor->lanes / 8;
  for (int i = 0; i < tensor->ndim; i++) count *= tensor->shape[i];
  Any given[6] = {integer(tensor->device_type), integer(tensor->device_id), {4, 0, {0}},
                  integer((int64_t)tensor->byte_offset), integer(count), args[2]};
  given[2].v.p = tensor->data;
  return launch->safe_call(launch, given, 6, out);
}
