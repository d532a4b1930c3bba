/* Tensors between libraries and others: made for them, taken over DLPack and given away; streams and
 * symbols of their environment. */
#include <stdlib.h>
#include <string.h>

#include "objects.h"

enum { DLPACK_MAJOR = 1, DLPACK_MINOR = 1 };

typedef struct DLManagedTensor {
  DLTensor dl_tensor;
  void *manager_ctx;
  void (*deleter)(struct DLManagedTensor *self);
} DLManagedTensor;

typedef struct DLManagedTensorVersioned {
  uint32_t major, minor;
  void *manager_ctx;
  void (*deleter)(struct DLManagedTensorVersioned *self);
  uint64_t flags;
  DLTensor dl_tensor;
} DLManagedTensorVersioned;

typedef int (*DLPackManagedTensorAllocator)(DLTensor *prototype, DLManagedTensorVersioned **out,
                                            void *context,
                                            void (*set_error)(void *context, const char *kind,
                                                              const char *message));

/* ------------------------------------------------------------------------------------ DLPack */

static void end_managed(void *owner) {
  DLManagedTensor *managed = owner;
  if (managed->deleter)
    managed->deleter(managed);
}

static void end_versioned(void *owner) {
  DLManagedTensorVersioned *managed = owner;
  if (managed->deleter)
    managed->deleter(managed);
}

static int check(const DLTensor *record, int32_t alignment, int32_t contiguous) {
  uint64_t start = (uintptr_t)record->data + record->byte_offset;
  if (alignment > 1 && start % (uint32_t)alignment)
    return mrpc_raise("LibraryError", "a tensor begins at 0x%llx; expected a multiple of %d",
                      (unsigned long long)start, (int)alignment);
  if (mrpc_check_tensor(record))
    return -1;
  if (contiguous && !mrpc_is_dense(record))
    return mrpc_raise("LibraryError", "a tensor of %d axes has gaps; expected none",
                      (int)record->ndim);
  return 0;
}

/* One that is refused stays the caller's. */
MRPC_EXPORT int TVMFFITensorFromDLPack(DLManagedTensor *from, int32_t alignment, int32_t contiguous,
                                       void **out) {
  if (check(&from->dl_tensor, alignment, contiguous))
    return -1;
  *out = mrpc_tensor_over(&from->dl_tensor, from, end_managed);
  return *out ? 0 : -1;
}

MRPC_EXPORT int TVMFFITensorFromDLPackVersioned(DLManagedTensorVersioned *from, int32_t alignment,
                                                int32_t contiguous, void **out) {
  if (from->major > DLPACK_MAJOR)
    return mrpc_raise("LibraryError",
                      "a tensor is of DLPack %u.%u; expected %d, or an earlier one",
                      (unsigned)from->major, (unsigned)from->minor, DLPACK_MAJOR);
  if (check(&from->dl_tensor, alignment, contiguous))
    return -1;
  *out = mrpc_tensor_over(&from->dl_tensor, from, end_versioned);
  return *out ? 0 : -1;
}

static void give_back(DLManagedTensor *self) {
  mrpc_release(self->manager_ctx);
  free(self);
}

static void give_back_versioned(DLManagedTensorVersioned *self) {
  mrpc_release(self->manager_ctx);
  free(self);
}

MRPC_EXPORT int TVMFFITensorToDLPack(mrpc_tensor *from, DLManagedTensor **out) {
  DLManagedTensor *made = calloc(1, sizeof *made);
  if (!made)
    return mrpc_out_of_memory();
  mrpc_retain(&from->object);
  made->dl_tensor = from->tensor;
  made->manager_ctx = from;
  made->deleter = give_back;
  *out = made;
  return 0;
}

MRPC_EXPORT int TVMFFITensorToDLPackVersioned(mrpc_tensor *from, DLManagedTensorVersioned **out) {
  DLManagedTensorVersioned *made = calloc(1, sizeof *made);
  if (!made)
    return mrpc_out_of_memory();
  mrpc_retain(&from->object);
  made->major = DLPACK_MAJOR;
  made->minor = DLPACK_MINOR;
  made->dl_tensor = from->tensor;
  made->manager_ctx = from;
  made->deleter = give_back_versioned;
  *out = made;
  return 0;
}

static void release_owner(void *owner) { mrpc_release(owner); }

MRPC_EXPORT int TVMFFITensorCreateUnsafeView(mrpc_tensor *source, const DLTensor *prototype,
                                             void **out) {
  *out = mrpc_tensor_over(prototype, source, release_owner);
  if (!*out)
    return -1;
  mrpc_retain(&source->object);
  return 0;
}

/* -------------------------------------------------------------------------------- allocation */

static __thread DLPackManagedTensorAllocator own_allocator;
static DLPackManagedTensorAllocator allocator_of_all;

