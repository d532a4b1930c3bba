/* The measuring loop, of the server in C and, as machine code, of the one in Python. It refers to
 * nothing: what it needs of the system and of the runtime comes with the clock. */
#ifndef MRPC_TIMING_LOOP_H_
#define MRPC_TIMING_LOOP_H_

#include "ffi.h"

typedef struct {
  int (*read)(int clock, void *time); /* clock_gettime */
  void (*drop)(void *result);         /* gives back the object that a call returned */
  void *start, *end;                  /* each a struct timespec, which is written */
  int clock;                          /* CLOCK_MONOTONIC */
} mrpc_clock;

/* What a function of TVM up to 0.20 returned. */
typedef struct {
  int64_t value;
  int code;
} mrpc_legacy_result;

typedef int (*mrpc_legacy_call)(const void *values, const int *codes, int num_args, int64_t *value,
                                int *code, void *resource);

/* Calls a function so many times between two looks at the clock; its first status that is not 0 ends
 * the loop and is returned. Of the second one `drop` gets an mrpc_legacy_result. */
int mrpc_time_calls(TVMFFISafeCallType call, void *self, const TVMFFIAny *args, int32_t num_args,
                    int64_t number, const mrpc_clock *clock);
int mrpc_time_legacy_calls(mrpc_legacy_call call, const void *values, const int *codes, int num_args,
                           int64_t number, const mrpc_clock *clock);

#endif /* MRPC_TIMING_LOOP_H_ */
