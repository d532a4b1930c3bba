/* The memory of tensors: allocated, counted, and seen as tensor objects. */
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "serving.h"

enum { MAPPED = 128 * 1024 }; /* bytes from which memory is mapped, which the kernel zeroes */

typedef struct {
  mrpc_tensor tensor;
  mrpc_memory *memory;
  int64_t shape[];
} tensor_in_memory;

static mrpc_memory *no_memory(mrpc_memory *memory, uint64_t nbytes) {
  free(memory);
  mrpc_raise("DeviceError",
             "cannot allocate %llu bytes of CPU memory; free tensors, or use smaller ones",
             (unsigned long long)nbytes);
  return NULL;
}

mrpc_memory *mrpc_memory_new(uint64_t nbytes) {
  mrpc_memory *memory = calloc(1, sizeof(*memory));
  void *place = NULL;
  if (memory == NULL || nbytes > SIZE_MAX / 2) return no_memory(memory, nbytes);
  if (nbytes >= MAPPED) {
    place = mmap(NULL, (size_t)nbytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (place == MAP_FAILED) return no_memory(memory, nbytes);
#ifdef MADV_HUGEPAGE
    madvise(place, (size_t)nbytes, MADV_HUGEPAGE);
#endif
    memory->mapped = nbytes;
  } else {
    if (posix_memalign(&place, MRPC_ALIGNMENT, nbytes ? (size_t)nbytes : 1) != 0) {
      return no_memory(memory, nbytes);
    }
    memset(place, 0, (size_t)nbytes);
  }
  memory->references = 1;
  memory->data = place;
  memory->nbytes = nbytes;
  return memory;
}

void mrpc_memory_release(mrpc_memory *memory) {
  if (__atomic_sub_fetch(&memory->references, 1, __ATOMIC_ACQ_REL) > 0) return;
  if (memory->owner != NULL) {
    mrpc_release(memory->owner);
  } else if (memory->mapped) {
    munmap(memory->data, (size_t)memory->mapped);
  } else {
    free(memory->data);
  }
  free(memory);
}

static void end_tensor(void *self, int flags) {
  tensor_in_memory *made = self;
  if (flags & 1) mrpc_memory_release(made->memory);
  if (flags & 2) free(made);
}

TVMFFIObject *mrpc_tensor_in(mrpc_memory *memory, const mrpc_record *record) {
  tensor_in_memory *made = mrpc_object_new(
      sizeof(*made) + (size_t)record->ndim * sizeof(int64_t), MRPC_TYPE_TENSOR, end_tensor);
  if (made == NULL) return NULL;
  __atomic_add_fetch(&memory->references, 1, __ATOMIC_RELAXED);
  made->memory = memory;
  memcpy(made->shape, record->shape, (size_t)record->ndim * sizeof(int64_t));
  made->tensor.tensor.data = memory->data + record->byte_offset;
  made->tensor.tensor.device = record->device;
  made->tensor.tensor.ndim = record->ndim;
  made->tensor.tensor.dtype = record->dtype;
  made->tensor.tensor.shape = made->shape;
  return &made->tensor.object;
}

static int is_contiguous(const DLTensor *tensor) {
  int64_t stride = 1;
  int axis;
  if (tensor->strides == NULL) return 1;
  for (axis = tensor->ndim - 1; axis >= 0; axis--) {
    if (tensor->shape[axis] != 1 && tensor->strides[axis] != stride) return 0;
    stride *= tensor->shape[axis];
  }
  return 1;
}

mrpc_memory *mrpc_memory_of(TVMFFIObject *object) {
  DLTensor *tensor = &((mrpc_tensor *)object)->tensor;
  mrpc_memory *memory;
  int64_t nbytes = mrpc_nbytes_of(MRPC_FFI, tensor->dtype, tensor->shape, tensor->ndim);
  if (object->end.deleter == end_tensor) {
    memory = ((tensor_in_memory *)object)->memory;
    __atomic_add_fetch(&memory->references, 1, __ATOMIC_RELAXED);
    return memory;
  }
  if (nbytes < 0 || tensor->device.device_type != MRPC_DEVICE_CPU || !is_contiguous(tensor)) {
    mrpc_raise("DeviceError", "a function returned a tensor that cannot be sent: expected one of "
                              "the CPU, without gaps between its elements");
    return NULL;
  }
  memory = calloc(1, sizeof(*memory));
  if (memory == NULL) return no_memory(memory, sizeof(*memory));
  memory->references = 1;
  memory->data = tensor->data;
  memory->nbytes = (uint64_t)nbytes + tensor->byte_offset;
  memory->owner = object;
  mrpc_retain(object);
  return memory;
}

int mrpc_is_big_endian(void) {
  const uint16_t one = 1;
  return *(const uint8_t *)&one == 0;
}

int mrpc_swap(uint8_t *data, uint64_t nbytes, mrpc_dtype dtype) {
  unsigned width = dtype.code == 5 ? dtype.bits / 16u : dtype.bits / 8u; /* complex: two numbers */
  uint64_t at;
  unsigned low;
  if (!mrpc_is_big_endian() || width < 2) return 0;
  if (nbytes % width != 0) {
    return mrpc_raise("ValueError",
                      "a copy of %llu bytes is no number of whole elements of %u bytes, whose "
                      "order this big-endian machine has to change; copy whole elements",
                      (unsigned long long)nbytes, width);
  }
  for (at = 0; at < nbytes; at += width) {
    for (low = 0; low < width / 2; low++) {
      uint8_t kept = data[at + low];
      data[at + low] = data[at + width - 1 - low];
      data[at + width - 1 - low] = kept;
    }
  }
  return 0;
}
