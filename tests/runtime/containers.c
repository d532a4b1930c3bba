/* Containers as compiled code has them, by a reader of its own: arrays, lists and maps of tvm-ffi. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

typedef struct {
  int32_t type_index;
  uint32_t length;
  union {
    int64_t i;
    uint64_t u;
    void *p;
    char bytes[8];
  } v;
} Any;

typedef struct {
  uint64_t counts;
  int32_t type_index;
  uint32_t padding;
  void (*deleter)(void *, int);
} Object;

typedef struct {
  Object header;
  const char *data;
  size_t size;
} Text;

typedef struct {
  Object header;
  Any *data;
  int64_t size, capacity;
  void (*data_deleter)(void *);
  Any inside[];
} Sequence;

typedef struct {
  Object header;
  char *data;
  uint64_t size, slots;
  void (*data_deleter)(void *);
  union {
    Any inside[8];
    struct {
      uint32_t shift;
      uint64_t first, last;
    };
  };
} Map;

typedef struct {
  Object header;
  int64_t *data;
  size_t size;
} Shape;

#define FUNCTION(name) int __tvm_ffi_##name(void *self, const Any *args, int32_t n, Any *out)
#define BOTH_ONE ((1ULL << 32) | 1)
#define SMALL (1ULL << 63)

void (*__TVMFFIErrorSetRaisedFromCStr)(const char *, const char *) = 0;

static int64_t alive = 0;

static void set_int(Any *out, int64_t value) {
  Any any = {1, 0, {value}};
  *out = any;
}

static Any retained(Any any) {
  if (any.type_index >= 64) ((Object *)any.v.p)->counts++;
  return any;
}

static void release(Any any) {
  if (any.type_index < 64) return;
  Object *object = any.v.p;
  if (object->counts == BOTH_ONE) {
    if (object->deleter) object->deleter(object, 3);
  } else {
    object->counts--;
  }
}

static void delete_sequence(void *object, int flags) {
  Sequence *sequence = object;
  if (flags & 1) {
    for (int64_t i = 0; i < sequence->size; i++) release(sequence->data[i]);
    alive--;
  }
  if (flags & 2) free(object);
}

static void delete_map(void *object, int flags) {
  Map *map = object;
  if (flags & 1) {
    for (uint64_t i = 0; i < 2 * map->size; i++) release(map->inside[i]);
    alive--;
  }
  if (flags & 2) free(object);
}

static void delete_plain(void *object, int flags) {
  if (flags & 1) alive--;
  if (flags & 2) free(object);
}

static void *new_object(size_t size, int32_t type_index, void (*deleter)(void *, int)) {
  Object *object = calloc(1, size);
  object->counts = BOTH_ONE;
  object->type_index = type_index;
  object->deleter = deleter;
  alive++;
  return object;
}

static void set_object(Any *out, void *object) {
  out->type_index = ((Object *)object)->type_index;
  out->v.p = object;
}

/* values */
FUNCTION(echo) { *out = retained(args[0]); return 0; }
FUNCTION(kind) { set_int(out, args[0].type_index); return 0; }
FUNCTION(counts) { set_int(out, ((Object *)args[0].v.p)->counts); return 0; }
FUNCTION(alive) { set_int(out, alive); return 0; }
FUNCTION(make_object) { /* of a class that nobody knows */
  set_object(out, new_object(sizeof(Object), args[0].v.i, delete_plain));
  return 0;
}

static Any kept = {0};
FUNCTION(keep) { release(kept); kept = retained(args[0]); return 0; }
FUNCTION(give) { *out = kept; memset(&kept, 0, sizeof kept); return 0; }

