/* Arrays, maps, shapes and text as global functions, under the names that TVM of every age has for
 * them: a client that holds an object here has no other way to look into it. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "objects.h"

/* ----------------------------------------------------------------------------- making objects */

static void drop_array(void *object) {
  mrpc_array *array = object;
  int64_t size = array->size, index;
  array->size = 0;
  for (index = 0; index < size; index++)
    mrpc_drop(&array->elements[index]);
  if (array->elements && array->end_elements)
    array->end_elements(array->elements);
}

static void delete_array(void *self, int flags) { mrpc_end(self, flags, drop_array); }

TVMFFIObject *mrpc_array_new(const TVMFFIAny *values, size_t count) {
  mrpc_array *array = NULL;
  if (count < SIZE_MAX / 2 / sizeof *values)
    array = mrpc_object_new(sizeof *array + count * sizeof *values, MRPC_TYPE_ARRAY, delete_array);
  else
    mrpc_out_of_memory();
  if (!array)
    return NULL;
  array->elements = (TVMFFIAny *)(array + 1);
  array->capacity = (int64_t)count;
  for (; (size_t)array->size < count; array->size++)
    if (mrpc_own(&values[array->size], &array->elements[array->size])) {
      mrpc_release(&array->object);
      return NULL;
    }
  return &array->object;
}

static TVMFFIObject *shape_new(const TVMFFIAny *lengths, int32_t count) {
  mrpc_shape *shape;
  int32_t index;
  for (index = 0; index < count; index++)
    if (lengths[index].type_index != MRPC_TYPE_INT) {
      mrpc_raise("TypeError", "a shape is a sequence of integers; a value of type %s is none",
                 mrpc_name_of(&lengths[index]));
      return NULL;
    }
  shape = mrpc_object_new(sizeof *shape + (size_t)count * sizeof *shape->lengths, MRPC_TYPE_SHAPE,
                          NULL);
  if (!shape)
    return NULL;
  shape->lengths = (int64_t *)(shape + 1);
  shape->size = (size_t)count;
  for (index = 0; index < count; index++)
    shape->lengths[index] = lengths[index].as.v_int64;
  return &shape->object;
}

const char *mrpc_name_of(const TVMFFIAny *any) {
  const char *key = mrpc_type_key(any->type_index);
  return key ? key : "(unknown)";
}

/* ---------------------------------------------------------------------------------- the table */

enum {
  MAKE_ARRAY,
  MAKE_MAP,
  MAKE_SHAPE,
  TEXT,
  BYTES,
  SIZE,
  ELEMENT,
  CONTAINS,
  COUNT,
  VALUE,
  WALKER,
  ITEMS,
  LIST_NAMES,
  REMOVE
};

/* What a function does, and the type of the object that it takes. */
static const struct row {
  uint8_t action, type;
  char name[36];
} rows[] = {
    {MAKE_ARRAY, 0, "ffi.Array"},
    {MAKE_ARRAY, 0, "runtime.Array"},
    {MAKE_MAP, 0, "ffi.Map"},
    {MAKE_MAP, 0, "runtime.Map"},
    {MAKE_SHAPE, 0, "ffi.Shape"},
    {MAKE_SHAPE, 0, "runtime.ShapeTuple"},
    {TEXT, 0, "ffi.String"},
    {TEXT, 0, "runtime.String"},
    {TEXT, 0, "runtime.GetFFIString"},
    {BYTES, 0, "ffi.Bytes"},
    {SIZE, MRPC_TYPE_SHAPE, "rpc.testing.GetShapeSize"},
    {SIZE, MRPC_TYPE_SHAPE, "runtime.GetShapeTupleSize"},
    {SIZE, MRPC_TYPE_ARRAY, "ffi.ArraySize"},
    {SIZE, MRPC_TYPE_ARRAY, "runtime.ArraySize"},
    {SIZE, MRPC_TYPE_LIST, "ffi.ListSize"},
    {SIZE, MRPC_TYPE_MAP, "ffi.MapSize"},
    {SIZE, MRPC_TYPE_MAP, "runtime.MapSize"},
    {SIZE, MRPC_TYPE_DICT, "ffi.DictSize"},
    {ELEMENT, MRPC_TYPE_SHAPE, "rpc.testing.GetShapeElem"},
    {ELEMENT, MRPC_TYPE_SHAPE, "runtime.GetShapeTupleElem"},
    {ELEMENT, MRPC_TYPE_ARRAY, "ffi.ArrayGetItem"},
    {ELEMENT, MRPC_TYPE_ARRAY, "runtime.ArrayGetItem"},
    {ELEMENT, MRPC_TYPE_LIST, "ffi.ListGetItem"},
    {CONTAINS, MRPC_TYPE_ARRAY, "ffi.ArrayContains"},
    {CONTAINS, MRPC_TYPE_LIST, "ffi.ListContains"},
    {COUNT, MRPC_TYPE_MAP, "ffi.MapCount"},
    {COUNT, MRPC_TYPE_MAP, "runtime.MapCount"},
    {COUNT, MRPC_TYPE_DICT, "ffi.DictCount"},
    {VALUE, MRPC_TYPE_MAP, "ffi.MapGetItem"},
    {VALUE, MRPC_TYPE_MAP, "runtime.MapGetItem"},
    {VALUE, MRPC_TYPE_DICT, "ffi.DictGetItem"},
    {WALKER, MRPC_TYPE_MAP, "ffi.MapForwardIterFunctor"},
    {WALKER, MRPC_TYPE_DICT, "ffi.DictForwardIterFunctor"},
    {ITEMS, MRPC_TYPE_MAP, "runtime.MapItems"},
    {LIST_NAMES, 0, "ffi.FunctionListGlobalNamesFunctor"},
    {REMOVE, 0, "ffi.FunctionRemoveGlobal"},
};

