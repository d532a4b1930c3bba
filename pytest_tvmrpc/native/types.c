/* The types of objects by their index: what libraries register of their classes, and ask. A type
 * stays for ever, as its library does, and so does memory that C++ may be reading. */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "objects.h"

/* Layouts of TVM's C API */

typedef struct {
  TVMFFIByteArray name, doc, metadata;
  int64_t flags, size, alignment, offset;
  int (*getter)(void *field, TVMFFIAny *result);
  void *setter;
  TVMFFIAny default_value;
  int32_t static_type_index;
} TVMFFIFieldInfo;

typedef struct {
  TVMFFIByteArray name, doc, metadata;
  int64_t flags;
  TVMFFIAny method;
} TVMFFIMethodInfo;

typedef struct {
  TVMFFIByteArray doc;
  int (*creator)(void **result);
  int32_t total_size;
  int32_t structural_kind;
} TVMFFITypeMetadata;

typedef struct {
  TVMFFIAny *data;
  int32_t size, begin_index;
} TVMFFITypeAttrColumn;

typedef struct TVMFFITypeInfo {
  int32_t type_index, type_depth;
  TVMFFIByteArray type_key;
  const struct TVMFFITypeInfo **type_ancestors;
  uint64_t type_key_hash;
  int32_t num_fields, num_methods;
  void *fields, *methods;
  const TVMFFITypeMetadata *metadata;
} TVMFFITypeInfo;

enum { HAS_DEFAULT = 1 << 1, SETTER_IS_FUNCTION = 1 << 11 };

/* ------------------------------------------------------------------------------- the table */

typedef struct type {
  TVMFFITypeInfo info;
  struct type *next, *parent;
  int64_t slots, used_slots; /* indices for classes derived from it, its own included */
  int can_overflow, is_unknown;
  int32_t room_for_fields, room_for_methods;
} type;

typedef struct column {
  TVMFFITypeAttrColumn head;
  struct column *next;
  TVMFFIByteArray name;
} column;

enum { BUCKETS = 64, FIRST_DYNAMIC = 128, MAX_SLOTS = 1 << 20, MAX_INDEX = 1 << 30 };

static type *buckets[BUCKETS]; /* by index */
static column *columns;
static int64_t next_index = FIRST_DYNAMIC;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static type *find_index(int32_t index) {
  type *one = __atomic_load_n(&buckets[(uint32_t)index % BUCKETS], __ATOMIC_ACQUIRE);
  while (one && one->info.type_index != index)
    one = one->next;
  return one;
}

static int is_same(TVMFFIByteArray one, TVMFFIByteArray other) {
  return one.size == other.size && (!one.size || memcmp(one.data, other.data, one.size) == 0);
}

static type *find_key(TVMFFIByteArray key) {
  type *one;
  int bucket;
  for (bucket = 0; bucket < BUCKETS; bucket++)
    for (one = __atomic_load_n(&buckets[bucket], __ATOMIC_ACQUIRE); one; one = one->next)
      if (!one->is_unknown && is_same(one->info.type_key, key))
        return one;
  return NULL;
}

static TVMFFIByteArray copied(TVMFFIByteArray text) {
  char *memory = text.size && text.data ? malloc(text.size + 1) : NULL;
  if (!memory)
    return mrpc_bytes_of(NULL, 0);
  memcpy(memory, text.data, text.size);
  memory[text.size] = 0;
  return mrpc_bytes_of(memory, text.size);
}