/* arrays, lists, shapes */
FUNCTION(make_sequence) { /* args[0]: the type index */
  Sequence *made = new_object(sizeof(Sequence) + n * sizeof(Any), args[0].v.i, delete_sequence);
  made->data = made->inside;
  made->size = made->capacity = n - 1;
  for (int32_t i = 1; i < n; i++) made->inside[i - 1] = retained(args[i]);
  set_object(out, made);
  return 0;
}
FUNCTION(element) {
  Sequence *sequence = args[0].v.p;
  *out = retained(sequence->data[args[1].v.i]);
  return 0;
}
FUNCTION(replace_first) { /* in place, as C++ does it with an array that nobody else holds */
  Sequence *sequence = args[0].v.p;
  release(sequence->data[0]);
  sequence->data[0] = retained(args[1]);
  return 0;
}
FUNCTION(product) {
  Shape *shape = args[0].v.p;
  int64_t product = 1;
  for (size_t i = 0; i < shape->size; i++) product *= shape->data[i];
  set_int(out, product);
  return 0;
}
FUNCTION(make_shape) {
  static int64_t lengths[] = {2, 3, -1};
  Shape *shape = new_object(sizeof(Shape), 69, delete_plain);
  shape->data = lengths;
  shape->size = args[0].v.i;
  set_object(out, shape);
  return 0;
}

/* maps */
FUNCTION(make_map) { /* up to four pairs; args[0]: the type index */
  Map *map = new_object(sizeof(Map), args[0].v.i, delete_map);
  map->data = (char *)map->inside;
  map->size = (n - 1) / 2;
  map->slots = SMALL | 4;
  for (int32_t i = 1; i < n; i++) map->inside[i - 1] = retained(args[i]);
  set_object(out, map);
  return 0;
}

static uint64_t combine(uint64_t kind, uint64_t value) {
  return kind ^ (value + 0x9e3779b9 + (kind << 6) + (kind >> 2));
}

static uint64_t hash_bytes(const void *bytes, size_t size) { /* as little-endian words */
  uint64_t result = 0;
  for (size_t i = 0; i < size; i += 8) {
    uint64_t part = 0;
    for (size_t j = 0; j < 8 && i + j < size; j++)
      part |= (uint64_t)((const unsigned char *)bytes)[i + j] << 8 * j;
    result = (result * 1099511628211ULL + part) % 2147483647;
  }
  return result;
}

static uint64_t hash(Any key) {
  if (key.type_index == 11 || key.type_index == 12) {
    int is_little = *(char *)&(int){1};
    const void *hashed = is_little ? (const void *)&key.v : (const void *)&key; /* so has C++ it */
    return combine(key.type_index + 54, hash_bytes(hashed, 8));
  }
  if (key.type_index == 65 || key.type_index == 66) {
    const Text *text = key.v.p;
    return combine(key.type_index, hash_bytes(text->data, text->size));
  }
  return combine(key.type_index, key.v.u);
}

static int equal(Any a, Any b) {
  if (a.type_index != b.type_index) return 0;
  if (a.type_index == 65 || a.type_index == 66) {
    const Text *s = a.v.p, *t = b.v.p;
    return s->size == t->size && !memcmp(s->data, t->data, s->size);
  }
  return a.v.u == b.v.u && a.length == b.length;
}

static uint64_t jump(uint8_t mark) {
  uint64_t number = mark & 0x7f;
  return number < 16 ? number : (number - 10) * (number - 9) / 2;
}

static Any *find(Map *map, Any key) {
  if (map->slots & SMALL) {
    for (uint64_t i = 0; i < map->size; i++) {
      Any *pair = (Any *)map->data + 2 * i;
      if (equal(pair[0], key)) return pair + 1;
    }
    return 0;
  }
  uint64_t slot = (11400714819323198485ULL * hash(key)) >> map->shift;
  for (int is_first = 1;; is_first = 0) {
    char *block = map->data + slot / 16 * (16 + 16 * 48);
    uint8_t mark = block[slot % 16];
    if (is_first && mark & 0x80) return 0;
    Any *pair = (Any *)(block + 16 + slot % 16 * 48);
    if (equal(pair[0], key)) return pair + 1;
    if (!jump(mark)) return 0;
    slot = (slot + jump(mark)) % map->slots;
  }
}

FUNCTION(value_of) { /* args[1] in a container, as keys are: no borrowed text */
  Any *found = find(args[0].v.p, ((Sequence *)args[1].v.p)->data[0]);
  if (!found) {
    __TVMFFIErrorSetRaisedFromCStr("KeyError", "key is not in Map");
    return -1;
  }
  *out = retained(*found);
  return 0;
}
FUNCTION(slots) { set_int(out, ((Map *)args[0].v.p)->slots & ~SMALL); return 0; }
FUNCTION(is_small) { set_int(out, (((Map *)args[0].v.p)->slots & SMALL) != 0); return 0; }
