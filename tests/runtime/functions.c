/* Functions of every form that the tests of runtime/ call; plain C, without TVM's headers. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

typedef struct {
  int32_t type_index;
  uint32_t length;
  union {
    int64_t i;
    double f;
    void *p;
    char bytes[8];
  } v;
} Any;

typedef struct Object {
  uint64_t counts;
  int32_t type_index;
  uint32_t padding;
  void (*deleter)(void *, int);
} Object;

typedef struct {
  const char *data;
  size_t size;
} ByteArray;

typedef int (*SafeCall)(void *, const Any *, int32_t, Any *);

typedef struct {
  Object header;
  SafeCall safe_call;
  void *cpp_call;
} Function;

typedef struct {
  void *data;
  int32_t device_type, device_id, ndim;
  uint8_t code, bits;
  uint16_t lanes;
  int64_t *shape, *strides;
  uint64_t byte_offset;
} Tensor;

typedef struct {
  Object header;
  Tensor tensor;
  int64_t shape[2];
  float elements[4];
} TensorObject;

void (*__TVMFFIErrorSetRaisedFromCStr)(const char *, const char *) = 0;

#define FUNCTION(name) int __tvm_ffi_##name(void *self, const Any *args, int32_t n, Any *out)
#define BOTH_ONE ((1ULL << 32) | 1)

static int freed = 0;

static void set_int(Any *out, int64_t value) {
  out->type_index = 1;
  out->length = 0;
  out->v.i = value;
}

static void set_object(Any *out, void *object) {
  out->type_index = ((Object *)object)->type_index;
  out->length = 0;
  out->v.p = object;
}

static void delete_object(void *object, int flags) {
  freed++;
  if (flags & 2) free(object);
}

static void *new_object(size_t size, int type_index) {
  Object *object = calloc(1, size);
  object->counts = BOTH_ONE;
  object->type_index = type_index;
  object->deleter = delete_object;
  return object;
}

FUNCTION(nothing) { return 0; }
FUNCTION(count) { set_int(out, n); return 0; }
FUNCTION(self_is_null) { set_int(out, self == 0 && out->type_index == 0); return 0; }
FUNCTION(kind) { set_int(out, args[0].type_index); return 0; }
FUNCTION(word) { set_int(out, args[0].v.i); return 0; }
FUNCTION(echo) { /* a result is owned: an object has one more owner then */
  *out = args[0];
  if (args[0].type_index >= 64) ((Object *)args[0].v.p)->counts++;
  return 0;
}
FUNCTION(freed) { set_int(out, freed); return 0; }

FUNCTION(sum) { /* of ints */
  int64_t sum = 0;
  for (int i = 0; i < n; i++) sum += args[i].v.i;
  set_int(out, sum);
  return 0;
}

FUNCTION(add) { /* c = a + b, of n floats */
  const Tensor *a = args[0].v.p, *b = args[1].v.p, *c = args[2].v.p;
  for (int64_t i = 0; i < c->shape[0]; i++)
    ((float *)c->data)[i] = ((float *)a->data)[i] + ((float *)b->data)[i];
  return 0;
}

FUNCTION(tensor_field) {
  const Tensor *t = args[0].v.p;
  int64_t fields[] = {t->device_type, t->device_id,         t->ndim,         t->code,
                      t->bits,        t->lanes,             t->strides != 0, t->byte_offset,
                      t->shape[0],    t->shape[t->ndim - 1], (int64_t)t->data % 64};
  set_int(out, fields[args[1].v.i]);
  return 0;
}

FUNCTION(byte_sum) {
  const ByteArray *array = args[0].v.p;
  int64_t sum = 0;
  for (size_t i = 0; i < array->size; i++) sum += (unsigned char)array->data[i];
  set_int(out, sum * 1000 + (int64_t)array->size);
  return 0;
}

FUNCTION(text_length) { set_int(out, (int64_t)strlen(args[0].v.p)); return 0; }

FUNCTION(of_kind) { /* an empty value with this type index */
  out->type_index = (int32_t)args[0].v.i;
  return 0;
}

static ByteArray hello = {"he\0lo", 5};
FUNCTION(byte_array) { out->type_index = 9; out->v.p = &hello; return 0; }

