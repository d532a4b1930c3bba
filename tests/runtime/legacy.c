/* Functions of TVM's convention up to 0.20, of every form that the tests call; without TVM's
   headers. With LINKED the runtime's functions are undefined symbols, as in the C that TVM makes;
   else pointer variables. */
#include <stdint.h>
#include <string.h>

typedef union {
  int64_t i;
  double f;
  void *p;
  struct {
    uint8_t code, bits;
    uint16_t lanes;
  } dtype;
  struct {
    int32_t type, id;
  } device;
} Value;

typedef struct {
  const char *data;
  size_t size;
} ByteArray;

typedef struct {
  void *data;
  int32_t device_type, device_id, ndim;
  uint8_t code, bits;
  uint16_t lanes;
  int64_t *shape, *strides;
  uint64_t byte_offset;
} Tensor;

typedef struct {
  void *sync_handle;
  int32_t num_task;
} Env;

#ifdef LINKED
#define CONTEXT(name, result, ...) extern result name(__VA_ARGS__);
#define TVM(name) name
#else
#define CONTEXT(name, result, ...) result (*__##name)(__VA_ARGS__) = 0;
#define TVM(name) __##name
#endif

CONTEXT(TVMFuncCall, int, void *, Value *, int *, int, Value *, int *)
CONTEXT(TVMAPISetLastError, void, const char *)
CONTEXT(TVMBackendGetFuncFromEnv, int, void *, const char *, void **)
CONTEXT(TVMBackendAllocWorkspace, void *, int, int, uint64_t, int, int)
CONTEXT(TVMBackendFreeWorkspace, int, int, int, void *)
CONTEXT(TVMBackendParallelLaunch, int, int (*)(int, Env *, void *), void *, int)
CONTEXT(TVMBackendParallelBarrier, int, int, Env *)
CONTEXT(TVMGetLastError, const char *, void)
CONTEXT(TVMFuncGetGlobal, int, const char *, void **)
CONTEXT(TVMFuncFree, int, void *)
CONTEXT(TVMBackendRunOnce, int, void **, int (*)(void *), void *, int)

void *__tvm_module_ctx = 0;
const char __tvm_main__[] = "sum";

#define FUNCTION(name) \
  int name(Value *args, int *codes, int n, Value *out, int *out_code, void *resource)

static int set_int(Value *out, int *out_code, int64_t value) {
  out->i = value;
  *out_code = 0;
  return 0;
}
#define RETURN(value) return set_int(out, out_code, value)

static int fail(const char *text) {
  TVM(TVMAPISetLastError)(text);
  return -1;
}

FUNCTION(nothing) { return 0; }
FUNCTION(count) { RETURN(n); }
FUNCTION(code_of_none) { RETURN(*out_code * 10 + (resource != 0)); }
FUNCTION(code) { RETURN(codes[0]); }
FUNCTION(word) { RETURN(args[0].i); }
FUNCTION(has_context) { RETURN(__tvm_module_ctx != 0); }
FUNCTION(echo) { /* as a result, of whatever code */
  *out = args[0];
  *out_code = codes[0];
  return 0;
}
FUNCTION(of_code) { /* a value args[1] with the code args[0] */
  *out = args[1];
  *out_code = (int)args[0].i;
  return 0;
}

FUNCTION(sum) {
  int64_t sum = 0;
  for (int i = 0; i < n; i++) {
    if (codes[i] != 0) return fail("TypeError: want ints");
    sum += args[i].i;
  }
  RETURN(sum);
}

FUNCTION(add) { /* c = a + b, of floats */
  Tensor *a = args[0].p, *b = args[1].p, *c = args[2].p;
  for (int i = 0; i < 3; i++)
    if (codes[i] != 7) return fail("Assert fail: want tensors");
  for (int64_t i = 0; i < c->shape[0]; i++)
    ((float *)c->data)[i] = ((float *)a->data)[i] + ((float *)b->data)[i];
  return 0;
}

FUNCTION(tensor_field) {
  const Tensor *t = args[0].p;
  int64_t fields[] = {t->device_type, t->device_id,   t->ndim,         t->code,     t->bits,
                      t->lanes,       t->strides != 0, t->byte_offset, t->shape[0]};
  RETURN(fields[args[1].i]);
}

FUNCTION(text_length) { RETURN((int64_t)strlen(args[0].p)); }
FUNCTION(byte_sum) {
  const ByteArray *array = args[0].p;
  int64_t sum = 0;
  for (size_t i = 0; i < array->size; i++) sum += (unsigned char)array->data[i];
  RETURN(sum * 1000 + (int64_t)array->size);
}

FUNCTION(fail_with) { return fail(args[0].p); }
FUNCTION(fail_silently) { return -1; }
FUNCTION(record_and_succeed) {
  fail("stale");
  return 0;
}
FUNCTION(last_error_length) {
  fail("four");
  RETURN((int64_t)strlen(TVM(TVMGetLastError)()));
}

