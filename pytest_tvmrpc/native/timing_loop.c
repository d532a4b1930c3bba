/* The measuring loop, and nothing else: what it adds to each call is a test or two. */
#include "timing_loop.h"

#include <time.h>

int mrpc_time_calls(TVMFFISafeCallType call, void *self, const TVMFFIAny *args, int32_t num_args,
                    int64_t number, double *seconds) {
  struct timespec start, end;
  TVMFFIAny result;
  int status = 0;
  clock_gettime(CLOCK_MONOTONIC, &start);
  while (number-- > 0 && status == 0) {
    result.type_index = 0;
    result.small_len = 0;
    result.as.v_int64 = 0;
    status = call(self, args, num_args, &result);
    if (result.type_index >= MRPC_TYPE_OBJECT) mrpc_drop(&result);
  }
  clock_gettime(CLOCK_MONOTONIC, &end);
  *seconds = (double)(end.tv_sec - start.tv_sec) + 1e-9 * (double)(end.tv_nsec - start.tv_nsec);
  return status;
}
