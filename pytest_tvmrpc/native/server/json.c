/* JSON of a tracker: values are looked at where they lie. What comes from a peer is checked once as
 * a whole; the rest only takes what has passed that. */
#include <string.h>

#include "server.h"

enum { DEPTH = 64 };

static const char *blank(const char *at, const char *end) {
  while (at < end && (*at == ' ' || *at == '\t' || *at == '\n' || *at == '\r')) at++;
  return at;
}

static int digit(char letter, int base) {
  if (letter >= '0' && letter <= '9') return letter - '0';
  letter |= 0x20;
  return base == 16 && letter >= 'a' && letter <= 'f' ? letter - 'a' + 10 : -1;
}

/* The four digits of an escape, or -1. */
static int32_t unit(const char *at, const char *end) {
  int32_t code = 0;
  if (end - at < 4) return -1;
  for (int index = 0; index < 4; index++) {
    int value = digit(at[index], 16);
    if (value < 0) return -1;
    code = code << 4 | value;
  }
  return code;
}

/* Behind the quote that ends a text, `at` being behind the one that begins it. */
static const char *skip_text(const char *at, const char *end) {
  for (; at < end && *at != '"'; at++) {
    if ((uint8_t)*at < 0x20) return NULL;
    if (*at != '\\') continue;
    if (++at == end || !strchr("\"\\/bfnrtu", *at) || !*at) return NULL;
    if (*at == 'u' && unit(at + 1, end) < 0) return NULL;
  }
  return at < end ? at + 1 : NULL;
}

static const char *skip_digits(const char *at, const char *end) {
  const char *begin = at;
  while (at < end && digit(*at, 10) >= 0) at++;
  return at > begin ? at : NULL;
}

static const char *skip_number(const char *at, const char *end) {
  if (*at == '-') at++;
  if (at < end && *at == '0')
    at++;
  else if (!(at = skip_digits(at, end)))
    return NULL;
  if (at < end && *at == '.' && !(at = skip_digits(at + 1, end))) return NULL;
  if (at < end && (*at | 0x20) == 'e') {
    if (++at < end && (*at == '+' || *at == '-')) at++;
    at = skip_digits(at, end);
  }
  return at;
}

static const char *skip_word(const char *at, const char *end) {
  static const char *const words[] = {"true", "false", "null"};
  for (int which = 0; which < 3; which++) {
    size_t length = strlen(words[which]);
    if ((size_t)(end - at) >= length && !memcmp(at, words[which], length)) return at + length;
  }
  return NULL;
}

static const char *skip_members(const char *at, const char *end, int depth) {
  char close = *at == '[' ? ']' : '}';
  at = blank(at + 1, end);
  if (at < end && *at == close) return at + 1;
  for (;;) {
    if (close == '}') {
      if (at == end || *at != '"' || !(at = skip_text(at + 1, end))) return NULL;
      at = blank(at, end);
      if (at == end || *at++ != ':') return NULL;
    }
    at = mrpc_json_skip(at, end, depth - 1);
    if (!at) return NULL;
    at = blank(at, end);
    if (at == end) return NULL;
    if (*at == close) return at + 1;
    if (*at != ',') return NULL;
    at = blank(at + 1, end);
  }
}

/* Behind the value that begins here, or NULL if there is none, or if it is nested too deeply. */
const char *mrpc_json_skip(const char *at, const char *end, int depth) {
  at = blank(at, end);
  if (at == end || !depth) return NULL;
  if (*at == '[' || *at == '{') return skip_members(at, end, depth);
  if (*at == '"') return skip_text(at + 1, end);
  if (*at == '-' || digit(*at, 10) >= 0) return skip_number(at, end);
  return skip_word(at, end);
}

const char *mrpc_json_check(const char *at, const char *end) {
  at = mrpc_json_skip(at, end, DEPTH);
  return at && blank(at, end) == end ? NULL : "a tracker message is no JSON, or nested too deeply";
}

const char *mrpc_json_start(const char *at, const char *end) { return blank(at, end); }

const char *mrpc_json_first(const char *at, const char *end) {
  at = blank(blank(at, end) + 1, end);
  return *at == ']' || *at == '}' ? NULL : at;
}