/* ------------------------------------------------------------------------ looking into objects */

static int give_object(TVMFFIAny *result, TVMFFIObject *object) {
  mrpc_put_object(result, object);
  return object ? 0 : -1;
}

static int give_number(TVMFFIAny *result, int32_t type_index, int64_t number) {
  result->type_index = type_index;
  result->as.v_int64 = number;
  return 0;
}

static int64_t size_of(const void *object, int type) {
  if (type == MRPC_TYPE_SHAPE)
    return (int64_t)((const mrpc_shape *)object)->size;
  if (type == MRPC_TYPE_MAP || type == MRPC_TYPE_DICT)
    return mrpc_map_size(object);
  return ((const mrpc_array *)object)->size;
}

static int give_element(const struct row *row, const void *object, const TVMFFIAny *index,
                        TVMFFIAny *result) {
  int64_t size = size_of(object, row->type), at = index->as.v_int64;
  if (index->type_index != MRPC_TYPE_INT)
    return mrpc_raise("TypeError", "%s takes an int as the index, not a %s", row->name,
                      mrpc_name_of(index));
  if (at < 0 || at >= size)
    return mrpc_raise("IndexError", "Index %lld out of bounds %lld", (long long)at,
                      (long long)size);
  if (row->type == MRPC_TYPE_SHAPE)
    return give_number(result, MRPC_TYPE_INT, ((const mrpc_shape *)object)->lengths[at]);
  return mrpc_own(&((const mrpc_array *)object)->elements[at], result);
}

static int contains(const mrpc_array *array, const TVMFFIAny *value) {
  int64_t index;
  for (index = 0; index < array->size; index++)
    if (mrpc_is_same(&array->elements[index], value))
      return 1;
  return 0;
}

static int give_value(const void *map, const TVMFFIAny *key, TVMFFIAny *result) {
  const TVMFFIAny *value = mrpc_map_find(map, key);
  return value ? mrpc_own(value, result) : mrpc_raise("KeyError", "key is not in Map");
}

/* Keys and values in turn, as an array. */
static TVMFFIObject *items_of(const void *map) {
  size_t count = (size_t)mrpc_map_size(map), index = 0;
  TVMFFIAny *values = malloc((2 * count + 1) * sizeof *values);
  mrpc_place place = {0, 0};
  mrpc_pair *pair;
  TVMFFIObject *array;
  if (!values) {
    mrpc_out_of_memory();
    return NULL;
  }
  while (index < 2 * count && (pair = mrpc_map_next(map, &place)) != NULL) {
    values[index++] = pair->key;
    values[index++] = pair->value;
  }
  array = mrpc_array_new(values, index);
  free(values);
  return array;
}

/* Of a map: what returns the key (0) or value (1) of a pair, or goes on (2). */
typedef struct {
  mrpc_array *items;
  int64_t position;
} walker;

static int step(void *self, const TVMFFIAny *args, int32_t num_args, TVMFFIAny *result) {
  walker *walk = self;
  int64_t command = num_args == 1 && args[0].type_index == MRPC_TYPE_INT ? args[0].as.v_int64 : -1;
  if (command != 0 && command != 1) {
    walk->position += 2;
    return give_number(result, MRPC_TYPE_BOOL, walk->position < walk->items->size);
  }
  if (walk->position >= walk->items->size)
    return mrpc_raise("IndexError", "the map has no more pairs");
  return mrpc_own(&walk->items->elements[walk->position + command], result);
}

static void end_walk(void *self) {
  walker *walk = self;
  mrpc_release(&walk->items->object);
  free(walk);
}

static TVMFFIObject *walker_of(const void *map) {
  walker *walk = calloc(1, sizeof *walk);
  TVMFFIObject *function = NULL;
  if (!walk) {
    mrpc_out_of_memory();
    return NULL;
  }
  walk->items = (mrpc_array *)items_of(map);
  if (walk->items)
    function = mrpc_function_new(step, walk, end_walk);
  if (!function) {
    mrpc_release((TVMFFIObject *)walk->items);
    free(walk);
  }
  return function;
}

/* ---------------------------------------------------------------------------- global functions */