static int small(Any *out, int type_index, const char *text, int length) {
  out->type_index = type_index;
  out->length = (uint32_t)length;
  memcpy(out->v.bytes, text, length);
  return 0;
}
FUNCTION(small_str) { return small(out, 11, "seven c", 7); }
FUNCTION(small_bytes) { return small(out, 12, "a\0\xff", 3); }
FUNCTION(not_utf8) { return small(out, 11, "\xff", 1); }

static void heap_text(Any *out, int type_index, const char *text, size_t size) {
  char *object = new_object(sizeof(Object) + sizeof(ByteArray) + size, type_index);
  ByteArray *array = (ByteArray *)(object + sizeof(Object));
  char *place = (char *)(array + 1);
  memcpy(place, text, size);
  array->data = place;
  array->size = size;
  set_object(out, object);
}
FUNCTION(heap_str) { heap_text(out, 65, "a text that does not fit", 24); return 0; }
FUNCTION(heap_not_utf8) { heap_text(out, 65, "\xff\xfe", 2); return 0; }
FUNCTION(heap_bytes) { heap_text(out, 66, "bytes\0that do not fit", 21); return 0; }
FUNCTION(heap_shape) { heap_text(out, 69, "", 0); return 0; }

static Any kept = {0};
FUNCTION(shared_str) { /* of which we keep a reference */
  if (!kept.v.p) heap_text(&kept, 65, "shared", 6);
  ((Object *)kept.v.p)->counts++;
  *out = kept;
  return 0;
}
FUNCTION(shared_count) { set_int(out, (int64_t)((Object *)kept.v.p)->counts); return 0; }
FUNCTION(weak_str) { /* with a weak reference besides, which nobody gives back */
  heap_text(out, 65, "weak", 4);
  ((Object *)out->v.p)->counts += 1ULL << 32;
  return 0;
}

static int add_seven(void *self, const Any *args, int32_t n, Any *out) {
  set_int(out, args[0].v.i + 7 + (self ? 0 : 1000));
  return 0;
}
FUNCTION(make_function) {
  Function *function = new_object(sizeof(Function), 68);
  function->safe_call = add_seven;
  set_object(out, function);
  return 0;
}

FUNCTION(make_tensor) { /* 2 x 2 floats; with an argument: as columns */
  TensorObject *object = new_object(sizeof(TensorObject), 70);
  static int64_t columns[] = {1, 2};
  Tensor tensor = {object->elements, 1, 0, 2, 2, 32, 1, object->shape, n ? columns : 0, 0};
  object->tensor = tensor;
  object->shape[0] = object->shape[1] = 2;
  for (int i = 0; i < 4; i++) object->elements[i] = i + 0.5f;
  set_object(out, object);
  return 0;
}

FUNCTION(call) { /* args[0](args[1], ...) */
  Function *function = args[0].v.p;
  return function->safe_call(function, args + 1, n - 1, out);
}

static void *retained = 0;
FUNCTION(retain_function) {
  retained = args[0].v.p;
  ((Object *)retained)->counts++;
  return 0;
}
FUNCTION(call_retained) { return ((Function *)retained)->safe_call(retained, args, n, out); }
FUNCTION(release_function) { /* as TVMFFIObjectDecRef does for the last reference */
  Object *object = retained;
  if (object->counts == BOTH_ONE) object->deleter(object, 3);
  else object->counts--;
  retained = 0;
  return 0;
}

FUNCTION(call_and_recover) { /* an error of args[0] is overcome */
  Function *function = args[0].v.p;
  if (function->safe_call(function, args + 1, n - 1, out)) set_int(out, -1);
  return 0;
}
FUNCTION(fail_and_clean_up) { /* an error stays recorded while args[0] is called */
  Function *function = args[0].v.p;
  Any ignored = {0};
  __TVMFFIErrorSetRaisedFromCStr("ValueError", "the first");
  function->safe_call(function, 0, 0, &ignored);
  return -1;
}

FUNCTION(fail) {
  __TVMFFIErrorSetRaisedFromCStr(args[0].v.p, args[1].v.p);
  return -1;
}
FUNCTION(fail_silently) { return -1; }
FUNCTION(record_and_succeed) {
  __TVMFFIErrorSetRaisedFromCStr("ValueError", "stale");
  return 0;
}

int __tvm_ffi__reserved(void *self, const Any *args, int32_t n, Any *out) { return 0; }
int old_style(void) { return 0; }
