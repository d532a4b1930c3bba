/* Maps in the form in which C++ reads them: few pairs lie in a row, many in a hash table.
 *
 * Slots of the table are in blocks of 16: a byte for each, then the pairs, each with the slots of the
 * pair before and behind it in the order of the map. The byte says whether a slot is free, whether
 * its pair is the first of those with one hash, and how far it is to the next of them. Code that
 * reads and changes all this is compiled into each library. */
#include <stdlib.h>
#include <string.h>

#include "objects.h"

typedef struct {
  TVMFFIObject object;
  void *pairs;
  uint64_t size, slots;
  void (*end_pairs)(void *pairs);
  uint32_t shift; /* from here on only of a table; few pairs lie here instead */
  uint64_t first, last;
} map_object;

typedef struct {
  mrpc_pair pair;
  uint64_t before, behind;
} item;

typedef struct {
  uint8_t marks[16];
  item items[16];
} block;

#define IS_SMALL (UINT64_C(1) << 63)
#define NONE UINT64_MAX

enum { SMALL_PAIRS_AT = (offsetof(map_object, shift) + 7) / 8 * 8 };
enum { MAX_SMALL = 4, FREE = 0xff, IS_NEXT = 0x80, JUMP = 0x7f, NUM_JUMPS = 83 };

/* ------------------------------------------------------------------------------------ reading */

static item *item_at(const map_object *map, uint64_t slot) {
  return &((block *)map->pairs)[slot / 16].items[slot % 16];
}

int64_t mrpc_map_size(const void *map) { return (int64_t)((const map_object *)map)->size; }

mrpc_pair *mrpc_map_next(const void *object, mrpc_place *place) {
  const map_object *map = object;
  mrpc_pair *pair;
  if (place->number >= map->size)
    return NULL;
  if (map->slots & IS_SMALL)
    return (mrpc_pair *)map->pairs + place->number++;
  if (!place->number)
    place->slot = map->first;
  if (place->slot >= map->slots)
    return NULL;
  place->number++;
  pair = &item_at(map, place->slot)->pair;
  place->slot = ((item *)pair)->behind;
  return pair;
}

int mrpc_is_same(const TVMFFIAny *one, const TVMFFIAny *other) {
  TVMFFIByteArray text, other_text;
  int is_text, is_other_text;
  if (mrpc_content_of(one, &text))
    return one->type_index == other->type_index && one->as.v_int64 == other->as.v_int64;
  if (mrpc_content_of(other, &other_text))
    return 0;
  is_text = mrpc_is_text(one);
  is_other_text = mrpc_is_text(other);
  return is_text == is_other_text && text.size == other_text.size &&
         (!text.size || memcmp(text.data, other_text.data, text.size) == 0);
}

TVMFFIAny *mrpc_map_find(const void *map, const TVMFFIAny *key) {
  mrpc_place place = {0, 0};
  mrpc_pair *pair;
  while ((pair = mrpc_map_next(map, &place)) != NULL)
    if (mrpc_is_same(&pair->key, key))
      return &pair->value;
  return NULL;
}

/* ------------------------------------------------------------------------------------- hashes */

/* As C++ has them. */

static uint64_t combined(int32_t kind, uint64_t content) {
  uint64_t key = (uint64_t)kind;
  return key ^ (content + UINT64_C(0x9e3779b9) + (key << 6) + (key >> 2));
}

/* By eight, with zeros at the end. */
static uint64_t hash_of_bytes(const uint8_t *bytes, size_t nbytes) {
  uint64_t result = 0;
  uint8_t last[8];
  for (; nbytes; bytes += 8, nbytes -= 8) {
    if (nbytes < 8) {
      memset(last, 0, sizeof last);
      memcpy(last, bytes, nbytes);
      bytes = last;
      nbytes = 8;
    }
    result = (result * UINT64_C(1099511628211) + mrpc_get_u64(bytes)) % 2147483647;
  }
  return result;
}

static uint64_t hash_of(const TVMFFIAny *key) {
  static const uint16_t one = 1;
  int32_t kind = key->type_index;
  TVMFFIByteArray content;
  uint64_t word;
  if (kind == MRPC_TYPE_SMALL_STR || kind == MRPC_TYPE_SMALL_BYTES) {
    const void *hashed = *(const uint8_t *)&one ? (const void *)key->as.v_bytes
                                                : (const void *)key; /* so it is, big-endian */
    return combined(kind == MRPC_TYPE_SMALL_STR ? MRPC_TYPE_STR : MRPC_TYPE_BYTES,
                    hash_of_bytes(hashed, 8));
  }
  if (!mrpc_content_of(key, &content))
    return combined(kind, hash_of_bytes((const uint8_t *)content.data, content.size));
  memcpy(&word, &key->as, sizeof word);
  return combined(kind, word);
}

/* ------------------------------------------------------------------------------------- making */

static uint64_t jump_of(int number) { /* slots to the next pair; C++ knows larger ones, too */
  uint64_t side = (uint64_t)number - 10;
  return number < 16 ? (uint64_t)number : side * (side + 1) / 2;
}

static uint8_t *mark_at(const map_object *map, uint64_t slot) {
  return &((block *)map->pairs)[slot / 16].marks[slot % 16];
}

