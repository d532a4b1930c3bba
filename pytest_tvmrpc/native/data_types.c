/* Data types as text, as every version of TVM writes it. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "objects.h"

enum { INT, UINT, FLOAT, HANDLE, BFLOAT, COMPLEX, BOOL, FIRST_SMALL };
enum { FIRST_CUSTOM = 129, SCALABLE = 1 << 15 };

static const char plain_names[][8] = {"int", "uint", "float", "handle", "bfloat", "complex", "bool"};
static const unsigned char plain_bits[] = {32, 32, 32, 64, 16, 0, 8}; /* where a text has none */

/* By their codes from FIRST_SMALL on, without "float8_". */
static const char small_names[][12] = {"e3m4",     "e4m3",     "e4m3b11fnuz", "e4m3fn",
                                       "e4m3fnuz", "e5m2",     "e5m2fnuz",    "e8m0fnu",
                                       "e2m3fn",   "e3m2fn",   "e2m1fn"};

static int bits_of_small(int code) { return code < 15 ? 8 : code < 17 ? 6 : 4; }

/* Takes the text if the rest begins with it. */
static int take(TVMFFIByteArray *rest, const char *text) {
  size_t nbytes = strlen(text);
  if (rest->size < nbytes || memcmp(rest->data, text, nbytes) != 0)
    return 0;
  *rest = mrpc_bytes_of(rest->data + nbytes, rest->size - nbytes);
  return 1;
}

/* Takes digits, at most as many; -1 if there are none. */
static long take_number(TVMFFIByteArray *rest, int most) {
  long number = -1;
  while (most-- && rest->size && *rest->data >= '0' && *rest->data <= '9') {
    number = (number < 0 ? 0 : number) * 10 + (*rest->data - '0');
    *rest = mrpc_bytes_of(rest->data + 1, rest->size - 1);
  }
  return number;
}

/* One of the types that are named by their form: its code, or -1. */
static int take_small(TVMFFIByteArray *rest) {
  TVMFFIByteArray before = *rest;
  char family[] = "float8_";
  int code;
  if (take(rest, "e4m3_float8")) /* TVM up to 0.20 */
    return FIRST_SMALL + 3;
  if (take(rest, "e5m2_float8"))
    return FIRST_SMALL + 5;
  for (code = FIRST_SMALL; code < FIRST_SMALL + 11; code++) {
    family[5] = (char)('0' + bits_of_small(code));
    *rest = before;
    if (take(rest, family) && take(rest, small_names[code - FIRST_SMALL]) &&
        (!rest->size || *rest->data == 'x'))
      return code;
  }
  *rest = before;
  return -1;
}

static int take_plain(TVMFFIByteArray *rest, long *code, long *bits) {
  int index;
  if (take(rest, "custom[")) {
    *code = take_number(rest, 3);
    if (*code < FIRST_CUSTOM || !take(rest, "]"))
      return 0;
    *bits = take_number(rest, 9);
    return 1;
  }
  for (index = 0; index <= BOOL; index++)
    if (take(rest, plain_names[index])) {
      *code = index;
      *bits = take_number(rest, 9);
      if (*bits < 0)
        *bits = plain_bits[index];
      return 1;
    }
  return 0;
}

static int parse(TVMFFIByteArray rest, mrpc_dtype *dtype) {
  long code = take_small(&rest), bits = 0, lanes = 1, least = 1, most = SCALABLE;
  if (code >= 0)
    bits = bits_of_small((int)code);
  else if (!take_plain(&rest, &code, &bits))
    return 0;
  if (take(&rest, "x")) {
    int is_scalable = take(&rest, "vscalex");
    lanes = take_number(&rest, 9);
    if (is_scalable && lanes > 0) {
      lanes = 2L * SCALABLE - lanes;
      least = SCALABLE;
      most = 2L * SCALABLE;
    }
  }
  if (rest.size || code > 255 || bits < 1 || bits > 255 || lanes < least || lanes >= most)
    return 0;
  dtype->code = (uint8_t)code;
  dtype->bits = (uint8_t)bits;
  dtype->lanes = (uint16_t)lanes;
  return 1;
}

MRPC_EXPORT int TVMFFIDataTypeFromString(const TVMFFIByteArray *text, mrpc_dtype *out) {
  TVMFFIByteArray rest = *text;
  if (!rest.size || (rest.size == 4 && memcmp(rest.data, "void", 4) == 0)) {
    memset(out, 0, sizeof *out);
    out->code = HANDLE;
    return 0;
  }
  if (parse(rest, out))
    return 0;
  return mrpc_raise("ValueError", "'%.*s' is no data type; expected e.g. 'float32', 'int8x4', 'bool'",
                    rest.size < 200 ? (int)rest.size : 200, rest.data);
}

enum { NAME = MRPC_DTYPE_NAME };

size_t mrpc_dtype_name(mrpc_dtype dtype, char *out) {
  int code = dtype.code, bits = dtype.bits, size;
  if ((code == BOOL && bits == 8) || (code == UINT && bits == 1))
    size = snprintf(out, NAME, "bool");
  else if (code == HANDLE && !bits && !dtype.lanes)
    return *out = 0; /* void */
  else if (code == HANDLE && bits == 64)
    size = snprintf(out, NAME, "handle");
  else if (code < FIRST_SMALL)
    size = snprintf(out, NAME, "%s%d", plain_names[code], bits);
  else if (code < FIRST_SMALL + 11 && bits == bits_of_small(code))
    size = snprintf(out, NAME, "float%d_%s", bits, small_names[code - FIRST_SMALL]);
  else
    size = snprintf(out, NAME, "custom[%d]%d", code, bits);
  if (dtype.lanes >= SCALABLE)
    size += snprintf(out + size, NAME - (size_t)size, "xvscalex%d", 2 * SCALABLE - dtype.lanes);
  else if (dtype.lanes != 1)
    size += snprintf(out + size, NAME - (size_t)size, "x%d", dtype.lanes);
  return (size_t)size;
}

MRPC_EXPORT int TVMFFIDataTypeToString(const mrpc_dtype *dtype, TVMFFIAny *out) {
  char name[NAME];
  return mrpc_put_text(out, 1, name, mrpc_dtype_name(*dtype, name));
}
