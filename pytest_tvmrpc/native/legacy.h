/* Values and calls of TVM up to 0.20: eight bytes each, and beside them their codes. */
#ifndef MRPC_LEGACY_H_
#define MRPC_LEGACY_H_

#include "objects.h"

typedef union {
  int64_t v_int64;
  double v_float64;
  void *v_handle;
  const char *v_str;
  mrpc_dtype v_type;
  mrpc_device v_device;
} TVMValue;

typedef int (*mrpc_legacy_call)(TVMValue *args, int *codes, int num_args, TVMValue *result,
                                int *result_code, void *resource);

/* Room for what an argument is described by, in either direction. */
typedef union {
  DLTensor tensor;
  TVMFFIByteArray bytes;
} mrpc_legacy_room;

/* The arguments of a call; a few need no memory of their own. */
enum { MRPC_FEW = 12 };

typedef struct {
  TVMValue *values;
  int *codes;
  mrpc_legacy_room *rooms;
  TVMValue few_values[MRPC_FEW];
  mrpc_legacy_room few_rooms[MRPC_FEW];
  int few_codes[MRPC_FEW];
} mrpc_legacy_args;

/* Values as code of that age knows them, lent. 0, or -1 with an error. */
int mrpc_pack_legacy(const TVMFFIAny *args, int32_t num_args, mrpc_legacy_args *packed);
void mrpc_free_legacy(mrpc_legacy_args *packed);
/* A value that such code passes, lent. 0, or -1 with an error. */
int mrpc_from_legacy(TVMValue value, int code, TVMFFIAny *any, mrpc_legacy_room *room);

/* A reference that the code owns from now on. */
int mrpc_give(TVMFFIObject *object);
/* Whether the code owned one; it is the caller's then. */
int mrpc_take_back(const void *object);

#endif /* MRPC_LEGACY_H_ */