/* Finds a slot behind those that have the home; 0 where there is none. */
static int find_free(const map_object *map, uint64_t home, uint64_t *slot) {
  uint64_t last = home, next;
  int number;
  while (*mark_at(map, last) & JUMP)
    last = (last + jump_of(*mark_at(map, last) & JUMP)) % map->slots;
  for (number = 1; number < NUM_JUMPS; number++) {
    next = (last + jump_of(number)) % map->slots;
    if (*mark_at(map, next) != FREE)
      continue;
    *mark_at(map, last) |= (uint8_t)number;
    *mark_at(map, next) = IS_NEXT;
    *slot = next;
    return 1;
  }
  return 0;
}

/* Finds a slot for each pair: first for all that are at home, so that none is in their way. */
static int place_all(map_object *map, const mrpc_pair *pairs, uint64_t *slots) {
  uint64_t index, home;
  int turn;
  for (turn = 0; turn < 2; turn++)
    for (index = 0; index < map->size; index++) {
      home = (UINT64_C(11400714819323198485) * hash_of(&pairs[index].key)) >> map->shift;
      if (!turn)
        slots[index] = *mark_at(map, home) == FREE ? home : NONE;
      if (!turn && slots[index] == home)
        *mark_at(map, home) = 0;
      if (turn && slots[index] == NONE && !find_free(map, home, &slots[index]))
        return 0;
    }
  return 1;
}

/* A table of so many bits: 1, or 0 if a pair found no place, or -1 with an error. */
static int make_table(map_object *map, const mrpc_pair *pairs, int bits, uint64_t *slots) {
  uint64_t index, blocks;
  item *one;
  map->slots = UINT64_C(1) << bits;
  map->shift = (uint32_t)(64 - bits);
  blocks = (map->slots + 15) / 16;
  free(map->pairs);
  map->pairs = calloc((size_t)blocks, sizeof(block));
  if (!map->pairs)
    return mrpc_out_of_memory();
  for (index = 0; index < blocks; index++)
    memset(((block *)map->pairs)[index].marks, FREE, 16);
  if (!place_all(map, pairs, slots))
    return 0;
  for (index = 0; index < map->size; index++) {
    one = item_at(map, slots[index]);
    one->pair = pairs[index];
    one->before = index ? slots[index - 1] : NONE;
    one->behind = index + 1 < map->size ? slots[index + 1] : NONE;
  }
  map->first = slots[0];
  map->last = slots[map->size - 1];
  map->end_pairs = free;
  return 1;
}

static int fill_table(map_object *map, const mrpc_pair *pairs) {
  uint64_t *slots = malloc((size_t)map->size * sizeof *slots);
  int bits = 3, made = slots ? 0 : mrpc_out_of_memory();
  while (UINT64_C(1) << bits < 2 * map->size)
    bits++;
  for (; !made; bits++)
    made = make_table(map, pairs, bits, slots);
  free(slots);
  return made;
}

static void drop_map(void *object) {
  map_object *map = object;
  mrpc_place place = {0, 0};
  mrpc_pair *pair;
  while ((pair = mrpc_map_next(map, &place)) != NULL) {
    mrpc_drop(&pair->key);
    mrpc_drop(&pair->value);
  }
  map->size = 0;
  if (map->pairs && map->end_pairs)
    map->end_pairs(map->pairs);
}

static void delete_map(void *self, int flags) { mrpc_end(self, flags, drop_map); }

/* Puts in a pair; of a key that comes again, the last value counts. */
static int put_pair(mrpc_pair *pairs, size_t *count, const TVMFFIAny *key, const TVMFFIAny *value) {
  TVMFFIAny owned;
  size_t index;
  if (mrpc_own(value, &owned))
    return -1;
  for (index = 0; index < *count; index++)
    if (mrpc_is_same(&pairs[index].key, key)) {
      mrpc_drop(&pairs[index].value);
      pairs[index].value = owned;
      return 0;
    }
  if (mrpc_own(key, &pairs[*count].key)) {
    mrpc_drop(&owned);
    return -1;
  }
  pairs[(*count)++].value = owned;
  return 0;
}

static map_object *map_of(const mrpc_pair *pairs, size_t count) {
  size_t room = count > 2 ? count : 2; /* which is enough for what a table has there */
  map_object *map =
      mrpc_object_new(count < MAX_SMALL ? SMALL_PAIRS_AT + room * sizeof *pairs : sizeof *map,
                      MRPC_TYPE_MAP, delete_map);
  if (!map)
    return NULL;
  if (count < MAX_SMALL) {
    map->slots = room | IS_SMALL;
    map->pairs = (char *)map + SMALL_PAIRS_AT;
    if (count)
      memcpy(map->pairs, pairs, count * sizeof *pairs);
    map->size = count;
    return map;
  }
  map->size = count;
  if (fill_table(map, pairs) > 0)
    return map;
  map->size = 0;
  map->end_pairs = free;
  mrpc_release(&map->object);
  return NULL;
}

TVMFFIObject *mrpc_map_new(const TVMFFIAny *keys_and_values, size_t num_pairs) {
  mrpc_pair *pairs = malloc((num_pairs ? num_pairs : 1) * sizeof *pairs);
  size_t count = 0, index;
  map_object *map = NULL;
  int failure = pairs ? 0 : mrpc_out_of_memory();
  for (index = 0; index < num_pairs && !failure; index++)
    failure = put_pair(pairs, &count, &keys_and_values[2 * index], &keys_and_values[2 * index + 1]);
  if (!failure)
    map = map_of(pairs, count);
  for (index = 0; index < count && !map; index++) {
    mrpc_drop(&pairs[index].key);
    mrpc_drop(&pairs[index].value);
  }
  free(pairs);
  return map ? &map->object : NULL;
}
