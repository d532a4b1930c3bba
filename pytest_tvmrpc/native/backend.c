/* What generated kernels ask for while they run: workspaces, what is done once, and registers. Their
 * parallel loops are parallel.c. */
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "objects.h"

/* -------------------------------------------------------------------------------- workspaces */

/* Lies before a workspace. A kernel frees on the thread on which it allocates; what it freed is kept
 * for its next call, which would wait for fresh pages otherwise. */
typedef union workspace {
  struct {
    union workspace *next;
    size_t nbytes;
  } own;
  char room[MRPC_ALIGNMENT];
} workspace;

enum { MAX_KEPT = 8 };

static __thread workspace *used, *unused;
static __thread int num_unused;

/* The smallest that was kept and is big enough, but not by far; NULL if there is none. */
static workspace *take_unused(size_t nbytes) {
  workspace **place, **best = NULL, *found;
  for (place = &unused; *place; place = &(*place)->own.next)
    if ((*place)->own.nbytes >= nbytes && (*place)->own.nbytes / 4 <= nbytes &&
        (!best || (*place)->own.nbytes < (*best)->own.nbytes))
      best = place;
  if (!best)
    return NULL;
  found = *best;
  *best = found->own.next;
  num_unused--;
  return found;
}

MRPC_EXPORT void *TVMBackendAllocWorkspace(int device_type, int device_id, uint64_t nbytes,
                                           int dtype_code, int dtype_bits) {
  workspace *made = NULL;
  void *memory;
  (void)device_id, (void)dtype_code, (void)dtype_bits;
  if (mrpc_check_device(device_type))
    return NULL;
  if (nbytes < PTRDIFF_MAX - sizeof *made) {
    made = take_unused((size_t)nbytes);
    if (!made && !posix_memalign(&memory, MRPC_ALIGNMENT, sizeof *made + (size_t)nbytes)) {
      made = memory;
      made->own.nbytes = (size_t)nbytes;
    }
  }
  if (!made) {
    mrpc_raise("MemoryError", "there is no memory for a workspace of %llu bytes",
               (unsigned long long)nbytes);
    return NULL;
  }
  made->own.next = used;
  used = made;
  return made + 1;
}

MRPC_EXPORT int TVMBackendFreeWorkspace(int device_type, int device_id, void *address) {
  workspace **place, *found;
  (void)device_type, (void)device_id;
  if (!address)
    return 0;
  for (place = &used; *place && *place + 1 != address; place = &(*place)->own.next)
    ;
  found = *place;
  if (!found)
    return mrpc_raise("ValueError", "compiled code frees a workspace at %p that it does not have",
                      address);
  *place = found->own.next;
  if (num_unused == MAX_KEPT) {
    free(found);
  } else {
    found->own.next = unused;
    unused = found;
    num_unused++;
  }
  return 0;
}

/* -------------------------------------------------------------------------------------- once */

/* A handle, a static variable of a library, that a thread is making or ending. */
typedef struct turn {
  void **handle;
  pthread_t thread;
  struct turn *next;
} turn;

static turn *turns;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t turn_ended = PTHREAD_COND_INITIALIZER;

static int is_of_another(const void *handle) {
  turn *one;
  for (one = turns; one; one = one->next)
    if (one->handle == handle && !pthread_equal(one->thread, pthread_self()))
      return 1;
  return 0;
}

/* Waits for other threads that are at this handle, not for those at others. */
static void begin_turn(turn *own, void **handle) {
  own->handle = handle;
  own->thread = pthread_self();
  pthread_mutex_lock(&lock);
  while (is_of_another(handle))
    pthread_cond_wait(&turn_ended, &lock);
  own->next = turns;
  turns = own;
  pthread_mutex_unlock(&lock);
}

static void end_turn(const turn *own) {
  turn **place;
  pthread_mutex_lock(&lock);
  for (place = &turns; *place != own; place = &(*place)->next)
    ;
  *place = own->next;
  pthread_cond_broadcast(&turn_ended);
  pthread_mutex_unlock(&lock);
}

MRPC_EXPORT int TVMFFIHandleInitOnce(void **handle, int (*init)(void **result)) {
  turn own;
  int code = 0;
  if (__atomic_load_n(handle, __ATOMIC_ACQUIRE))
    return 0;
  begin_turn(&own, handle);
  if (!*handle) {
    void *made = NULL;
    code = init(&made);
    if (!code && !made)
      code = mrpc_raise("LibraryError",
                        "compiled code makes a handle once, and its function succeeds with NULL; "
                        "expected the handle, or an error");
    else if (!code)
      __atomic_store_n(handle, made, __ATOMIC_RELEASE);
  }
  end_turn(&own);
  return code;
}

MRPC_EXPORT int TVMFFIHandleDeinitOnce(void **handle, int (*deinit)(void *handle)) {
  turn own;
  int code = 0;
  void *made;
  begin_turn(&own, handle);
  made = __atomic_exchange_n(handle, NULL, __ATOMIC_ACQ_REL);
  if (made)
    code = deinit(made);
  end_turn(&own);
  return code;
}

MRPC_EXPORT int TVMBackendRunOnce(void **handle, int (*function)(void *closure), void *closure,
                                  int nbytes) {
  turn own;
  int code = 0;
  (void)nbytes;
  begin_turn(&own, handle);
  if (!*handle) {
    *handle = handle; /* anything but NULL */
    code = function(closure);
  }
  end_turn(&own);
  return code;
}

/* -------------------------------------------------------------- registers of compiled programs */

/* Lends a register's value to an argument. */
MRPC_EXPORT int TVMBackendAnyListSetPackedArg(const TVMFFIAny *list, int index, TVMFFIAny *args,
                                              int offset) {
  args[offset] = list[index];
  return 0;
}

MRPC_EXPORT int TVMBackendAnyListResetItem(TVMFFIAny *list, int index) {
  mrpc_drop(&list[index]);
  return 0;
}

MRPC_EXPORT int TVMBackendAnyListMoveFromPackedReturn(TVMFFIAny *list, int index, TVMFFIAny *args,
                                                      int offset) {
  TVMFFIAny moved = args[offset];
  memset(&args[offset], 0, sizeof moved);
  mrpc_drop(&list[index]);
  list[index] = moved;
  return 0;
}
