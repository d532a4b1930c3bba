/* The numbers under which the client knows objects and memory. Numbers count from 1 and are never
 * used twice; memory may have one that the client chose, far above. */
#include <stdlib.h>
#include <string.h>

#include "serving.h"

#define FIRST_CHOSEN ((uint64_t)1 << 48)

/* Two tables with open addressing: entries by number, and numbers by what they name. */
static mrpc_handle *entries;
static uint64_t *numbers; /* by target */
static size_t capacity, used;
static uint64_t last_number;

static size_t place_of(uint64_t key) {
  return (size_t)((key * 0x9E3779B97F4A7C15ull) >> 20) & (capacity - 1);
}

static size_t next(size_t place) { return (place + 1) & (capacity - 1); }

static size_t slot_of(uint64_t number) {
  size_t place = place_of(number);
  while (entries[place].number != 0 && entries[place].number != number) place = next(place);
  return place;
}

/* Where the number of a target is, or where it would be. */
static size_t number_slot(const void *target) {
  size_t place = place_of((uint64_t)(uintptr_t)target);
  while (numbers[place] != 0 && entries[slot_of(numbers[place])].target != target) {
    place = next(place);
  }
  return place;
}

static int grow(void) {
  size_t index, before = capacity;
  mrpc_handle *old = entries;
  mrpc_handle *made;
  uint64_t *made_numbers;
  size_t wanted = before ? 2 * before : 64;
  if (before && 2 * (used + 1) <= before) return 0;
  made = calloc(wanted, sizeof(*made));
  made_numbers = calloc(wanted, sizeof(*made_numbers));
  if (made == NULL || made_numbers == NULL) {
    free(made);
    free(made_numbers);
    return mrpc_raise("MemoryError", "no memory for another handle; free some");
  }
  free(numbers);
  entries = made;
  numbers = made_numbers;
  capacity = wanted;
  for (index = 0; index < before; index++) {
    if (old[index].number != 0) entries[slot_of(old[index].number)] = old[index];
  }
  for (index = 0; index < before; index++) {
    if (old[index].number != 0 && old[index].kind != MRPC_HANDLE_RETURNED) {
      numbers[number_slot(old[index].target)] = old[index].number;
    }
  }
  free(old);
  return 0;
}

mrpc_handle *mrpc_handle_find(uint64_t number) {
  mrpc_handle *entry;
  if (number == 0 || capacity == 0) return NULL;
  entry = &entries[slot_of(number)];
  return entry->number == number ? entry : NULL;
}

static uint64_t enter(uint64_t number, void *target, mrpc_handle_kind kind) {
  mrpc_handle *entry = &entries[slot_of(number)];
  memset(entry, 0, sizeof(*entry));
  entry->number = number;
  entry->target = target;
  entry->count = 1;
  entry->kind = (uint8_t)kind;
  if (kind != MRPC_HANDLE_RETURNED) numbers[number_slot(target)] = number;
  used++;
  return number;
}

static void release(void *target, mrpc_handle_kind kind) {
  if (kind == MRPC_HANDLE_MEMORY) {
    mrpc_memory_release(target);
  } else {
    mrpc_release(target);
  }
}

uint64_t mrpc_handle_put(void *target, mrpc_handle_kind kind) {
  if (grow() != 0) {
    release(target, kind);
    return 0;
  }
  if (kind != MRPC_HANDLE_RETURNED) {
    uint64_t known = numbers[number_slot(target)];
    if (known != 0) {
      mrpc_handle_find(known)->count++;
      release(target, kind); /* the table has its reference already */
      return known;
    }
  }
  return enter(++last_number, target, kind);
}

uint64_t mrpc_handle_put_as(uint64_t number, void *target, mrpc_handle_kind kind) {
  if (number < FIRST_CHOSEN || mrpc_handle_find(number) != NULL) {
    mrpc_raise("HandleError", "handle %#llx cannot be chosen: it is taken, or below %#llx",
               (unsigned long long)number, (unsigned long long)FIRST_CHOSEN);
  } else if (grow() == 0) {
    return enter(number, target, kind);
  }
  release(target, kind);
  return 0;
}

/* Takes an entry out of a table without leaving a gap in a run of entries. */
static void remove_number(size_t place) {
  size_t at = place;
  for (;;) {
    at = next(at);
    if (numbers[at] == 0) break;
    size_t home = place_of((uint64_t)(uintptr_t)entries[slot_of(numbers[at])].target);
    if (((at - home) & (capacity - 1)) >= ((at - place) & (capacity - 1))) {
      numbers[place] = numbers[at];
      place = at;
    }
  }
  numbers[place] = 0;
}

static void remove_entry(size_t place) {
  size_t at = place;
  for (;;) {
    at = next(at);
    if (entries[at].number == 0) break;
    if (((at - place_of(entries[at].number)) & (capacity - 1)) >= ((at - place) & (capacity - 1))) {
      entries[place] = entries[at];
      place = at;
    }
  }
  memset(&entries[place], 0, sizeof(entries[place]));
}

void mrpc_handle_free(uint64_t number) {
  mrpc_handle *entry = mrpc_handle_find(number);
  mrpc_handle freed;
  if (entry == NULL || --entry->count > 0) return;
  freed = *entry;
  if (freed.kind != MRPC_HANDLE_RETURNED) remove_number(number_slot(freed.target));
  remove_entry(slot_of(number));
  used--;
  release(freed.target, freed.kind);
  if (freed.kind == MRPC_HANDLE_RETURNED) mrpc_handle_free(freed.memory);
}

uint64_t mrpc_handle_of_returned(uint64_t memory) {
  size_t index;
  for (index = 0; index < capacity; index++) {
    if (entries[index].number != 0 && entries[index].kind == MRPC_HANDLE_RETURNED &&
        entries[index].memory == memory) {
      return entries[index].number;
    }
  }
  return 0;
}
