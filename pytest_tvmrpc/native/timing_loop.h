/* The measuring loop. */
#ifndef MRPC_TIMING_LOOP_H_
#define MRPC_TIMING_LOOP_H_

#include "ffi.h"

/* Calls a function so many times: its status, and the seconds of all calls together. */
int mrpc_time_calls(TVMFFISafeCallType call, void *self, const TVMFFIAny *args, int32_t num_args,
                    int64_t number, double *seconds);

#endif /* MRPC_TIMING_LOOP_H_ */
