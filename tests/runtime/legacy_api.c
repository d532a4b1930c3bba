/* What code of TVM up to 0.20 asks of libtvm_runtime.so beyond the calls of kernels. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

typedef union {
  int64_t number;
  double real;
  void *pointer;
  const char *text;
} Value;
typedef int (*Call)(Value *, int *, int, void *, void *);

int TVMFuncCreateFromCFunc(Call, void *, void (*)(void *), void **);
int TVMCFuncSetReturn(void *, Value *, int *, int);
int TVMFuncRegisterGlobal(const char *, void *, int);
int TVMFuncGetGlobal(const char *, void **);
int TVMFuncRemoveGlobal(const char *);
int TVMFuncListGlobalNames(int *, const char ***);
int TVMFuncCall(void *, Value *, int *, int, Value *, int *);
int TVMFuncFree(void *);
int TVMModFree(void *);
void TVMAPISetLastError(const char *);
int TVMArrayAlloc(const int64_t *, int, int, int, int, int, int, void **);
int TVMArrayFree(void *);
int TVMArrayCopyFromBytes(void *, void *, size_t);
int TVMArrayCopyToBytes(void *, void *, size_t);
int TVMArrayCopyFromTo(void *, void *, void *);
int TVMSynchronize(int, int, void *);

void *__tvm_module_ctx = 0;
#define FUNCTION(name) \
  int name(Value *args, int *codes, int count, Value *result, int *code, void *resource)
#define CHECK(condition) \
  if (!(condition)) return TVMAPISetLastError("AssertionError: " #condition), -1

static int given(Value *result, int *code, int64_t value) {
  result->number = value;
  *code = 0;
  return 0;
}

static int ended = 0;
static void end(void *resource) { ended += (int)(intptr_t)resource; }
FUNCTION(count_ended) { return given(result, code, ended); }

/* Adds its resource to a number; what is no number comes back as it is. */
static int add(Value *args, int *codes, int count, void *place, void *resource) {
  if (count != 1) return TVMAPISetLastError("ValueError: one argument"), -1;
  Value sum = args[0];
  if (codes[0] == 0) sum.number += (int64_t)(intptr_t)resource;
  return TVMCFuncSetReturn(place, &sum, &codes[0], 1);
}

FUNCTION(register_adder) {
  void *made = 0;
  CHECK(TVMFuncCreateFromCFunc(add, (void *)(intptr_t)args[1].number, end, &made) == 0);
  int failure = TVMFuncRegisterGlobal(args[0].text, made, (int)args[2].number);
  CHECK(TVMFuncFree(made) == 0);
  return failure;
}

FUNCTION(use_global) {
  void *found = 0;
  CHECK(TVMFuncGetGlobal(args[0].text, &found) == 0 && found);
  Value value = {1};
  int kind = 0, known = 0, size = 0;
  const char **names = 0;
  CHECK(TVMFuncListGlobalNames(&size, &names) == 0 && size > 0);
  for (int i = 0; i < size; ++i) known += !strcmp(names[i], args[0].text);
  CHECK(known == 1);
  CHECK(TVMFuncCall(found, &value, &kind, 1, result, code) == 0);
  CHECK(TVMFuncFree(found) == 0);
  return TVMFuncRemoveGlobal(args[0].text);
}

FUNCTION(free_module) { return TVMModFree(args[0].pointer); }

FUNCTION(arrays) {
  int64_t shape[2] = {2, 3};
  float numbers[6] = {0, 1, 2, 3, 4, 5}, read[6] = {0};
  void *first = 0, *second = 0;
  CHECK(TVMArrayAlloc(shape, 2, 2, 32, 1, 1, 0, &first) == 0);
  CHECK(TVMArrayAlloc(shape, 2, 2, 32, 1, 1, 0, &second) == 0);
  CHECK(TVMArrayCopyFromBytes(first, numbers, sizeof numbers) == 0);
  CHECK(TVMArrayCopyFromTo(first, second, 0) == 0);
  CHECK(TVMSynchronize(1, 0, 0) == 0);
  CHECK(TVMArrayCopyToBytes(second, read, sizeof read) == 0);
  CHECK(!memcmp(read, numbers, sizeof read));
  CHECK(TVMArrayCopyToBytes(second, read, 4) != 0);
  CHECK(TVMArrayFree(first) == 0 && TVMArrayFree(second) == 0 && TVMArrayFree(0) == 0);
  return TVMArrayFree(first);
}

FUNCTION(allocate) {
  void *made = 0;
  int64_t shape[1] = {args[1].number};
  return TVMArrayAlloc(shape, (int)args[0].number, 2, 32, 1, 1, 0, &made);
}

#ifdef REGISTERS
__attribute__((constructor)) static void start(void) {
  void *made = 0;
  TVMFuncCreateFromCFunc(add, (void *)(intptr_t)ADDS, 0, &made);
  TVMFuncRegisterGlobal(REGISTERS, made, 0);
  TVMFuncFree(made);
}
#endif