FUNCTION(call) { return TVM(TVMFuncCall)(args[0].p, args + 1, codes + 1, n - 1, out, out_code); }
FUNCTION(call_with_codes) { /* args[0](args[2]), which is said to be of code args[1] */
  int given = (int)args[1].i;
  return TVM(TVMFuncCall)(args[0].p, args + 2, &given, 1, out, out_code);
}
FUNCTION(call_with_tensor) { /* args[0](a 2 x 2 tensor of ours of ints, said to be of args[1]) */
  int64_t shape[] = {2, 2};
  int32_t elements[] = {1, 2, 3, 4};
  Tensor tensor = {elements, 1, 0, 2, 0, 32, 1, shape, 0, 0};
  Value value = {.p = &tensor};
  int given = (int)args[1].i;
  return TVM(TVMFuncCall)(args[0].p, &value, &given, 1, out, out_code);
}
FUNCTION(call_for_nothing) {
  return TVM(TVMFuncCall)(args[0].p, args + 1, codes + 1, n - 1, 0, 0);
}
FUNCTION(call_text) { /* the length of the text, or bytes, that args[0] returns */
  Value text;
  int given = 4;
  if (TVM(TVMFuncCall)(args[0].p, 0, 0, 0, &text, &given)) return -1;
  if (given == 12) RETURN(1000 + (int64_t)((ByteArray *)text.p)->size);
  if (given == 11) RETURN((int64_t)strlen(text.p));
  return fail("no text");
}
FUNCTION(call_and_recover) {
  if (TVM(TVMFuncCall)(args[0].p, 0, 0, 0, out, out_code)) RETURN(-1);
  return 0;
}
FUNCTION(fail_and_clean_up) { /* an error stays recorded while args[0] is called */
  Value ignored;
  int ignored_code;
  fail("ValueError: the first");
  TVM(TVMFuncCall)(args[0].p, 0, 0, 0, &ignored, &ignored_code);
  return -1;
}
FUNCTION(call_by_name) {
  void *function = 0;
  if (TVM(TVMBackendGetFuncFromEnv)(__tvm_module_ctx, args[0].p, &function)) return -1;
  return TVM(TVMFuncCall)(function, args + 1, codes + 1, n - 1, out, out_code);
}
FUNCTION(give_context) { /* this module, as compiled code knows it */
  out->p = __tvm_module_ctx;
  *out_code = 9;
  return 0;
}
FUNCTION(call_global) { /* as hand-written code does: the function is its own, and freed */
  void *function = 0;
  if (TVM(TVMFuncGetGlobal)(args[0].p, &function)) return -1;
  if (!function) return fail("no such function");
  int code = TVM(TVMFuncCall)(function, args + 1, codes + 1, n - 1, out, out_code);
  return TVM(TVMFuncFree)(function) ? -2 : code;
}
FUNCTION(give_global) { /* the function itself */
  *out_code = 10;
  return TVM(TVMFuncGetGlobal)(args[0].p, &out->p);
}
FUNCTION(call_and_free) { /* what args[0] returns is called and freed */
  Value function;
  int given = 0;
  if (TVM(TVMFuncCall)(args[0].p, 0, 0, 0, &function, &given)) return -1;
  if (given != 10) return fail("no function");
  int code = TVM(TVMFuncCall)(function.p, args + 1, codes + 1, n - 1, out, out_code);
  return TVM(TVMFuncFree)(function.p) ? -1 : code;
}
FUNCTION(free_what_is_lent) { return TVM(TVMFuncFree)(args[0].p); }

FUNCTION(workspace) { /* of args[0] bytes; its address modulo 128 */
  char *space = TVM(TVMBackendAllocWorkspace)((int)args[1].i, 0, args[0].i, 2, 32);
  if (!space) return -1;
  memset(space, 7, args[0].i);
  set_int(out, out_code, (int64_t)space % 128);
  return TVM(TVMBackendFreeWorkspace)((int)args[1].i, 0, space);
}

static int task(int id, Env *env, void *closure) {
  int64_t *ran = closure;
  ran[id + 1] = env->num_task;
  if (ran[0] == id + 1) return fail("ValueError: of a task");
  return TVM(TVMBackendParallelBarrier)(id, env);
}
FUNCTION(parallel) { /* args[0] tasks, of which the one with number args[1] - 1 fails */
  int64_t ran[64] = {args[1].i};
  if (TVM(TVMBackendParallelLaunch)(task, ran, (int)args[0].i)) return -1;
  int64_t sum = 0;
  for (int i = 1; i < 64; i++) sum += ran[i];
  RETURN(sum);
}

static int once(void *closure) {
  (*(int64_t *)closure)++;
  return 0;
}
FUNCTION(run_once) {
  void *handle = 0;
  int64_t runs = 0;
  for (int i = 0; i < 3; i++)
    if (TVM(TVMBackendRunOnce)(&handle, once, &runs, 0)) return -1;
  RETURN(runs);
}

static int helper(void) { return 1; }
FUNCTION(use_helper) { RETURN(helper()); }
