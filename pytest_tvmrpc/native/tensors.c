/* Tensors as objects: of memory of their own, or of somebody else's. */
#include <stdlib.h>
#include <string.h>

#include "objects.h"

typedef struct {
  mrpc_tensor tensor;
  void *owner;
  void (*end)(void *owner);
  int64_t numbers[]; /* the shape, then the strides */
} owning_tensor;

DLTensor *mrpc_tensor_of(const TVMFFIAny *any) {
  if (any->type_index == MRPC_TYPE_DL_TENSOR_PTR)
    return any->as.v_ptr;
  if (any->type_index == MRPC_TYPE_TENSOR && any->as.v_obj)
    return &((mrpc_tensor *)any->as.v_obj)->tensor;
  return NULL;
}

int mrpc_check_tensor(const DLTensor *record) {
  int64_t nbytes;
  if (record->ndim < 0 || record->ndim > MRPC_MAX_NDIM)
    return mrpc_raise("LibraryError",
                      "compiled code describes a tensor of %d axes; expected 0 to %d",
                      (int)record->ndim, MRPC_MAX_NDIM);
  if (record->ndim && !record->shape)
    return mrpc_raise("LibraryError",
                      "compiled code describes a tensor of %d axes with their lengths at NULL; "
                      "expected the address of its shape",
                      (int)record->ndim);
  nbytes = mrpc_nbytes_of(MRPC_FFI, record->dtype, record->shape, record->ndim);
  if (nbytes < 0)
    return mrpc_raise("LibraryError",
                      "compiled code describes a tensor that cannot be: its lengths are negative, "
                      "or more than memory has");
  if ((uint64_t)nbytes + record->byte_offset < record->byte_offset ||
      (uint64_t)nbytes + record->byte_offset > UINTPTR_MAX - (uintptr_t)record->data)
    return mrpc_raise("LibraryError",
                      "compiled code describes a tensor of %lld bytes at an offset of %llu, which "
                      "is beyond any memory; expected elements within one",
                      (long long)nbytes, (unsigned long long)record->byte_offset);
  return 0;
}

int mrpc_check_device(int32_t device_type) {
  static const char names[] =
      "cuda\0cuda_host\0opencl\0\0\0vulkan\0metal\0vpi\0rocm\0rocm_host\0ext_dev\0"
      "cuda_managed\0oneapi\0webgpu\0hexagon\0maia\0trn";
  const char *name = names;
  int32_t kind;
  if (device_type == MRPC_DEVICE_CPU)
    return 0;
  for (kind = MRPC_DEVICE_CUDA; kind < device_type && kind < MRPC_DEVICE_TRN; kind++)
    name += strlen(name) + 1;
  if (kind == device_type && *name)
    return mrpc_raise("DeviceError", "Device API %s is not enabled: this machine has cpu", name);
  return mrpc_raise("DeviceError", "Device API %d is not enabled: this machine has cpu",
                    (int)device_type);
}

int mrpc_is_dense(const DLTensor *record) {
  int64_t wanted = 1;
  int32_t axis;
  int is_dense = 1;
  if (!record->strides)
    return 1;
  for (axis = record->ndim - 1; axis >= 0; axis--) {
    if (record->shape[axis] == 0)
      return 1;
    if (record->shape[axis] != 1 && record->strides[axis] != wanted)
      is_dense = 0;
    wanted = (int64_t)((uint64_t)wanted * (uint64_t)record->shape[axis]);
  }
  return is_dense;
}

static void drop_tensor(void *object) {
  owning_tensor *tensor = object;
  if (tensor->end)
    tensor->end(tensor->owner);
}

static void delete_tensor(void *self, int flags) { mrpc_end(self, flags, drop_tensor); }

static void copy_axes(owning_tensor *made, const DLTensor *record) {
  int64_t *shape = made->numbers, *strides = shape + record->ndim;
  uint64_t stride = 1;
  int32_t axis;
  for (axis = record->ndim - 1; axis >= 0; axis--) {
    shape[axis] = record->shape[axis];
    strides[axis] = record->strides ? record->strides[axis] : (int64_t)stride;
    stride *= (uint64_t)(shape[axis] > 1 ? shape[axis] : 1);
  }
  made->tensor.tensor = *record;
  made->tensor.tensor.shape = shape;
  made->tensor.tensor.strides = strides;
}

mrpc_tensor *mrpc_tensor_over(const DLTensor *record, void *owner, void (*end)(void *owner)) {
  owning_tensor *made;
  if (mrpc_check_tensor(record))
    return NULL;
  made = mrpc_object_new(sizeof *made + 2 * (size_t)record->ndim * sizeof *made->numbers,
                         MRPC_TYPE_TENSOR, delete_tensor);
  if (!made)
    return NULL;
  copy_axes(made, record);
  made->owner = owner;
  made->end = end;
  return &made->tensor;
}

mrpc_tensor *mrpc_tensor_new(mrpc_dtype dtype, int32_t ndim, const int64_t *shape) {
  DLTensor record;
  mrpc_tensor *made;
  int64_t nbytes;
  memset(&record, 0, sizeof record);
  record.device.device_type = MRPC_DEVICE_CPU;
  record.dtype = dtype;
  record.ndim = ndim;
  record.shape = (int64_t *)(uintptr_t)shape;
  if (mrpc_check_tensor(&record))
    return NULL;
  nbytes = mrpc_nbytes_of(MRPC_FFI, dtype, shape, ndim);
  if (posix_memalign(&record.data, MRPC_ALIGNMENT, nbytes ? (size_t)nbytes : 1)) {
    mrpc_raise("MemoryError", "there is no memory for a tensor of %lld bytes", (long long)nbytes);
    return NULL;
  }
  made = mrpc_tensor_over(&record, record.data, free);
  if (!made)
    free(record.data);
  return made;
}