/* Enters a type under an index that is free; NULL if there is no memory. */
static type *add(int32_t index, TVMFFIByteArray key, type *parent, int64_t slots) {
  type *made = calloc(1, sizeof *made), *one;
  int32_t depth = parent ? parent->info.type_depth + 1 : 0;
  if (!made)
    return NULL;
  made->info.type_index = index;
  made->info.type_depth = depth;
  made->info.type_key = copied(key);
  made->info.type_key_hash = mrpc_hash_of(key.data, key.size);
  made->info.type_ancestors = calloc((size_t)depth + 1, sizeof *made->info.type_ancestors);
  if (!made->info.type_ancestors) {
    free((void *)(uintptr_t)made->info.type_key.data);
    free(made);
    return NULL;
  }
  for (one = parent; one; one = one->parent)
    made->info.type_ancestors[one->info.type_depth] = &one->info;
  made->parent = parent;
  made->slots = slots;
  made->used_slots = 1;
  made->can_overflow = 1;
  made->next = buckets[(uint32_t)index % BUCKETS];
  __atomic_store_n(&buckets[(uint32_t)index % BUCKETS], made, __ATOMIC_RELEASE);
  return made;
}

/* The types that have the same index everywhere; those from 64 on are objects. */
static void add_static_types(void) {
  static const char keys[] =
      "None\0int\0bool\0float\0void*\0DataType\0Device\0DLTensor*\0const char*\0"
      "TVMFFIByteArray*\0ObjectRValueRef\0ffi.SmallStr\0ffi.SmallBytes\0ffi.Unchanged\0"
      "ffi.Object\0ffi.String\0ffi.Bytes\0ffi.Error\0ffi.Function\0ffi.Shape\0ffi.Tensor\0"
      "ffi.Array\0ffi.Map\0ffi.Module\0ffi.OpaquePyObject\0ffi.List\0ffi.Dict\0"
      "ffi.VisitInterrupt\0ffi.BigInt\0";
  const char *key = keys;
  type *object = NULL;
  int32_t index;
  for (index = 0; *key; index++) {
    type *made;
    if (index == MRPC_TYPE_SMALL_BYTES + 2)
      index = MRPC_TYPE_OBJECT;
    made = add(index, mrpc_bytes_of(key, strlen(key)), object, 1);
    if (index == MRPC_TYPE_OBJECT)
      object = made;
    key += strlen(key) + 1;
  }
}

static void begin(void) {
  static pthread_once_t once = PTHREAD_ONCE_INIT;
  pthread_once(&once, add_static_types);
}

const char *mrpc_type_key(int32_t type_index) {
  type *found;
  begin();
  found = find_index(type_index);
  return found && !found->is_unknown ? found->info.type_key.data : NULL;
}

/* An index behind the parent's own, where those reserved for it suffice; -1 with an error. */
static int32_t free_index(type *parent, int64_t slots, TVMFFIByteArray key) {
  int64_t index;
  if (parent->used_slots + slots <= parent->slots) {
    index = parent->info.type_index + parent->used_slots;
    parent->used_slots += slots;
    return (int32_t)index;
  }
  if (!parent->can_overflow || next_index + slots > MAX_INDEX)
    return mrpc_raise("LibraryError",
                      "compiled code enters the type '%.*s', for which %s has no index left (it "
                      "reserves %d and allows no others); expected a parent with more "
                      "_type_child_slots",
                      key.size < 200 ? (int)key.size : 200, key.data, parent->info.type_key.data,
                      (int)parent->slots - 1);
  index = next_index;
  next_index += slots;
  return (int32_t)index;
}

static int32_t allocate(TVMFFIByteArray key, int32_t static_index, int64_t slots, int can_overflow,
                        int32_t parent_index) {
  type *known = find_key(key), *parent, *taken, *made;
  int32_t index = static_index;
  if (known)
    return known->info.type_index;
  if (parent_index == -2)
    return -2; /* it was only looked for */
  parent = parent_index >= 0 ? find_index(parent_index) : NULL;
  taken = static_index < 0 ? NULL : find_index(static_index);
  slots = (slots < 0 ? 0 : slots > MAX_SLOTS ? MAX_SLOTS : slots) + 1;
  if (static_index < 0 || (taken && !taken->is_unknown)) {
    parent = parent ? parent : find_index(MRPC_TYPE_OBJECT);
    index = parent ? free_index(parent, slots, key) : -1;
  }
  if (index < 0)
    return -1;
  made = add(index, key, parent, slots);
  if (!made)
    return mrpc_out_of_memory();
  made->can_overflow = can_overflow && (!parent || parent->can_overflow);
  return index;
}

