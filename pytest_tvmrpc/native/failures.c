/* Errors: the one that a thread's running function fails with, and what a client is told of it. */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "objects.h"

static __thread TVMFFIObject *raised;

void mrpc_set_raised(TVMFFIObject *error) {
  TVMFFIObject *before = raised;
  raised = error;
  mrpc_release(before);
}

TVMFFIObject *mrpc_move_raised(void) {
  TVMFFIObject *error = raised;
  raised = NULL;
  return error;
}

const mrpc_error *mrpc_peek_raised(void) { return (const mrpc_error *)raised; }

static void drop_error(void *object) {
  mrpc_error *error = object;
  free((void *)(uintptr_t)error->backtrace.data);
  mrpc_release(error->cause);
  mrpc_release(error->context);
}

static void delete_error(void *self, int flags) { mrpc_end(self, flags, drop_error); }

/* Replaces the backtrace, or goes on with it, as the error passes through a call. */
static void update_backtrace(void *self, const TVMFFIByteArray *text, int32_t mode) {
  mrpc_error *error = self;
  size_t before = mode == 1 ? error->backtrace.size : 0, added = text ? text->size : 0;
  char *made = added < SIZE_MAX - before ? malloc(before + added + 1) : NULL;
  if (!made)
    return; /* an error without the places that it passed */
  if (before)
    memcpy(made, error->backtrace.data, before);
  if (added)
    memcpy(made + before, text->data, added);
  made[before + added] = 0;
  free((void *)(uintptr_t)error->backtrace.data);
  error->backtrace = mrpc_bytes_of(made, before + added);
}

static void ignore_backtrace(void *self, const TVMFFIByteArray *text, int32_t mode) {
  (void)self, (void)text, (void)mode;
}

/* What there is to say when there is no memory to say anything. */
static mrpc_error no_memory = {
    {UINT64_C(1) << 32 | UINT32_C(1) << 30, MRPC_TYPE_ERROR, 0, {NULL}},
    {"MemoryError", 11},
    {"out of memory", 13},
    {"", 0},
    ignore_backtrace,
    NULL,
    NULL,
};

TVMFFIObject *mrpc_error_new(TVMFFIByteArray kind, TVMFFIByteArray message,
                             TVMFFIByteArray backtrace, TVMFFIObject *cause,
                             TVMFFIObject *context) {
  mrpc_error *error;
  char *texts;
  error = calloc(1, sizeof *error + kind.size + message.size + 2);
  if (!error) {
    mrpc_retain(&no_memory.object);
    return &no_memory.object;
  }
  error->object.combined_ref_count = MRPC_ONE_OF_EACH;
  error->object.type_index = MRPC_TYPE_ERROR;
  error->object.end.deleter = delete_error;
  texts = error->texts;
  if (kind.size)
    memcpy(texts, kind.data, kind.size);
  error->kind = mrpc_bytes_of(texts, kind.size);
  texts += kind.size + 1;
  if (message.size)
    memcpy(texts, message.data, message.size);
  error->message = mrpc_bytes_of(texts, message.size);
  error->update_backtrace = update_backtrace;
  update_backtrace(error, &backtrace, 0);
  mrpc_retain(error->cause = cause);
  mrpc_retain(error->context = context);
  return &error->object;
}

void mrpc_raise_text(TVMFFIByteArray kind, TVMFFIByteArray message) {
  mrpc_set_raised(mrpc_error_new(kind, message, mrpc_bytes_of(NULL, 0), NULL, NULL));
}

int mrpc_out_of_memory(void) {
  static const char kind[] = "MemoryError", message[] = "out of memory";
  mrpc_raise_text(mrpc_bytes_of(kind, sizeof kind - 1), mrpc_bytes_of(message, sizeof message - 1));
  return -1;
}

int(mrpc_raise)(const char *kind, const char *format, ...) {
  char small[512], *text = small;
  int size;
  va_list values, again;
  va_start(values, format);
  va_copy(again, values);
  size = vsnprintf(small, sizeof small, format, values);
  if (size >= (int)sizeof small) {
    text = malloc((size_t)size + 1);
    if (text)
      vsnprintf(text, (size_t)size + 1, format, again);
    else
      text = small, size = (int)sizeof small - 1;
  }
  va_end(again);
  va_end(values);
  mrpc_raise_text(mrpc_bytes_of(kind, strlen(kind)), mrpc_bytes_of(text, size < 0 ? 0 : (size_t)size));
  if (text != small)
    free(text);
  return -1;
}

int mrpc_unsaid(const char *what, int code, const char *how) {
  if (raised)
    return -1;
  return mrpc_raise("LibraryError",
                    "%s returned %d without saying why; expected 0, or an error recorded with %s",
                    what, code, how);
}

/* ------------------------------------------------------------------------- errors as text */

/* A text that grows to MRPC_MAX_TEXT; `left_out` counts what it has no room for. */
typedef struct {
  char *bytes;
  size_t size, left_out;
} growing;

static void add(growing *text, const char *bytes, size_t nbytes) {
  size_t room = MRPC_MAX_TEXT - text->size, taken = nbytes < room ? nbytes : room;
  if (text->left_out)
    taken = 0;
  if (taken)
    memcpy(text->bytes + text->size, bytes, taken);
  text->size += taken;
  text->left_out += nbytes - taken;
}

/* The lines of a backtrace, of which the first is the last call. */
static void add_backtrace(growing *text, TVMFFIByteArray backtrace) {
  static const char head[] = "\nin compiled code, most recent call last:";
  size_t end = backtrace.size, start;
  while (end && strchr(" \t\r\n", backtrace.data[end - 1]))
    end--;
  if (!end)
    return;
  add(text, head, sizeof head - 1);
  while (end) {
    for (start = end; start && backtrace.data[start - 1] != '\n'; start--)
      ;
    add(text, "\n", 1);
    add(text, backtrace.data + start, end - start);
    end = start ? start - 1 : 0;
  }
}

static void say_what_is_missing(growing *text) {
  char said[64];
  int size;
  while (text->size && (text->bytes[text->size - 1] & 0xc0) == 0x80) {
    text->size--;
    text->left_out++;
  }
  if (text->size && (text->bytes[text->size - 1] & 0x80)) {
    text->size--;
    text->left_out++;
  }
  for (; text->size > MRPC_MAX_TEXT - sizeof said; text->size--)
    text->left_out++;
  size = snprintf(said, sizeof said, "... (%lu bytes more)", (unsigned long)text->left_out);
  text->left_out = 0;
  add(text, said, (size_t)size);
}

char *mrpc_take_error(size_t *nbytes) {
  mrpc_error *error = (mrpc_error *)mrpc_move_raised();
  growing text = {malloc(MRPC_MAX_TEXT + 1), 0, 0};
  char *smaller;
  if (!text.bytes)
    abort(); /* not even an answer can be given */
  if (error && error->kind.size)
    add(&text, error->kind.data, error->kind.size);
  else
    add(&text, "RuntimeError", 12);
  if (error && (error->message.size || error->backtrace.size)) {
    add(&text, ": ", 2);
    add(&text, error->message.data, error->message.size);
    add_backtrace(&text, error->backtrace);
  }
  mrpc_release((TVMFFIObject *)error);
  if (text.left_out)
    say_what_is_missing(&text);
  mrpc_clean_text((uint8_t *)text.bytes, text.size); /* a client reads it as UTF-8 */
  text.bytes[text.size] = 0;
  *nbytes = text.size;
  smaller = realloc(text.bytes, text.size + 1);
  return smaller ? smaller : text.bytes;
}
