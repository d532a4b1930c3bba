/* Objects: their references, functions among them, and the values that hold them. */
#include <stdlib.h>
#include <string.h>

#include "objects.h"

/* ------------------------------------------------------------------------------ references */

static void run_deleter(TVMFFIObject *object, int flags) {
  __atomic_thread_fence(__ATOMIC_ACQUIRE);
  if (object->end.deleter)
    object->end.deleter(object, flags);
}

void mrpc_retain(TVMFFIObject *object) {
  if (object)
    __atomic_fetch_add(&object->combined_ref_count, 1, __ATOMIC_RELAXED);
}

static void release_weak(TVMFFIObject *object) {
  uint64_t weak = UINT64_C(1) << 32;
  if (__atomic_fetch_sub(&object->combined_ref_count, weak, __ATOMIC_RELEASE) == weak)
    run_deleter(object, MRPC_DELETE_WEAK);
}

void mrpc_release(TVMFFIObject *object) {
  uint64_t before;
  if (!object)
    return;
  before = __atomic_fetch_sub(&object->combined_ref_count, 1, __ATOMIC_RELEASE);
  if (before == MRPC_ONE_OF_EACH) {
    run_deleter(object, MRPC_DELETE_STRONG | MRPC_DELETE_WEAK);
  } else if ((uint32_t)before == 1) {
    run_deleter(object, MRPC_DELETE_STRONG);
    release_weak(object);
  }
}

/* An object that waits for its end needs neither its count nor its deleter any more. */
typedef struct waiting {
  union {
    struct waiting *next;
    uint64_t count;
  } link;
  int32_t type_index;
  uint32_t padding;
  union {
    void (*drop)(void *object);
    int64_t align;
  } end;
} waiting;

static __thread waiting *to_end;
static __thread int is_ending;

void mrpc_end(void *object, int flags, void (*drop)(void *object)) {
  waiting *one = object;
  if (flags == MRPC_DELETE_STRONG) { /* not in turn: its weak references may go before */
    drop(object);
    return;
  }
  if (flags == MRPC_DELETE_WEAK) {
    free(object);
    return;
  }
  one->end.drop = drop;
  one->link.next = to_end;
  to_end = one;
  if (is_ending)
    return;
  is_ending = 1;
  while ((one = to_end) != NULL) {
    to_end = one->link.next;
    one->end.drop(one);
    free(one);
  }
  is_ending = 0;
}

static void drop_nothing(void *object) { (void)object; }

static void delete_plain(void *self, int flags) { mrpc_end(self, flags, drop_nothing); }

void *mrpc_object_new(size_t nbytes, int32_t type_index, void (*deleter)(void *self, int flags)) {
  TVMFFIObject *object = calloc(1, nbytes);
  if (!object) {
    mrpc_out_of_memory();
    return NULL;
  }
  object->combined_ref_count = MRPC_ONE_OF_EACH;
  object->type_index = type_index;
  object->end.deleter = deleter ? deleter : delete_plain;
  return object;
}

TVMFFIObject *mrpc_text_new(int32_t type_index, const void *content, size_t nbytes) {
  mrpc_text *text = NULL;
  if (nbytes > SIZE_MAX - sizeof *text - 1)
    mrpc_out_of_memory();
  else
    text = mrpc_object_new(sizeof *text + nbytes + 1, type_index, NULL);
  if (!text)
    return NULL;
  text->content = mrpc_bytes_of((char *)(text + 1), nbytes);
  if (nbytes)
    memcpy(text + 1, content, nbytes);
  return &text->object;
}

/* ------------------------------------------------------------------------------- functions */

int mrpc_inner_call(void *handle, const TVMFFIAny *args, int32_t num_args, TVMFFIAny *result) {
  mrpc_function *function = handle;
  return function->call(function->self, args, num_args, result);
}

static void drop_function(void *object) {
  mrpc_function *function = object;
  if (function->end_self)
    function->end_self(function->self);
}

static void delete_function(void *self, int flags) { mrpc_end(self, flags, drop_function); }

TVMFFIObject *mrpc_function_new(TVMFFISafeCallType call, void *self, void (*end_self)(void *self)) {
  mrpc_function *function = mrpc_object_new(sizeof *function, MRPC_TYPE_FUNCTION, delete_function);
  if (!function)
    return NULL;
  function->safe_call = mrpc_inner_call;
  function->call = call;
  function->self = self;
  function->end_self = end_self;
  return &function->object;
}

static int call_object(TVMFFIObject *function, const TVMFFIAny *args, int32_t num_args,
                       TVMFFIAny *result) {
  TVMFFISafeCallType call;
  int code;
  if (!function)
    return mrpc_raise("ValueError", "compiled code called a function that is NULL");
  call = ((mrpc_function *)function)->safe_call;
  if (function->type_index != MRPC_TYPE_FUNCTION || !call)
    return mrpc_raise("ValueError", "compiled code called an object that is no function");
  code = call(function, args, num_args, result);
  return code ? mrpc_unsaid("a function", code, "TVMFFIErrorSetRaisedFromCStr") : 0;
}

