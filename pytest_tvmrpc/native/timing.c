/* What a session measures of its functions. The procedure is that of TVM; whatever a client sends is
 * checked. */
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "objects.h"
#include "serving.h"
#include "timing_loop.h"

enum { MOST_NUMBER = 2147483647, MOST_REPEAT = 1000000, DAY_MS = 24 * 60 * 60 * 1000 };

/* The settings, in the order in which TVM sends them. */
typedef struct {
  TVMFFIObject *function, *preproc;
  int64_t number, repeat, min_repeat_ms, zero_times, cooldown_ms, cooldown_every, flush_nbytes;
  int64_t tells_loop; /* whether a last result says which loop measured */
  char *flushed[2];
} evaluator;

static void end_evaluator(void *self) {
  evaluator *made = self;
  if (made->function != NULL) mrpc_release(made->function);
  if (made->preproc != NULL) mrpc_release(made->preproc);
  free(made->flushed[0]);
  free(made->flushed[1]);
  free(made);
}

static int one_call(TVMFFIObject *function, const TVMFFIAny *args, int32_t num_args) {
  TVMFFIAny result;
  int status;
  memset(&result, 0, sizeof(result));
  status = mrpc_call(function, args, num_args, &result);
  mrpc_drop(&result);
  return status;
}

static int64_t more_calls(int64_t number, double seconds, int64_t min_repeat_ms) {
  double wanted = (double)min_repeat_ms / (seconds * 1e3 / (double)number) + 1;
  double grown = (double)number * 1.618;
  if (grown > wanted) wanted = grown;
  return wanted < MOST_NUMBER ? (int64_t)wanted : MOST_NUMBER;
}

static int read_clock(int clock, void *time) { return clock_gettime(clock, time); }

static void drop_result(void *result) { mrpc_drop(result); }

static double seconds_between(const struct timespec *start, const struct timespec *end) {
  return (double)(end->tv_sec - start->tv_sec) + 1e-9 * (double)(end->tv_nsec - start->tv_nsec);
}

/* One measurement: seconds of a call. */
static int measure(evaluator *self, TVMFFISafeCallType call, void *first, const TVMFFIAny *args,
                   int32_t num_args, pid_t process, double *result) {
  struct timespec start, end;
  mrpc_clock clock = {read_clock, drop_result, &start, &end, CLOCK_MONOTONIC};
  double seconds = 0;
  int64_t zero_times = 0;
  int status;
  for (;;) {
    if (seconds > 0) self->number = more_calls(self->number, seconds, self->min_repeat_ms);
    if (self->flush_nbytes) {
      memcpy(self->flushed[0], self->flushed[1], (size_t)self->flush_nbytes);
    }
    status = mrpc_time_calls(call, first, args, num_args, self->number, &clock);
    if (status != 0) return mrpc_unsaid("a function", status, "TVMFFIErrorSetRaisedFromCStr");
    seconds = seconds_between(&start, &end);
    if (getpid() != process) _exit(127); /* the function forked, and its child came back here */
    zero_times += seconds <= 0;
    if (seconds * 1e3 >= (double)self->min_repeat_ms || self->number == MOST_NUMBER ||
        zero_times >= self->zero_times) {
      *result = seconds / (double)self->number;
      return 0;
    }
  }
}

static void cool_down(int64_t ms) {
  struct timespec pause;
  pause.tv_sec = (time_t)(ms / 1000);
  pause.tv_nsec = (long)(ms % 1000) * 1000000;
  while (nanosleep(&pause, &pause) != 0) continue;
}

static int run(evaluator *self, const TVMFFIAny *args, int32_t num_args, double *results) {
  TVMFFIAny *direct = malloc(((size_t)num_args + 1) * sizeof(*direct));
  TVMFFISafeCallType call;
  void *first;
  pid_t process = getpid();
  int64_t index;
  int status;
  if (direct == NULL) return mrpc_raise("MemoryError", "no memory for the arguments");
  memcpy(direct, args, (size_t)num_args * sizeof(*direct));
  status = one_call(self->function, args, num_args);
  call = mrpc_direct_call(self->function, direct, num_args, &first);
  for (index = 0; index < self->repeat && status == 0; index++) {
    if (self->preproc != NULL) status = one_call(self->preproc, args, num_args);
    if (status == 0) {
      status = measure(self, call, first, direct, num_args, process, &results[index]);
    }
    if (status == 0 && self->cooldown_ms > 0 && index % self->cooldown_every == 0) {
      cool_down(self->cooldown_ms);
    }
  }
  free(direct);
  return status;
}

