/* What the parts of the runtime know of each other's objects: object.c, tensors.c,
 * failures.c, globals.c, types.c, c_api.c, containers.c, legacy.c and backend.c. */
#ifndef MRPC_OBJECTS_H_
#define MRPC_OBJECTS_H_

#include "ffi.h"

#define MRPC_ONE_OF_EACH ((UINT64_C(1) << 32) | 1) /* a strong and a weak reference */

enum { MRPC_DELETE_STRONG = 1, MRPC_DELETE_WEAK = 2 };
enum { MRPC_SMALL_TEXT = 7 }; /* bytes that fit into a TVMFFIAny, with a NUL */

/* An error object; what TVM knows of it, and behind it the texts. */
typedef struct {
  TVMFFIObject object;
  TVMFFIByteArray kind, message, backtrace;
  void (*update_backtrace)(void *self, const TVMFFIByteArray *text, int32_t mode);
  TVMFFIObject *cause, *context;
  char texts[];
} mrpc_error;

/* A shape; its lengths follow. */
typedef struct {
  TVMFFIObject object;
  int64_t *lengths;
  size_t size;
} mrpc_shape;

/* Arrays and lists; the elements of an array of ours follow. */
typedef struct {
  TVMFFIObject object;
  TVMFFIAny *elements;
  int64_t size, capacity;
  void (*end_elements)(void *elements);
} mrpc_array;

/* Ends objects in a loop, however deep they are nested. The deleter of an object calls it with a
 * function that gives back what the object holds; its memory is freed here. */
void mrpc_end(void *object, int flags, void (*drop)(void *object));

/* The `safe_call` of functions that are made here: it calls their `call`. */
int mrpc_inner_call(void *handle, const TVMFFIAny *args, int32_t num_args, TVMFFIAny *result);

/* Any values */

void mrpc_put_object(TVMFFIAny *any, TVMFFIObject *object); /* takes over the reference */
void mrpc_put_pointer(TVMFFIAny *any, int32_t type_index, const void *pointer);
/* Text or bytes, in the word where they fit; is_text: of the kind STR. 0, or -1 with an error. */
int mrpc_put_text(TVMFFIAny *any, int is_text, const void *content, size_t nbytes);
/* A borrowed value as one of the owner's: 0, or -1 with an error. */
int mrpc_own(const TVMFFIAny *view, TVMFFIAny *out);
/* Whether text or bytes is text; for those that mrpc_content_of takes. */
int mrpc_is_text(const TVMFFIAny *any);
/* Whether two values are the same to a container: by content if they are text, by bits if not. */
int mrpc_is_same(const TVMFFIAny *one, const TVMFFIAny *other);
const char *mrpc_name_of(const TVMFFIAny *any); /* of its type, for messages */
/* The object of a value, if it is one of this type; else NULL. */
void *mrpc_object_in(const TVMFFIAny *any, int32_t type_index);

/* Tensors */

/* An object that describes memory of somebody else, whom `end` gives back when it ends. Strides are
 * made up if there are none. On an error nothing is given back. */
mrpc_tensor *mrpc_tensor_over(const DLTensor *record, void *owner, void (*end)(void *owner));
/* Whether there can be such a tensor: 0, or -1 with an error. */
int mrpc_check_tensor(const DLTensor *record);
int mrpc_is_dense(const DLTensor *record);
int mrpc_check_device(int32_t device_type); /* 0 for the CPU; -1 with an error for others */

/* The name of a data type, "" for void; returns its length. */
size_t mrpc_dtype_name(mrpc_dtype dtype, char *out);
enum { MRPC_DTYPE_NAME = 48 }; /* room for any of them */

/* Errors */

TVMFFIObject *mrpc_error_new(TVMFFIByteArray kind, TVMFFIByteArray message,
                             TVMFFIByteArray backtrace, TVMFFIObject *cause, TVMFFIObject *context);
/* Raises with a message in one piece, of any length. */
void mrpc_raise_text(TVMFFIByteArray kind, TVMFFIByteArray message);
void mrpc_set_raised(TVMFFIObject *error);  /* takes over the reference */
TVMFFIObject *mrpc_move_raised(void);       /* NULL, if there is none */
const mrpc_error *mrpc_peek_raised(void);   /* the same, but it stays */
/* After a call that failed: raises, if it did not say why. -1. */
int mrpc_unsaid(const char *what, int code, const char *how);
int mrpc_out_of_memory(void);               /* raises; -1 */
/* Raises a text that may begin with the kind of the error ("ValueError: "). */
MRPC_EXPORT void TVMAPISetLastError(const char *text);
/* A call made for code that may have an error pending, which stays if the call succeeds. */
int mrpc_call_within(TVMFFIObject *function, const TVMFFIAny *args, int32_t num_args,
                     TVMFFIAny *result);

/* Containers */

typedef struct {
  TVMFFIAny key, value;
} mrpc_pair;

/* Where one is in a map; zeros at first. */
typedef struct {
  uint64_t number, slot;
} mrpc_place;

TVMFFIObject *mrpc_array_new(const TVMFFIAny *values, size_t count); /* which are lent */
TVMFFIObject *mrpc_map_new(const TVMFFIAny *keys_and_values, size_t num_pairs);
int64_t mrpc_map_size(const void *map); /* maps and dicts */
mrpc_pair *mrpc_map_next(const void *map, mrpc_place *place); /* in their order; NULL at the end */
TVMFFIAny *mrpc_map_find(const void *map, const TVMFFIAny *key);

/* Global functions */

/* As a library registers it: a library's own name may be taken again. An error is postponed while a
 * library is loaded. */
int mrpc_global_register(const char *name, size_t nbytes, TVMFFIObject *function, int override);
TVMFFIObject *mrpc_global_get(const char *name, size_t nbytes); /* a new reference, or NULL */
int mrpc_global_remove(const char *name, size_t nbytes);        /* 1 if there was one */
/* All names, sorted, as one block to be freed; NULL with an error. They stay as long as it. */
const char **mrpc_global_names(int *count);
/* Keeps what was raised until the library that is being loaded is there: 1; 0 if none is. */
int mrpc_postpone(void);

uint64_t mrpc_hash_of(const char *text, size_t nbytes); /* FNV-1a: the same in every process */

static inline TVMFFIByteArray mrpc_bytes_of(const char *text, size_t nbytes) {
  TVMFFIByteArray array;
  array.data = text;
  array.size = nbytes;
  return array;
}

#endif /* MRPC_OBJECTS_H_ */