const char *mrpc_json_next(const char *at, const char *end) {
  at = blank(mrpc_json_skip(at, end, DEPTH), end);
  return at < end && *at == ',' ? blank(at + 1, end) : NULL;
}

const char *mrpc_json_member(const char *at, const char *end, const char *name) {
  char found[32];
  for (at = mrpc_json_first(at, end); at; at = mrpc_json_next(at, end)) {
    int64_t nbytes = mrpc_json_text(at, end, found, sizeof found);
    at = blank(skip_text(at + 1, end), end) + 1; /* behind the colon */
    if (nbytes == (int64_t)strlen(name) && !memcmp(found, name, (size_t)nbytes))
      return blank(at, end);
  }
  return NULL;
}

static size_t put_utf8(char *out, uint32_t code) {
  size_t length = code < 0x80 ? 1 : code < 0x800 ? 2 : code < 0x10000 ? 3 : 4;
  for (size_t at = length; at-- > 1; code >>= 6) out[at] = (char)(0x80 | (code & 0x3F));
  out[0] = (char)(length == 1 ? code : (0xF00u >> length) | code);
  return length;
}

/* The character behind a backslash; *at is moved behind it. */
static uint32_t escaped(const char **at, const char *end) {
  static const char letters[] = "bfnrt", means[] = "\b\f\n\r\t";
  const char *letter = strchr(letters, **at);
  int32_t code, low;
  if (**at != 'u') {
    char itself = *(*at)++;
    return (uint8_t)(letter ? means[letter - letters] : itself);
  }
  code = unit(*at + 1, end);
  *at += 5;
  if (code < 0xD800 || code > 0xDFFF) return (uint32_t)code;
  low = code < 0xDC00 && end - *at >= 6 && (*at)[0] == '\\' && (*at)[1] == 'u'
            ? unit(*at + 2, end)
            : -1;
  if (low < 0xDC00 || low > 0xDFFF) return 0xFFFD; /* half a character */
  *at += 6;
  return 0x10000u + ((uint32_t)(code - 0xD800) << 10) + (uint32_t)(low - 0xDC00);
}

/* A text as UTF-8 with a NUL behind it. Its bytes, of which so many are written as there is room;
 * -1 if the value is no text. */
int64_t mrpc_json_text(const char *at, const char *end, char *out, size_t room) {
  size_t written = 0, nbytes = 0;
  if (*at != '"') return -1;
  for (at++; *at != '"';) {
    char letters[4];
    size_t length = 1;
    if (*at == '\\') {
      at++;
      length = put_utf8(letters, escaped(&at, end));
    } else {
      letters[0] = *at++;
    }
    nbytes += length;
    if (written + length >= room) continue;
    memcpy(out + written, letters, length);
    written += length;
  }
  if (room) out[written] = 0;
  return (int64_t)nbytes;
}

/* Whether the value is a whole number; one of more than 18 digits is none here. */
int mrpc_json_int(const char *at, const char *end, int64_t *number) {
  const char *behind = mrpc_json_skip(at, end, DEPTH);
  int sign = *at == '-' ? -1 : 1;
  *number = 0;
  if (sign < 0) at++;
  if (at == behind || behind - at > 18) return 0;
  for (; at < behind; at++) {
    if (digit(*at, 10) < 0) return 0;
    *number = *number * 10 + digit(*at, 10);
  }
  *number *= sign;
  return 1;
}

/* The text as JSON, in its quotes; 0 if there is no room. */
size_t mrpc_json_quote(char *out, size_t room, const char *text) {
  static const char hex[] = "0123456789abcdef";
  size_t written = 0;
  if (room < 8) return 0;
  out[written++] = '"';
  for (; *text; text++) {
    uint8_t byte = (uint8_t)*text;
    if (written + 8 > room) return 0;
    if (byte < 0x20) {
      memcpy(out + written, "\\u00", 4);
      out[written + 4] = hex[byte >> 4];
      out[written + 5] = hex[byte & 15];
      written += 6;
      continue;
    }
    if (byte == '"' || byte == '\\') out[written++] = '\\';
    out[written++] = (char)byte;
  }
  out[written++] = '"';
  out[written] = 0;
  return written;
}