/* The name with this number, or how many there are for a negative one. */
static int name_at(void *self, const TVMFFIAny *args, int32_t num_args, TVMFFIAny *result) {
  mrpc_array *names = self;
  int64_t index = num_args == 1 && args[0].type_index == MRPC_TYPE_INT ? args[0].as.v_int64 : -1;
  if (index < 0)
    return give_number(result, MRPC_TYPE_INT, names->size);
  if (index >= names->size)
    return mrpc_raise("IndexError", "Index %lld out of bounds %lld", (long long)index,
                      (long long)names->size);
  return mrpc_own(&names->elements[index], result);
}

static void end_names(void *self) { mrpc_release(self); }

static TVMFFIObject *names_function(void) {
  int count, index;
  const char **names = mrpc_global_names(&count);
  TVMFFIAny *values = names ? malloc(((size_t)count + 1) * sizeof *values) : NULL;
  TVMFFIObject *array, *function;
  for (index = 0; values && index < count; index++)
    mrpc_put_pointer(&values[index], MRPC_TYPE_RAW_STR, names[index]);
  if (!values)
    mrpc_out_of_memory();
  array = values ? mrpc_array_new(values, (size_t)count) : NULL;
  free((void *)names);
  free(values);
  function = array ? mrpc_function_new(name_at, array, end_names) : NULL;
  if (!function)
    mrpc_release(array);
  return function;
}

/* ------------------------------------------------------------------------------------- calling */

static int expect(const struct row *row, int32_t num_args, int32_t expected) {
  if (num_args == expected)
    return 0;
  return mrpc_raise("TypeError", "%s takes %d arguments; got %d", row->name, (int)expected,
                    (int)num_args);
}

static int look_into(const struct row *row, const TVMFFIAny *args, int32_t num_args,
                     TVMFFIAny *result) {
  int takes_two = row->action >= ELEMENT && row->action <= VALUE;
  const void *object;
  if (expect(row, num_args, takes_two ? 2 : 1))
    return -1;
  object = mrpc_object_in(args, row->type);
  if (!object)
    return mrpc_raise("TypeError", "%s takes an object, not a %s", row->name, mrpc_name_of(args));
  switch (row->action) {
    case SIZE:
      return give_number(result, MRPC_TYPE_INT, size_of(object, row->type));
    case ELEMENT:
      return give_element(row, object, &args[1], result);
    case CONTAINS:
      return give_number(result, MRPC_TYPE_BOOL, contains(object, &args[1]));
    case COUNT:
      return give_number(result, MRPC_TYPE_INT, mrpc_map_find(object, &args[1]) != NULL);
    case VALUE:
      return give_value(object, &args[1], result);
    case WALKER:
      return give_object(result, walker_of(object));
    default:
      return give_object(result, items_of(object));
  }
}

static int give_text(const struct row *row, const TVMFFIAny *args, int32_t num_args,
                     TVMFFIAny *result) {
  TVMFFIByteArray content;
  if (expect(row, num_args, 1))
    return -1;
  if (mrpc_content_of(args, &content) || mrpc_is_text(args) != (row->action == TEXT))
    return mrpc_raise("TypeError", "%s takes an object, not a %s", row->name, mrpc_name_of(args));
  return mrpc_put_text(result, row->action == TEXT, content.data, content.size);
}

static int remove_global(const struct row *row, const TVMFFIAny *args, int32_t num_args,
                         TVMFFIAny *result) {
  TVMFFIByteArray name;
  if (expect(row, num_args, 1))
    return -1;
  if (mrpc_content_of(args, &name))
    return mrpc_raise("TypeError", "a %s is no name of a function; expected a str",
                      mrpc_name_of(args));
  return give_number(result, MRPC_TYPE_BOOL, mrpc_global_remove(name.data, name.size));
}

static int call_row(void *self, const TVMFFIAny *args, int32_t num_args, TVMFFIAny *result) {
  const struct row *row = self;
  switch (row->action) {
    case MAKE_ARRAY:
      return give_object(result, mrpc_array_new(args, (size_t)num_args));
    case MAKE_SHAPE:
      return give_object(result, shape_new(args, num_args));
    case MAKE_MAP:
      if (num_args % 2)
        return mrpc_raise("ValueError", "a map is made of keys and values, not of %d values",
                          (int)num_args);
      return give_object(result, mrpc_map_new(args, (size_t)num_args / 2));
    case TEXT:
    case BYTES:
      return give_text(row, args, num_args, result);
    case LIST_NAMES:
      return give_object(result, names_function());
    case REMOVE:
      return remove_global(row, args, num_args, result);
    default:
      return look_into(row, args, num_args, result);
  }
}

void mrpc_register_containers(void) {
  size_t index;
  for (index = 0; index < sizeof rows / sizeof *rows; index++) {
    const struct row *row = &rows[index];
    TVMFFIObject *function = mrpc_function_new(call_row, (void *)(uintptr_t)row, NULL);
    if (function)
      mrpc_global_set(row->name, strlen(row->name), function, 1);
    mrpc_release(function);
  }
}
