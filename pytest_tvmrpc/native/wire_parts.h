/* What the sources of wire.h share; nobody else needs it. */
#ifndef MRPC_WIRE_PARTS_H_
#define MRPC_WIRE_PARTS_H_

#include "wire.h"

typedef unsigned long long ull; /* of every printf: the macros of inttypes.h split the texts */

/* Writes the reason of a failure, if anybody wants it. */
#if defined(__GNUC__)
__attribute__((format(printf, 2, 3)))
#endif
void mrpc_explain(char *why, const char *format, ...);

#define FAIL(why, ...) (mrpc_explain(why, __VA_ARGS__), MRPC_ERROR)

static inline int32_t get_i32(const uint8_t *in) { return (int32_t)mrpc_get_u32(in); }

/* Data types of which TVM up to 0.20 had none, or had them under other numbers. */
enum { CODE_UINT = 1, CODE_BOOL = 6, CODE_E5M2_OLD = 7, CODE_E4M3 = 10, CODE_E5M2 = 12 };
enum { CODE_CUSTOM = 129 }; /* from here on, the numbers of users' types */

#endif /* MRPC_WIRE_PARTS_H_ */
