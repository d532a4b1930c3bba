/* The measuring loop, and nothing else: what it adds to each call is a test or two. It is compiled
 * into machine code for runtime/timing_code.py: run `python -m harness.machine_code` after a change. */
#include "timing_loop.h"

int mrpc_time_calls(TVMFFISafeCallType call, void *self, const TVMFFIAny *args, int32_t num_args,
                    int64_t number, const mrpc_clock *clock) {
  TVMFFIAny result;
  int status = 0;
  clock->read(clock->clock, clock->start);
  while (number-- > 0 && status == 0) {
    result.type_index = 0;
    result.small_len = 0;
    result.as.v_int64 = 0;
    status = call(self, args, num_args, &result);
    if (result.type_index >= MRPC_TYPE_OBJECT) clock->drop(&result);
  }
  clock->read(clock->clock, clock->end);
  return status;
}

int mrpc_time_legacy_calls(mrpc_legacy_call call, const void *values, const int *codes, int num_args,
                           int64_t number, const mrpc_clock *clock) {
  mrpc_legacy_result result;
  int status = 0;
  clock->read(clock->clock, clock->start);
  while (number-- > 0 && status == 0) {
    result.value = 0;
    result.code = MRPC_ARG_NULL;
    status = call(values, codes, num_args, &result.value, &result.code, 0);
    if (result.code >= MRPC_ARG_OBJECT) clock->drop(&result);
  }
  clock->read(clock->clock, clock->end);
  return status;
}