static int evaluate(void *self, const TVMFFIAny *args, int32_t num_args, TVMFFIAny *result) {
  evaluator *made = self;
  int64_t count = made->repeat + made->tells_loop;
  double *results = calloc((size_t)count, sizeof(*results));
  uint8_t *bytes = (uint8_t *)results;
  int64_t index;
  int status;
  if (results == NULL) return mrpc_raise("MemoryError", "no memory for the results");
  status = run(made, args, num_args, results);
  if (made->tells_loop) results[made->repeat] = 1; /* the compiled one */
  for (index = 0; index < count; index++) { /* the wire is little-endian */
    uint64_t bits;
    memcpy(&bits, bytes + 8 * index, 8);
    mrpc_put_u64(bytes + 8 * index, bits);
  }
  if (status == 0) status = mrpc_return_bytes(result, bytes, 8 * (size_t)count);
  free(results);
  return status;
}

/* Reading what a client sends */

static int setting(const TVMFFIAny *args, int32_t num_args, int index, const char *name,
                   int64_t least, int64_t most, int64_t *number) {
  if (index >= num_args || (args[index].type_index != MRPC_TYPE_INT)) {
    return mrpc_raise("TypeError", "%s is no integer; expected one from %lld to %lld", name,
                      (long long)least, (long long)most);
  }
  *number = args[index].as.v_int64;
  if (*number >= least && *number <= most) return 0;
  return mrpc_raise("ValueError", "%s is %lld; expected an integer from %lld to %lld", name,
                    (long long)*number, (long long)least, (long long)most);
}

static int global_named(const TVMFFIByteArray *name, TVMFFIObject **function) {
  *function = mrpc_global_find(name->data, name->size);
  if (*function == NULL) {
    return mrpc_raise("ValueError", "Cannot find %.*s in the global registry",
                      (int)(name->size < 200 ? name->size : 200), name->data);
  }
  mrpc_retain(*function);
  return 0;
}

/* The function that is measured, by the first four arguments. */
static int find_subject(const TVMFFIAny *args, int32_t num_args, TVMFFIObject **function) {
  TVMFFIObject *module;
  TVMFFIByteArray name;
  int64_t device_type, device_id;
  if (mrpc_argument_text(args, num_args, 1, "the name of a function", &name) != 0 ||
      setting(args, num_args, 2, "device_type", 0, INT32_MAX, &device_type) != 0 ||
      setting(args, num_args, 3, "device_id", 0, INT32_MAX, &device_id) != 0) {
    return -1;
  }
  if (mrpc_check_device((int32_t)device_type) != 0) return -1;
  if (args[0].type_index == MRPC_TYPE_NONE) return global_named(&name, function);
  if (mrpc_argument_module(args, num_args, 0, &module) != 0 ||
      mrpc_module_find(module, name.data, name.size, 1, function) != 0) {
    return -1;
  }
  if (*function != NULL) return 0;
  return mrpc_raise("AttributeError", "Module has no function '%.*s'",
                    (int)(name.size < 200 ? name.size : 200), name.data);
}

static int read_settings(evaluator *made, const TVMFFIAny *args, int32_t num_args) {
  TVMFFIByteArray preproc;
  int at = 4;
  made->zero_times = 100;
  made->cooldown_every = 1;
  if (setting(args, num_args, at++, "number", 1, MOST_NUMBER, &made->number) != 0 ||
      setting(args, num_args, at++, "repeat", 1, MOST_REPEAT, &made->repeat) != 0 ||
      setting(args, num_args, at++, "min_repeat_ms", 0, DAY_MS, &made->min_repeat_ms) != 0) {
    return -1;
  }
  /* TVM 0.9 has the cool-down, but not the limit before it. */
  if (num_args >= 11 && setting(args, num_args, at++, "limit_zero_time_iterations", 0, MOST_NUMBER,
                                &made->zero_times) != 0) {
    return -1;
  }
  if (num_args >= 10 &&
      (setting(args, num_args, at++, "cooldown_interval_ms", 0, DAY_MS, &made->cooldown_ms) != 0 ||
       setting(args, num_args, at++, "repeats_to_cooldown", 1, MOST_NUMBER,
               &made->cooldown_every) != 0)) {
    return -1;
  }
  if (num_args >= 12 && setting(args, num_args, at++, "cache_flush_bytes", 0, 1 << 30,
                                &made->flush_nbytes) != 0) {
    return -1;
  }
  if (mrpc_argument_text(args, num_args, at, "the name of a function as f_preproc", &preproc) != 0) {
    return -1;
  }
  if (num_args == 13 && setting(args, num_args, 12, "tells_loop", 0, 1, &made->tells_loop) != 0) {
    return -1;
  }
  return preproc.size ? global_named(&preproc, &made->preproc) : 0;
}