MRPC_EXPORT int TVMFFIEnvSetDLPackManagedTensorAllocator(DLPackManagedTensorAllocator allocator,
                                                         int for_all,
                                                         DLPackManagedTensorAllocator *before) {
  if (before)
    *before = own_allocator;
  if (for_all)
    __atomic_store_n(&allocator_of_all, allocator, __ATOMIC_RELEASE);
  own_allocator = allocator;
  return 0;
}

MRPC_EXPORT DLPackManagedTensorAllocator TVMFFIEnvGetDLPackManagedTensorAllocator(void) {
  return own_allocator ? own_allocator : __atomic_load_n(&allocator_of_all, __ATOMIC_ACQUIRE);
}

static void note_error(void *context, const char *kind, const char *message) {
  (void)context;
  mrpc_raise(kind ? kind : "RuntimeError", "%s", message ? message : "");
}

static int allocate(DLPackManagedTensorAllocator allocator, DLTensor *prototype, void **out) {
  DLManagedTensorVersioned *made = NULL;
  int code = allocator(prototype, &made, NULL, note_error);
  if (code)
    return code;
  if (!made)
    return mrpc_raise("LibraryError",
                      "the allocator of tensors gave none; expected one, or an error");
  if (!TVMFFITensorFromDLPackVersioned(made, 0, 0, out))
    return 0;
  end_versioned(made);
  return -1;
}

MRPC_EXPORT int TVMFFIEnvTensorAlloc(DLTensor *prototype, void **out) {
  DLPackManagedTensorAllocator allocator = TVMFFIEnvGetDLPackManagedTensorAllocator();
  if (allocator)
    return allocate(allocator, prototype, out);
  if (mrpc_check_device(prototype->device.device_type) || mrpc_check_tensor(prototype))
    return -1;
  *out = mrpc_tensor_new(prototype->dtype, prototype->ndim, prototype->shape);
  if (!*out)
    return -1;
  ((mrpc_tensor *)*out)->tensor.device = prototype->device;
  return 0;
}

/* ----------------------------------------------------------------------------------- streams */

typedef struct {
  mrpc_device device;
  void *stream;
} stream_of;

enum { MAX_STREAMS = 16 }; /* devices of a thread */

static __thread stream_of streams[MAX_STREAMS];
static __thread int num_streams;

static stream_of *find_stream(int32_t device_type, int32_t device_id) {
  int index;
  for (index = 0; index < num_streams; index++)
    if (streams[index].device.device_type == device_type &&
        streams[index].device.device_id == device_id)
      return &streams[index];
  return NULL;
}

MRPC_EXPORT int TVMFFIEnvSetStream(int32_t device_type, int32_t device_id, void *stream,
                                   void **before) {
  stream_of *found = find_stream(device_type, device_id);
  if (before)
    *before = found ? found->stream : NULL;
  if (!found) {
    if (num_streams == MAX_STREAMS)
      return mrpc_raise("ValueError", "a thread sets streams of more than %d devices", MAX_STREAMS);
    found = &streams[num_streams++];
    found->device.device_type = device_type;
    found->device.device_id = device_id;
  }
  found->stream = stream;
  return 0;
}

MRPC_EXPORT void *TVMFFIEnvGetStream(int32_t device_type, int32_t device_id) {
  stream_of *found = find_stream(device_type, device_id);
  return found ? found->stream : NULL;
}

/* ------------------------------------------------------------------------------- environment */

MRPC_EXPORT int TVMFFIEnvCheckSignals(void) { return 0; } /* a signal has no handler that raises */

MRPC_EXPORT int TVMFFIEnvRegisterCAPI(const char *name, void *symbol) {
  (void)name, (void)symbol; /* functions of an interpreter, of which there is none */
  return 0;
}

MRPC_EXPORT int TVMFFIEnvModRegisterContextSymbol(const char *name, void *symbol) {
  return mrpc_context_symbol(name, symbol);
}

MRPC_EXPORT int TVMFFIEnvModRegisterSystemLibSymbol(const char *name, void *symbol) {
  return mrpc_system_symbol(name, symbol, 0);
}

MRPC_EXPORT int TVMBackendRegisterSystemLibSymbol(const char *name, void *symbol) {
  return mrpc_system_symbol(name, symbol, 1);
}

/* Code keeps what it looked up in a variable of its own, and counts no reference. */
static int look_up(void *library_ctx, const char *name, void **out) {
  const mrpc_error *before = mrpc_peek_raised();
  *out = mrpc_lookup(library_ctx, name ? name : "");
  if (*out)
    return 0;
  if (mrpc_peek_raised() != before)
    return -1;
  return mrpc_raise("ValueError",
                    "compiled code looks up function '%s', which is in no imported module and is no "
                    "global function; import the module that has it, or register it with "
                    "register_func",
                    name ? name : "");
}

MRPC_EXPORT int TVMFFIEnvModLookupFromImports(void *library_ctx, const char *name, void **out) {
  return look_up(library_ctx, name, out);
}

MRPC_EXPORT int TVMBackendGetFuncFromEnv(void *library_ctx, const char *name, void **out) {
  return look_up(library_ctx, name, out);
}