/* The index of a type, entered if it is new; -1, which no object can have, where there is none: C++
 * keeps what it gets without a look, mostly while its library is loaded, which fails then. */
MRPC_EXPORT int32_t TVMFFITypeGetOrAllocIndex(const TVMFFIByteArray *key, int32_t static_index,
                                              int32_t depth, int32_t slots, int32_t can_overflow,
                                              int32_t parent_index) {
  int32_t index;
  (void)depth;
  begin();
  pthread_mutex_lock(&lock);
  index = allocate(*key, static_index, slots, can_overflow, parent_index);
  pthread_mutex_unlock(&lock);
  if (index == -1)
    mrpc_postpone();
  return index;
}

MRPC_EXPORT int TVMFFITypeKeyToIndex(const TVMFFIByteArray *key, int32_t *out) {
  type *found;
  begin();
  found = find_key(*key);
  if (!found)
    return mrpc_raise("ValueError", "no type is called '%.*s'; expected one that was registered",
                      key->size < 200 ? (int)key->size : 200, key->data);
  *out = found->info.type_index;
  return 0;
}

/* C++ reads what it gets without a check, so an index that nobody has gets a description, too. */
MRPC_EXPORT const TVMFFITypeInfo *TVMFFIGetTypeInfo(int32_t index) {
  char key[48];
  type *found;
  begin();
  found = find_index(index);
  if (found)
    return &found->info;
  pthread_mutex_lock(&lock);
  found = find_index(index);
  if (!found) {
    int size = snprintf(key, sizeof key, "(unknown type %d)", (int)index);
    found = add(index, mrpc_bytes_of(key, (size_t)size), NULL, 1);
    if (found)
      found->is_unknown = 1;
  }
  pthread_mutex_unlock(&lock);
  return found ? &found->info : &find_index(MRPC_TYPE_OBJECT)->info;
}

/* --------------------------------------------------------------------- what classes register */

/* The type with this index, locked; NULL with an error. */
static type *locked(int32_t index) {
  type *one;
  begin();
  pthread_mutex_lock(&lock);
  one = find_index(index);
  if (one && !one->is_unknown)
    return one;
  pthread_mutex_unlock(&lock);
  mrpc_raise("LibraryError",
             "compiled code registers something for type index %d, which no type has; expected an "
             "index that TVMFFITypeGetOrAllocIndex gave",
             (int)index);
  return NULL;
}

/* A bigger copy of memory that stays where it is, since others may be reading it: the new one
 * refers to it. NULL if there is none. */
static void *grown(const void *old, size_t old_nbytes, size_t nbytes) {
  enum { HEAD = 16 };
  char *made = calloc(1, HEAD + nbytes);
  if (!made)
    return NULL;
  if (old) {
    const char *before = (const char *)old - HEAD;
    memcpy(made, &before, sizeof before);
    memcpy(made + HEAD, old, old_nbytes);
  }
  return made + HEAD;
}

/* The place for a record, which begins with its name: that of one of the same name, or behind all.
 * NULL if there is no memory. */
static void *place_for(void **records, int32_t *count, int32_t *room, size_t nbytes,
                       TVMFFIByteArray name) {
  int32_t index;
  char *at = *records;
  for (index = 0; index < *count; index++, at += nbytes)
    if (is_same(*(TVMFFIByteArray *)at, name))
      return at;
  if (*count == *room) {
    int32_t more = *room ? 2 * *room : 4;
    char *made = grown(*records, (size_t)*count * nbytes, (size_t)more * nbytes);
    if (!made)
      return NULL;
    *room = more;
    *records = made;
    at = made + (size_t)*count * nbytes;
  }
  (*count)++;
  return at;
}

static int finish(const void *record) {
  pthread_mutex_unlock(&lock);
  return record ? 0 : mrpc_out_of_memory();
}

