/* What compiled code calls in its runtime, by pointer variables or, with LINKED, by symbols. */
#include <stdint.h>
#include <string.h>

typedef struct {
  int32_t type_index;
  uint32_t length;
  union {
    int64_t i;
    void *p;
  } v;
} Any;

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

CONTEXT(TVMFFIFunctionCall, int, void *, const Any *, int, Any *)
CONTEXT(TVMFFIErrorSetRaisedFromCStr, void, const char *, const char *)
CONTEXT(TVMFFIErrorSetRaisedFromCStrParts, void, const char *, const char **, int)
CONTEXT(TVMFFIEnvModLookupFromImports, int, void *, const char *, void **)
CONTEXT(TVMFFIHandleInitOnce, int, void **, int (*)(void **))
CONTEXT(TVMFFIObjectIncRef, int, void *)
CONTEXT(TVMFFIObjectDecRef, int, void *)
CONTEXT(TVMBackendGetFuncFromEnv, int, void *, const char *, void **)
CONTEXT(TVMBackendAllocWorkspace, void *, int, int, uint64_t, int, int)
CONTEXT(TVMBackendFreeWorkspace, int, int, int, void *)
CONTEXT(TVMBackendParallelLaunch, int, int (*)(int, Env *, void *), void *, int)
CONTEXT(TVMBackendParallelBarrier, int, int, Env *)

void *__tvm_ffi__library_ctx = 0;

#define FUNCTION(name) int __tvm_ffi_##name(void *self, const Any *args, int32_t n, Any *out)

static void set_int(Any *out, int64_t value) {
  out->type_index = 1;
  out->length = 0;
  out->v.i = value;
}

FUNCTION(has_context) {
  set_int(out, __tvm_ffi__library_ctx != 0);
  return 0;
}

FUNCTION(fail_in_parts) {
  const char *parts[] = {"one ", "two ", "three"};
  TVM(TVMFFIErrorSetRaisedFromCStrParts)("TypeError", parts, 3);
  return -1;
}

FUNCTION(fail) {
  TVM(TVMFFIErrorSetRaisedFromCStr)("IndexError", "whole");
  return -1;
}

FUNCTION(call) { return TVM(TVMFFIFunctionCall)(args[0].v.p, args + 1, n - 1, out); }
FUNCTION(call_null) { return TVM(TVMFFIFunctionCall)(0, args, n, out); }

FUNCTION(call_by_name) {
  void *function = 0;
  int code = TVM(TVMFFIEnvModLookupFromImports)(__tvm_ffi__library_ctx, args[0].v.p, &function);
  return code ? code : TVM(TVMFFIFunctionCall)(function, args + 1, n - 1, out);
}

FUNCTION(call_from_env) { /* the way of 0.21 to 0.25; without a context */
  void *function = 0;
  int code = TVM(TVMBackendGetFuncFromEnv)(0, args[0].v.p, &function);
  return code ? code : TVM(TVMFFIFunctionCall)(function, args + 1, n - 1, out);
}

static void *handle = 0;
static int inits = 0;
static int init(void **result) {
  *result = &inits;
  inits++;
  return 0;
}
static int broken_init(void **result) {
  TVM(TVMFFIErrorSetRaisedFromCStr)("ValueError", "no handle");
  return -3;
}
FUNCTION(init_once) {
  int code = TVM(TVMFFIHandleInitOnce)(&handle, init);
  if (!code) code = TVM(TVMFFIHandleInitOnce)(&handle, init);
  set_int(out, handle == &inits ? inits : -1);
  return code;
}
FUNCTION(init_badly) {
  void *place = 0;
  return TVM(TVMFFIHandleInitOnce)(&place, broken_init);
}

FUNCTION(count_references) { /* one more and one less of args[0] */
  if (TVM(TVMFFIObjectIncRef)(args[0].v.p)) return -1;
  set_int(out, (int64_t)(*(uint64_t *)args[0].v.p & 0xffffffff));
  return TVM(TVMFFIObjectDecRef)(args[0].v.p);
}

FUNCTION(workspace) { /* of args[0] bytes on device type args[1]; its address modulo 64 */
  char *space = TVM(TVMBackendAllocWorkspace)((int)args[1].v.i, 0, args[0].v.i, 2, 32);
  if (!space) return -1;
  memset(space, 7, args[0].v.i);
  set_int(out, (int64_t)space % 64);
  return TVM(TVMBackendFreeWorkspace)((int)args[1].v.i, 0, space);
}

FUNCTION(free_wrongly) { return TVM(TVMBackendFreeWorkspace)(1, 0, out); }

typedef struct {
  int64_t ran[64];
  int64_t seen[64];
  int tasks;
  int fail;
  int barriers;
} Loop;

static int task(int id, Env *env, void *closure) {
  Loop *loop = closure;
  loop->tasks = env->num_task;
  loop->ran[id]++;
  if (loop->fail == id + 1) {
    TVM(TVMFFIErrorSetRaisedFromCStr)("ValueError", "of a task");
    return -1;
  }
  for (int round = 0; round < loop->barriers; round++) {
    int code = TVM(TVMBackendParallelBarrier)(id, env);
    if (code) return code;
    /* after the barrier, every task of this round has been there */
    for (int other = 0; other < env->num_task; other++)
      loop->seen[id] += ((volatile int64_t *)loop->ran)[other] >= round + 1;
    code = TVM(TVMBackendParallelBarrier)(id, env);
    if (code) return code;
    loop->ran[id]++;
  }
  return 0;
}

/* args: tasks, barriers, the task that fails + 1. The result: tasks, or -1 when one did not run as
   it should. */
FUNCTION(parallel) {
  Loop loop = {{0}};
  loop.barriers = (int)args[1].v.i;
  loop.fail = (int)args[2].v.i;
  int code = TVM(TVMBackendParallelLaunch)(task, &loop, (int)args[0].v.i);
  if (code) return code;
  set_int(out, loop.tasks);
  for (int id = 0; id < loop.tasks; id++) {
    if (loop.ran[id] != 1 + loop.barriers) set_int(out, -1);
    if (loop.seen[id] != (int64_t)loop.barriers * loop.tasks) set_int(out, -1);
  }
  return 0;
}

static int outer(int id, Env *env, void *closure) {
  Loop loop = {{0}};
  int code = TVM(TVMBackendParallelLaunch)(task, &loop, 0);
  ((int64_t *)closure)[id] = loop.tasks;
  return code;
}
FUNCTION(nested) { /* a loop of three tasks, each with a loop of its own */
  int64_t tasks[3] = {0};
  int code = TVM(TVMBackendParallelLaunch)(outer, tasks, 3);
  set_int(out, tasks[0] * 100 + tasks[1] * 10 + tasks[2]);
  return code;
}

FUNCTION(barrier_outside) {
  Env env = {0, 1};
  return TVM(TVMBackendParallelBarrier)(0, &env);
}
