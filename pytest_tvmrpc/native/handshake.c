/* The first words of a connection, and texts that every peer takes. */
#include "wire_parts.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The number of the next character, and its place behind it; -1 if there the text is not UTF-8. */
static int32_t next_character(const uint8_t *text, size_t nbytes, size_t *at) {
  uint8_t first = text[*at];
  size_t length = first < 0x80 ? 1 : first < 0xc2 ? 0 : first < 0xe0 ? 2 : first < 0xf0 ? 3 : 4;
  static const uint16_t least[] = {0, 0, 0x80, 0x800};
  if (!length || first > 0xf4 || length > nbytes - *at) return -1;
  int32_t number = length == 1 ? first : first & (0x7f >> length);
  for (size_t place = 1; place < length; ++place) {
    uint8_t next = text[*at + place];
    if ((next & 0xc0) != 0x80) return -1;
    number = number << 6 | (next & 0x3f);
  }
  int is_long = number < (length == 4 ? 0x10000 : least[length]);
  if (is_long || number > 0x10ffff || (number >= 0xd800 && number < 0xe000)) return -1;
  *at += length;
  return number;
}

void mrpc_clean_text(uint8_t *text, size_t nbytes) {
  for (size_t at = 0; at < nbytes;) {
    if (text[at] && next_character(text, nbytes, &at) >= 0) continue;
    text[at++] = '?';
  }
}

/* As Python has it; TVM's servers split a key so. */
static int is_space(int32_t number) {
  return (number >= 9 && number <= 13) || (number >= 0x1c && number <= 0x20) || number == 0x85 ||
         number == 0xa0 || number == 0x1680 || (number >= 0x2000 && number <= 0x200a) ||
         number == 0x2028 || number == 0x2029 || number == 0x202f || number == 0x205f ||
         number == 0x3000;
}

/* The handshake */

/* The next word of a text in UTF-8, from *at on: its length, 0 if there is none. */
static size_t next_word(const uint8_t *text, size_t nbytes, size_t *at, const uint8_t **word) {
  size_t start = *at, end = start;
  while (end < nbytes) {
    size_t next = end;
    if (is_space(next_character(text, nbytes, &next))) {
      if (end > start) break;
      start = next;
    }
    end = next;
  }
  *at = end;
  *word = text + start;
  return end - start;
}

static int is_digit(uint8_t character) { return character >= '0' && character <= '9'; }

/* Seconds, as Python reads them but for digits beyond ASCII; -1 if they are none. */
static double seconds_of(const uint8_t *text, size_t nbytes) {
  char digits[MRPC_MAX_KEY + 1], *end;
  size_t length = 0;
  for (size_t at = 0; at < nbytes; ++at) {
    if (text[at] == '_') {
      int is_between = at && at + 1 < nbytes && is_digit(text[at - 1]) && is_digit(text[at + 1]);
      if (!is_between) return -1;
    } else if (is_digit(text[at]) || (text[at] && strchr("+-.eE", text[at]))) {
      digits[length++] = (char)text[at];
    } else {
      return -1;
    }
  }
  digits[length] = 0;
  double seconds = strtod(digits, &end);
  return length && !*end && seconds >= 0 && seconds < HUGE_VAL ? seconds : -1;
}

static int no_seconds(const uint8_t *text, size_t nbytes, char *why) {
  char shown[81];
  size_t length = nbytes < sizeof shown ? nbytes : sizeof shown - 1;
  for (size_t at = 0; at < length; ++at) {
    shown[at] = (char)(text[at] >= ' ' && text[at] < 0x7f ? text[at] : '?');
  }
  shown[length] = 0;
  return FAIL(why, "-timeout='%s' is no time in seconds", shown);
}

int mrpc_parse_client_key(const uint8_t *key, size_t nbytes, mrpc_hello *hello, char *why) {
  static const char client[] = "client:", option[] = "-timeout";
  const uint8_t *word;
  size_t at = 0, length;
  hello->match_key[0] = 0;
  hello->session_timeout = 0;
  if (nbytes > MRPC_MAX_KEY) {
    return FAIL(why, "a key of %llu bytes; 1 to %d can be", (ull)nbytes, MRPC_MAX_KEY);
  }
  while (at < nbytes) {
    if (next_character(key, nbytes, &at) < 0) return FAIL(why, "the client's key is not UTF-8");
  }
  at = 0;
  length = next_word(key, nbytes, &at, &word);
  if (length < sizeof client - 1 || memcmp(word, client, sizeof client - 1) != 0) {
    return FAIL(why, "the first word is no client's key; expected client:KEY");
  }
  length -= sizeof client - 1;
  word += sizeof client - 1;
  for (size_t place = 0; place < length; ++place) {
    /* a blank is in no key: one with a NUL must not become a shorter one that is right */
    hello->match_key[place] = (char)(word[place] ? word[place] : ' ');
  }
  hello->match_key[length] = 0;
  while ((length = next_word(key, nbytes, &at, &word)) != 0) {
    size_t name = sizeof option - 1;
    if (length < name || memcmp(word, option, name) != 0) continue;
    if (length > name && word[name] != '=') continue;
    size_t value = length > name ? name + 1 : name;
    hello->session_timeout = seconds_of(word + value, length - value);
    if (hello->session_timeout < 0) return no_seconds(word + value, length - value, why);
  }
  return 0;
}

int64_t mrpc_read_hello(const uint8_t *in, size_t nbytes, mrpc_hello *hello, char *why) {
  uint8_t magic[4];
  mrpc_put_u32(magic, MRPC_MAGIC);
  if (nbytes && memcmp(in, magic, nbytes < 4 ? nbytes : 4) != 0) {
    return FAIL(why, "the peer does not speak TVM's RPC protocol");
  }
  if (nbytes < 8) return MRPC_PARTIAL;
  int32_t length = get_i32(in + 4);
  if (length <= 0 || length > MRPC_MAX_KEY) {
    return FAIL(why, "a key of %d bytes; 1 to %d can be", length, MRPC_MAX_KEY);
  }
  if (nbytes - 8 < (size_t)length) return MRPC_PARTIAL;
  return mrpc_parse_client_key(in + 8, (size_t)length, hello, why) ? MRPC_ERROR : 8 + length;
}

/* A word of 4 bytes, and the key of this server with what tells that it is ours. */
static size_t write_key(uint8_t *out, uint32_t word, const char *key) {
  int length = sprintf((char *)out + 8, "server:%.*s " MRPC_OURS, MRPC_MAX_KEY, key);
  mrpc_put_u32(out, word);
  mrpc_put_u32(out + 4, (uint32_t)length);
  return 8 + (size_t)length;
}

size_t mrpc_write_reply(uint8_t *out, int32_t reply, const char *key) {
  if (reply == MRPC_REPLY_SUCCESS) return write_key(out, (uint32_t)reply, key);
  mrpc_put_u32(out, (uint32_t)reply);
  return 4;
}

size_t mrpc_write_server_hello(uint8_t *out, const char *key) {
  return write_key(out, MRPC_MAGIC, key);
}