/* One of the same name is replaced: a library that is loaded again registers its classes again. */
MRPC_EXPORT int TVMFFITypeRegisterField(int32_t index, const TVMFFIFieldInfo *given) {
  type *one = locked(index);
  TVMFFIFieldInfo field = *given, *place;
  if (!one)
    return -1;
  field.name = copied(given->name);
  field.doc = copied(given->doc);
  field.metadata = copied(given->metadata);
  if (given->flags & HAS_DEFAULT)
    mrpc_own(&given->default_value, &field.default_value);
  if (given->flags & SETTER_IS_FUNCTION)
    mrpc_retain(given->setter);
  place = place_for(&one->info.fields, &one->info.num_fields, &one->room_for_fields, sizeof field,
                    field.name);
  if (place)
    *place = field;
  return finish(place);
}

MRPC_EXPORT int TVMFFITypeRegisterMethod(int32_t index, const TVMFFIMethodInfo *given) {
  type *one = locked(index);
  TVMFFIMethodInfo method = *given, *place;
  if (!one)
    return -1;
  method.name = copied(given->name);
  method.doc = copied(given->doc);
  method.metadata = copied(given->metadata);
  mrpc_own(&given->method, &method.method);
  place = place_for(&one->info.methods, &one->info.num_methods, &one->room_for_methods,
                    sizeof method, method.name);
  if (place)
    *place = method;
  return finish(place);
}

MRPC_EXPORT int TVMFFITypeRegisterMetadata(int32_t index, const TVMFFITypeMetadata *given) {
  type *one = locked(index);
  TVMFFITypeMetadata *metadata;
  if (!one)
    return -1;
  metadata = grown(one->info.metadata, 0, sizeof *metadata);
  if (metadata) {
    *metadata = *given;
    metadata->doc = copied(given->doc);
    one->info.metadata = metadata;
  }
  return finish(metadata);
}

/* An attribute by its name; made if it is new: code asks once and keeps the answer, so there is one
 * before the first value is. NULL if there is no memory. */
static column *column_of(TVMFFIByteArray name) {
  column *one;
  for (one = columns; one; one = one->next)
    if (is_same(one->name, name))
      return one;
  one = calloc(1, sizeof *one);
  if (one) {
    one->name = copied(name);
    one->next = columns;
    columns = one;
  }
  return one;
}

static TVMFFIAny *place_in(column *one, int32_t index) {
  if (index >= one->head.size) {
    int32_t size = index < MAX_INDEX / 2 ? 2 * (index + 1) : index + 1;
    TVMFFIAny *data = grown(one->head.data, (size_t)one->head.size * sizeof *data,
                            (size_t)size * sizeof *data);
    if (!data)
      return NULL;
    one->head.data = data;
    one->head.size = size;
  }
  return &one->head.data[index];
}

/* Of the index of None: only that there is such an attribute. */
MRPC_EXPORT int TVMFFITypeRegisterAttr(int32_t index, const TVMFFIByteArray *name,
                                       const TVMFFIAny *value) {
  column *one;
  TVMFFIAny *place = NULL;
  if (!locked(index))
    return -1;
  one = column_of(*name);
  if (one && index != MRPC_TYPE_NONE) {
    place = place_in(one, index);
    if (place)
      mrpc_own(value, place);
  }
  return finish(index == MRPC_TYPE_NONE ? (void *)one : (void *)place);
}

MRPC_EXPORT const TVMFFITypeAttrColumn *TVMFFIGetTypeAttrColumn(const TVMFFIByteArray *name) {
  column *one;
  pthread_mutex_lock(&lock);
  one = column_of(*name);
  pthread_mutex_unlock(&lock);
  return one ? &one->head : NULL;
}

MRPC_EXPORT int TVMFFIFunctionSetGlobalFromMethodInfo(const TVMFFIMethodInfo *info, int override) {
  TVMFFIObject *function = mrpc_object_in(&info->method, MRPC_TYPE_FUNCTION);
  if (!function)
    return mrpc_raise("LibraryError", "global function '%.*s' is no function",
                      info->name.size < 200 ? (int)info->name.size : 200, info->name.data);
  return mrpc_global_register(info->name.data, info->name.size, function, override);
}