static int time_evaluator(void *self, const TVMFFIAny *args, int32_t num_args, TVMFFIAny *result) {
  evaluator *made;
  TVMFFIObject *function;
  (void)self;
  if (num_args != 8 && num_args != 10 && num_args != 11 && num_args != 12 &&
      num_args != 13) {
    return mrpc_raise("ValueError", "a time evaluator of %d arguments; expected 8 or 10 to 13",
                      (int)num_args);
  }
  made = calloc(1, sizeof(*made));
  if (made == NULL) return mrpc_raise("MemoryError", "no memory for a time evaluator");
  if (find_subject(args, num_args, &made->function) != 0 ||
      read_settings(made, args, num_args) != 0) {
    end_evaluator(made);
    return -1;
  }
  if (made->flush_nbytes) {
    made->flushed[0] = calloc(1, (size_t)made->flush_nbytes);
    made->flushed[1] = calloc(1, (size_t)made->flush_nbytes);
    if (made->flushed[0] == NULL || made->flushed[1] == NULL) {
      int64_t nbytes = made->flush_nbytes;
      end_evaluator(made);
      return mrpc_raise("ValueError", "cache_flush_bytes is %lld: there is not so much memory",
                        (long long)nbytes);
    }
  }
  function = mrpc_function_new(evaluate, made, end_evaluator);
  if (function == NULL) {
    end_evaluator(made);
    return -1;
  }
  mrpc_return_object(result, function);
  return 0;
}

/* Single calls, timed */

typedef struct {
  TVMFFIObject *function;
  double seconds;
} timed_call;

static void end_timed(void *self) {
  mrpc_release(((timed_call *)self)->function);
  free(self);
}

static int call_timed(void *self, const TVMFFIAny *args, int32_t num_args, TVMFFIAny *result) {
  timed_call *timed = self;
  struct timespec start, end;
  int status;
  clock_gettime(CLOCK_MONOTONIC, &start);
  status = mrpc_call(timed->function, args, num_args, result);
  clock_gettime(CLOCK_MONOTONIC, &end);
  timed->seconds = seconds_between(&start, &end);
  return status;
}

static int make_timed(void *self, const TVMFFIAny *args, int32_t num_args, TVMFFIAny *result) {
  TVMFFIObject *subject, *function;
  timed_call *made;
  (void)self;
  if (num_args < 4) return mrpc_raise("TypeError", "a timed function takes four arguments");
  if (find_subject(args, num_args, &subject) != 0) return -1;
  made = calloc(1, sizeof(*made));
  if (made == NULL) {
    mrpc_release(subject);
    return mrpc_raise("MemoryError", "no memory for a function");
  }
  made->function = subject;
  function = mrpc_function_new(call_timed, made, end_timed);
  if (function == NULL) {
    end_timed(made);
    return -1;
  }
  mrpc_return_object(result, function);
  return 0;
}

static int seconds_of(void *self, const TVMFFIAny *args, int32_t num_args, TVMFFIAny *result) {
  const mrpc_function *function;
  (void)self;
  function = num_args == 1 && args[0].type_index == MRPC_TYPE_FUNCTION
                 ? (const mrpc_function *)args[0].as.v_obj
                 : NULL;
  if (function == NULL || function->safe_call != mrpc_inner_call || function->call != call_timed) {
    return mrpc_raise("TypeError",
                      "this takes no time; expected a function of tvmrpc.server.timed");
  }
  memset(result, 0, sizeof(*result));
  result->type_index = MRPC_TYPE_FLOAT;
  result->as.v_float64 = ((const timed_call *)function->self)->seconds;
  return 0;
}

int mrpc_register_timing(void) {
  static const mrpc_named functions[] = {
      {"runtime.RPCTimeEvaluator", time_evaluator},
      {"tvmrpc.server.timed", make_timed},
      {"tvmrpc.server.seconds", seconds_of},
  };
  return mrpc_register(functions, sizeof(functions) / sizeof(functions[0]));
}
