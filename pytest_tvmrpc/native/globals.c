/* Global functions by name, and what a library may register as it is loaded. */
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "objects.h"

typedef struct entry {
  struct entry *next;
  TVMFFIObject *function;
  int is_of_library; /* registered by one, which may be loaded again */
  size_t nbytes;
  char name[];
} entry;

enum { BUCKETS = 256 };

static entry *buckets[BUCKETS];
static int num_entries;
static pthread_mutex_t globals_lock = PTHREAD_MUTEX_INITIALIZER;

uint64_t mrpc_hash_of(const char *name, size_t nbytes) {
  uint64_t hash = UINT64_C(0xcbf29ce484222325);
  while (nbytes--)
    hash = (hash ^ (unsigned char)*name++) * UINT64_C(0x100000001b3);
  return hash;
}

static entry **place_of(const char *name, size_t nbytes) {
  entry **place = &buckets[mrpc_hash_of(name, nbytes) % BUCKETS];
  while (*place && ((*place)->nbytes != nbytes || memcmp((*place)->name, name, nbytes) != 0))
    place = &(*place)->next;
  return place;
}

TVMFFIObject *mrpc_global_find(const char *name, size_t nbytes) {
  entry *found;
  pthread_mutex_lock(&globals_lock);
  found = *place_of(name, nbytes);
  pthread_mutex_unlock(&globals_lock);
  return found ? found->function : NULL;
}

TVMFFIObject *mrpc_global_get(const char *name, size_t nbytes) {
  entry *found;
  TVMFFIObject *function;
  pthread_mutex_lock(&globals_lock);
  found = *place_of(name, nbytes);
  function = found ? found->function : NULL;
  mrpc_retain(function);
  pthread_mutex_unlock(&globals_lock);
  return function;
}

/* Puts an entry in; the function that had the name before, or NULL, in *before. 0, or -1: taken. */
static int put_entry(entry *made, int override, TVMFFIObject **before) {
  entry **place, *known;
  *before = NULL;
  pthread_mutex_lock(&globals_lock);
  place = place_of(made->name, made->nbytes);
  known = *place;
  if (known && !override && !(made->is_of_library && known->is_of_library)) {
    pthread_mutex_unlock(&globals_lock);
    return -1;
  }
  if (known) {
    *before = known->function;
    known->function = made->function;
    known->is_of_library = made->is_of_library;
  } else {
    *place = made;
    num_entries++;
  }
  pthread_mutex_unlock(&globals_lock);
  if (known)
    free(made);
  return 0;
}

static int enter(const char *name, size_t nbytes, TVMFFIObject *function, int override,
                 int is_of_library) {
  entry *made = nbytes < SIZE_MAX / 2 ? malloc(sizeof *made + nbytes + 1) : NULL;
  TVMFFIObject *before;
  if (!made)
    return mrpc_out_of_memory();
  made->next = NULL;
  made->function = function;
  made->is_of_library = is_of_library;
  made->nbytes = nbytes;
  if (nbytes)
    memcpy(made->name, name, nbytes);
  made->name[nbytes] = 0;
  mrpc_retain(function);
  if (put_entry(made, override, &before)) {
    mrpc_release(function);
    free(made);
    return mrpc_raise("ValueError",
                      "Global function %.*s is already registered; pass override=True to replace "
                      "it",
                      nbytes < 256 ? (int)nbytes : 256, name);
  }
  mrpc_release(before);
  return 0;
}

int mrpc_global_set(const char *name, size_t nbytes, TVMFFIObject *function, int override) {
  return enter(name, nbytes, function, override, 0);
}

int mrpc_global_register(const char *name, size_t nbytes, TVMFFIObject *function, int override) {
  return enter(name, nbytes, function, override, 1) && !mrpc_postpone() ? -1 : 0;
}

int mrpc_global_remove(const char *name, size_t nbytes) {
  entry **place, *found;
  pthread_mutex_lock(&globals_lock);
  place = place_of(name, nbytes);
  found = *place;
  if (found) {
    *place = found->next;
    num_entries--;
  }
  pthread_mutex_unlock(&globals_lock);
  if (!found)
    return 0;
  mrpc_release(found->function);
  free(found);
  return 1;
}

static int compare_names(const void *one, const void *other) {
  return strcmp(*(const char *const *)one, *(const char *const *)other);
}

/* The pointers to the names, and behind them the names, in a new block. */
static const char **copied_names(void) {
  size_t nbytes = (size_t)(num_entries + 1) * sizeof(char *);
  const char **names;
  char *content;
  entry *one;
  int bucket, index = 0;
  for (bucket = 0; bucket < BUCKETS; bucket++)
    for (one = buckets[bucket]; one; one = one->next)
      nbytes += one->nbytes + 1;
  names = malloc(nbytes);
  if (!names)
    return NULL;
  content = (char *)(names + num_entries + 1);
  for (bucket = 0; bucket < BUCKETS; bucket++)
    for (one = buckets[bucket]; one; one = one->next) {
      names[index++] = memcpy(content, one->name, one->nbytes + 1);
      content += one->nbytes + 1;
    }
  names[index] = NULL;
  return names;
}

const char **mrpc_global_names(int *count) {
  const char **names;
  pthread_mutex_lock(&globals_lock);
  names = copied_names();
  *count = num_entries;
  pthread_mutex_unlock(&globals_lock);
  if (names)
    qsort(names, (size_t)*count, sizeof *names, compare_names);
  else
    mrpc_out_of_memory();
  return names;
}

/* --------------------------------------------------------------------------------- loading */

static __thread int loading;           /* how many libraries this thread is loading */
static __thread TVMFFIObject *problem; /* the first thing that one of them was refused */

void mrpc_loading_begin(void) { loading++; }

int mrpc_loading_end(void) {
  mrpc_error *refused = (mrpc_error *)problem;
  loading--;
  if (!refused)
    return 0;
  problem = NULL;
  mrpc_raise("LibraryError", "the library registers what it may not: %.*s",
             refused->message.size < 4096 ? (int)refused->message.size : 4096,
             refused->message.data);
  mrpc_release(&refused->object);
  return -1;
}

int mrpc_postpone(void) {
  TVMFFIObject *error;
  if (!loading)
    return 0;
  error = mrpc_move_raised();
  if (problem)
    mrpc_release(error);
  else
    problem = error;
  return 1;
}