int mrpc_call(TVMFFIObject *function, const TVMFFIAny *args, int32_t num_args, TVMFFIAny *result) {
  if (mrpc_peek_raised())
    mrpc_set_raised(NULL); /* of a function that raised, and then succeeded all the same */
  return call_object(function, args, num_args, result);
}

int mrpc_call_within(TVMFFIObject *function, const TVMFFIAny *args, int32_t num_args,
                     TVMFFIAny *result) {
  TVMFFIObject *pending = mrpc_move_raised();
  int code = call_object(function, args, num_args, result);
  if (code)
    mrpc_release(pending);
  else if (pending || mrpc_peek_raised())
    mrpc_set_raised(pending);
  return code;
}

/* ---------------------------------------------------------------------------------- values */

void mrpc_drop(TVMFFIAny *any) {
  TVMFFIObject *object = any->type_index >= MRPC_TYPE_OBJECT ? any->as.v_obj : NULL;
  memset(any, 0, sizeof *any);
  mrpc_release(object);
}

void mrpc_keep(const TVMFFIAny *any) {
  if (any->type_index >= MRPC_TYPE_OBJECT)
    mrpc_retain(any->as.v_obj);
}

void mrpc_put_pointer(TVMFFIAny *any, int32_t type_index, const void *pointer) {
  memset(any, 0, sizeof *any); /* a pointer may be shorter than the word */
  any->type_index = type_index;
  any->as.v_ptr = (void *)(uintptr_t)pointer;
}

void mrpc_put_object(TVMFFIAny *any, TVMFFIObject *object) {
  mrpc_put_pointer(any, object ? object->type_index : MRPC_TYPE_NONE, object);
}

int mrpc_put_text(TVMFFIAny *any, int is_text, const void *content, size_t nbytes) {
  TVMFFIObject *object;
  memset(any, 0, sizeof *any);
  if (nbytes <= MRPC_SMALL_TEXT) {
    any->type_index = is_text ? MRPC_TYPE_SMALL_STR : MRPC_TYPE_SMALL_BYTES;
    any->small_len = (uint32_t)nbytes;
    if (nbytes)
      memcpy(any->as.v_bytes, content, nbytes);
    return 0;
  }
  object = mrpc_text_new(is_text ? MRPC_TYPE_STR : MRPC_TYPE_BYTES, content, nbytes);
  mrpc_put_object(any, object);
  return object ? 0 : -1;
}

int mrpc_content_of(const TVMFFIAny *any, TVMFFIByteArray *content) {
  switch (any->type_index) {
    case MRPC_TYPE_RAW_STR:
      *content = mrpc_bytes_of(any->as.v_c_str, any->as.v_c_str ? strlen(any->as.v_c_str) : 0);
      return 0;
    case MRPC_TYPE_BYTE_ARRAY_PTR:
      *content = any->as.v_ptr ? *(TVMFFIByteArray *)any->as.v_ptr : mrpc_bytes_of(NULL, 0);
      break;
    case MRPC_TYPE_SMALL_STR:
    case MRPC_TYPE_SMALL_BYTES:
      *content = mrpc_bytes_of(any->as.v_bytes, any->small_len);
      break;
    case MRPC_TYPE_STR:
    case MRPC_TYPE_BYTES:
      *content = ((mrpc_text *)any->as.v_obj)->content;
      break;
    default:
      return -1;
  }
  if (!content->data)
    content->size = 0;
  return 0;
}

int mrpc_is_text(const TVMFFIAny *any) {
  return any->type_index == MRPC_TYPE_RAW_STR || any->type_index == MRPC_TYPE_SMALL_STR ||
         any->type_index == MRPC_TYPE_STR;
}

static int own_moved(TVMFFIObject **place, TVMFFIAny *out) {
  TVMFFIObject *moved = place ? *place : NULL;
  if (place)
    *place = NULL;
  mrpc_put_object(out, moved);
  return 0;
}

int mrpc_own(const TVMFFIAny *view, TVMFFIAny *out) {
  int32_t kind = view->type_index;
  TVMFFIByteArray content;
  if (kind == MRPC_TYPE_RAW_STR || kind == MRPC_TYPE_BYTE_ARRAY_PTR) {
    mrpc_content_of(view, &content);
    return mrpc_put_text(out, mrpc_is_text(view), content.data, content.size);
  }
  if (kind == MRPC_TYPE_OBJECT_RVALUE_REF)
    return own_moved(view->as.v_ptr, out);
  mrpc_keep(view);
  *out = *view;
  return 0;
}

void *mrpc_object_in(const TVMFFIAny *any, int32_t type_index) {
  return any->type_index == type_index ? any->as.v_obj : NULL;
}
