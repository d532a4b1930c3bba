/* What C++ code asks of libtvm_ffi.so, in C: each function is tried by one of its own. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

typedef struct {
  int32_t index;
  uint32_t small;
  union {
    int64_t number;
    void *pointer;
    char text[8];
  };
} Any;
typedef struct {
  uint64_t counts;
  int32_t type_index;
  uint32_t padding;
  void (*deleter)(void *, int);
} Object;
typedef struct {
  const char *data;
  size_t size;
} Bytes;
typedef struct {
  Object head;
  Bytes kind, message, backtrace;
  void (*update)(void *, const Bytes *, int32_t);
  void *cause, *context;
} Error;
typedef int (*Call)(void *, const Any *, int, Any *);
typedef struct Info {
  int32_t index, depth;
  Bytes key;
  const struct Info **ancestors;
  uint64_t hash;
  int32_t num_fields, num_methods;
  const void *fields, *methods, *metadata;
} Info;
typedef struct {
  Bytes name, doc, metadata;
  int64_t flags, size, alignment, offset;
  int (*getter)(void *, Any *);
  void *setter;
  Any initial;
  int32_t static_index;
} Field;
typedef struct {
  Bytes name, doc, metadata;
  int64_t flags;
  Any method;
} Method;
typedef struct {
  Bytes doc;
  void *creator;
  int32_t total_size, kind;
} Metadata;
typedef struct {
  const Any *data;
  int32_t size, begin;
} Column;
typedef struct {
  void *data;
  int32_t device_type, device_id, ndim;
  uint8_t code, bits;
  uint16_t lanes;
  int64_t *shape, *strides;
  uint64_t byte_offset;
} DLTensor;
typedef struct Managed {
  uint32_t major, minor;
  void *context;
  void (*deleter)(struct Managed *);
  uint64_t flags;
  DLTensor tensor;
} Managed;

int TVMFFIObjectIncRef(void *), TVMFFIObjectDecRef(void *);
void TVMFFIGetVersion(uint32_t *);
int TVMFFIObjectCreateOpaque(void *, int32_t, void (*)(void *), void **);
int TVMFFIAnyViewToOwnedAny(const Any *, Any *);
int TVMFFIFunctionCreate(void *, Call, void (*)(void *), void **);
int TVMFFIFunctionCall(void *, const Any *, int, Any *);
int TVMFFIFunctionGetGlobal(const Bytes *, void **);
int TVMFFIFunctionSetGlobal(const Bytes *, void *, int);
int TVMFFIFunctionSetGlobalFromMethodInfo(const Method *, int);
void TVMFFIErrorSetRaised(void *);
void TVMFFIErrorMoveFromRaised(void **);
int TVMFFIErrorCreate(const Bytes *, const Bytes *, const Bytes *, void **);
int TVMFFIErrorCreateWithCauseAndExtraContext(const Bytes *, const Bytes *, const Bytes *, void *,
                                              void *, void **);
const Bytes *TVMFFIBacktrace(const char *, int, const char *, int);
int TVMFFIStringFromByteArray(const Bytes *, Any *);
int TVMFFIBytesFromByteArray(const Bytes *, Any *);
int TVMFFIDataTypeFromString(const Bytes *, void *);
int TVMFFIDataTypeToString(const void *, Any *);
int TVMFFITypeKeyToIndex(const Bytes *, int32_t *);
int32_t TVMFFITypeGetOrAllocIndex(const Bytes *, int32_t, int32_t, int32_t, int32_t, int32_t);
const Info *TVMFFIGetTypeInfo(int32_t);
int TVMFFITypeRegisterField(int32_t, const Field *);
int TVMFFITypeRegisterMethod(int32_t, const Method *);
int TVMFFITypeRegisterMetadata(int32_t, const Metadata *);
int TVMFFITypeRegisterAttr(int32_t, const Bytes *, const Any *);
const Column *TVMFFIGetTypeAttrColumn(const Bytes *);
typedef struct Plain {
  DLTensor tensor;
  void *context;
  void (*deleter)(struct Plain *);
} Plain;
int TVMFFITensorFromDLPack(Plain *, int32_t, int32_t, void **);
int TVMFFITensorToDLPack(void *, Plain **);
int TVMFFITensorFromDLPackVersioned(Managed *, int32_t, int32_t, void **);
int TVMFFITensorToDLPackVersioned(void *, Managed **);
int TVMFFITensorCreateUnsafeView(void *, const DLTensor *, void **);
int TVMFFIEnvTensorAlloc(DLTensor *, void **);
int TVMFFIEnvSetDLPackManagedTensorAllocator(void *, int, void **);
void *TVMFFIEnvGetDLPackManagedTensorAllocator(void);
int TVMFFIEnvSetStream(int32_t, int32_t, void *, void **);
void *TVMFFIEnvGetStream(int32_t, int32_t);
int TVMFFIEnvCheckSignals(void);
int TVMFFIEnvRegisterCAPI(const char *, void *);
int TVMFFIEnvModRegisterContextSymbol(const char *, void *);
int TVMFFIHandleDeinitOnce(void **, int (*)(void *));
int TVMBackendAnyListSetPackedArg(void *, int, Any *, int);
int TVMBackendAnyListResetItem(void *, int);
int TVMBackendAnyListMoveFromPackedReturn(void *, int, Any *, int);

#define FUNCTION(name) \
  int __tvm_ffi_##name(void *self, const Any *args, int count, Any *result)

static Bytes bytes(const char *text) { return (Bytes){text, strlen(text)}; }
static int number(Any *result, int64_t value) {
  result->index = 1;
  result->small = 0;
  result->number = value;
  return 0;
}
static int object(Any *result, int32_t index, void *pointer) {
  result->index = index;
  result->small = 0;
  result->pointer = pointer;
  return 0;
}
static int failed(const char *what) {
  Bytes kind = bytes("AssertionError"), message = bytes(what), none = bytes("");
  void *error = 0;
  TVMFFIErrorCreate(&kind, &message, &none, &error);
  TVMFFIErrorSetRaised(error);
  TVMFFIObjectDecRef(error);
  return -1;
}
#define CHECK(condition) \
  if (!(condition)) return failed(#condition)

FUNCTION(version) {
  uint32_t version[3] = {9, 9, 9};
  TVMFFIGetVersion(version);
  return number(result, version[0] * 10000 + version[1] * 100 + version[2]);
}

static int ended = 0;
static void end(void *resource) { ended += (int)(intptr_t)resource; }
FUNCTION(ended) { return number(result, ended); }

static int add(void *self, const Any *args, int count, Any *result) {
  if (count != 1) return failed("one argument");
  return number(result, (int64_t)(intptr_t)self + args[0].number);
}

/* A function of C: called with its resource, which is given back with the function. */
FUNCTION(adder) {
  void *made = 0;
  CHECK(TVMFFIFunctionCreate((void *)(intptr_t)args[0].number, add, end, &made) == 0);
  return object(result, 68, made);
}

FUNCTION(register_adder) {
  Bytes name = {0};
  Any text;
  void *made = 0, *found = 0;
  CHECK(TVMFFIAnyViewToOwnedAny(&args[0], &text) == 0);
  name = text.index == 11 ? (Bytes){text.text, text.small} : *(Bytes *)((Object *)text.pointer + 1);
  CHECK(TVMFFIFunctionCreate((void *)(intptr_t)args[1].number, add, end, &made) == 0);
  int code = TVMFFIFunctionSetGlobal(&name, made, (int)args[2].number);
  TVMFFIObjectDecRef(made);
  if (code) return code;
  CHECK(TVMFFIFunctionGetGlobal(&name, &found) == 0 && found);
  Any argument = {1, 0, {1}};
  code = TVMFFIFunctionCall(found, &argument, 1, result);
  TVMFFIObjectDecRef(found);
  if (text.index == 65) TVMFFIObjectDecRef(text.pointer);
  return code;
}

/* Errors: made, passed on, read, with a place and with what caused them. */
FUNCTION(raise) {
  Bytes kind = bytes("ValueError"), message = bytes("made in C");
  Bytes reason = bytes("KeyError"), what = bytes("its cause"), none = bytes("");
  void *cause = 0, *error = 0;
  CHECK(TVMFFIErrorCreate(&reason, &what, &none, &cause) == 0);
  const Bytes *place = TVMFFIBacktrace("kernel.cc", 7, "int f()", 0);
  CHECK(TVMFFIErrorCreateWithCauseAndExtraContext(&kind, &message, place, cause, 0, &error) == 0);
  TVMFFIObjectDecRef(cause);
  Error *read = error;
  CHECK(read->head.type_index == 67 && read->cause == cause && !read->context);
  Bytes more = bytes("  File \"caller.cc\", line 1\n");
  read->update(error, &more, 1);
  CHECK(strstr(read->backtrace.data, "kernel.cc") && strstr(read->backtrace.data, "caller.cc"));
  TVMFFIErrorSetRaised(error);
  TVMFFIObjectDecRef(error);
  return -1;
}

static int told(Any *result, Error *error) {
  char text[512] = {0};
  strncat(text, error->kind.data, error->kind.size);
  strcat(text, "|");
  strncat(text, error->message.data, error->message.size);
  Bytes all = bytes(text);
  return TVMFFIStringFromByteArray(&all, result);
}

/* Calls a function, catches what it raises, and says what that was. */
FUNCTION(caught) {
  void *error = 0;
  CHECK(TVMFFIFunctionCall(args[0].pointer, 0, 0, result) != 0);
  TVMFFIErrorMoveFromRaised(&error);
  CHECK(error);
  int code = told(result, error);
  TVMFFIObjectDecRef(error);
  TVMFFIErrorMoveFromRaised(&error);
  CHECK(!error);
  return code;
}

/* Catches it and raises it again, as the same object. */
FUNCTION(passed_on) {
  void *error = 0, *again = 0;
  if (TVMFFIFunctionCall(args[0].pointer, 0, 0, result) == 0) return 0;
  TVMFFIErrorMoveFromRaised(&error);
  TVMFFIErrorSetRaised(error);
  TVMFFIErrorMoveFromRaised(&again);
  CHECK(!memcmp(((Error *)error)->message.data, ((Error *)again)->message.data, 1));
  TVMFFIErrorSetRaised(again);
  TVMFFIObjectDecRef(error);
  TVMFFIObjectDecRef(again);
  return -1;
}

/* Keeps a tensor of its caller until the next one comes, and says what the one before began with. */
FUNCTION(swapped) {
  static Object *own = 0;
  int64_t first = own ? **(int64_t **)(own + 1) : -1;
  CHECK(args[0].index == 0 || args[0].index == 70);
  if (own) TVMFFIObjectDecRef(own);
  own = args[0].index ? args[0].pointer : 0;
  if (own) TVMFFIObjectIncRef(own);
  return number(result, first);
}

FUNCTION(owned) { return TVMFFIAnyViewToOwnedAny(&args[0], result); }
FUNCTION(copied_bytes) { return TVMFFIBytesFromByteArray(args[0].pointer, result); }
FUNCTION(dtype) {
  Bytes *text = args[0].pointer;
  Bytes name = args[0].index == 9 ? *text : bytes(args[0].pointer);
  result->index = 5;
  result->small = 0;
  result->number = 0;
  return TVMFFIDataTypeFromString(&name, &result->number);
}
FUNCTION(dtype_name) { return TVMFFIDataTypeToString(&args[0].number, result); }

/* Opaque objects. */
FUNCTION(opaque) {
  void *made = 0;
  CHECK(TVMFFIObjectCreateOpaque((void *)100, 74, end, &made) == 0);
  CHECK(((Object *)made)->type_index == 74 && *(void **)((Object *)made + 1) == (void *)100);
  TVMFFIObjectIncRef(made);
  int before = ended;
  TVMFFIObjectDecRef(made);
  CHECK(ended == before);
  TVMFFIObjectDecRef(made);
  return number(result, ended - before);
}

/* References taken and given back as C++ does it, while others do so, too. */
FUNCTION(churn) {
  uint64_t *counts = args[0].pointer;
  for (int64_t i = 0; i < args[1].number; ++i) {
    __atomic_fetch_add(counts, 1, __ATOMIC_RELAXED);
    __atomic_fetch_sub(counts, 1, __ATOMIC_RELEASE);
  }
  return number(result, (int64_t)__atomic_load_n(counts, __ATOMIC_RELAXED));
}

/* Types: a base with room for two derived ones, of which there are three. */
FUNCTION(types) {
  Bytes base_key = bytes("test.Base"), key = bytes("test.Derived0");
  int32_t base = TVMFFITypeGetOrAllocIndex(&base_key, -1, 1, 2, 1, 64), found = 0;
  CHECK(base >= 128 && base == TVMFFITypeGetOrAllocIndex(&base_key, -1, 1, 2, 1, 64));
  CHECK(TVMFFITypeKeyToIndex(&base_key, &found) == 0 && found == base);
  int32_t index[3];
  char name[] = "test.Derived0";
  for (int i = 0; i < 3; ++i) {
    name[12] = (char)('0' + i);
    key = bytes(name);
    index[i] = TVMFFITypeGetOrAllocIndex(&key, -1, 2, 0, 1, base);
    const Info *info = TVMFFIGetTypeInfo(index[i]);
    CHECK(info->index == index[i] && info->depth == 2 && info->key.size == strlen(name));
    CHECK(!memcmp(info->key.data, name, info->key.size));
    CHECK(info->ancestors[0]->index == 64 && info->ancestors[1]->index == base);
  }
  CHECK(index[0] == base + 1 && index[1] == base + 2 && index[2] > base + 2);
  key = bytes("test.Nobody");
  CHECK(TVMFFITypeGetOrAllocIndex(&key, -1, 1, 0, 1, -2) == -2);
  CHECK(TVMFFIGetTypeInfo(99999)->key.size > 0);
  CHECK(!memcmp(TVMFFIGetTypeInfo(1)->key.data, "int", 3));
  CHECK(!memcmp(TVMFFIGetTypeInfo(72)->key.data, "ffi.Map", 7));
  if (TVMFFITypeKeyToIndex(&key, &found) != 0) return -1;
  return failed("an unknown key");
}

/* A class without room for more than one other. */
FUNCTION(closed_type) {
  Bytes key = bytes("test.Closed"), first = bytes("test.First"), second = bytes("test.Second");
  int32_t base = TVMFFITypeGetOrAllocIndex(&key, -1, 1, 1, 0, 64);
  CHECK(TVMFFITypeGetOrAllocIndex(&first, -1, 2, 0, 0, base) == base + 1);
  CHECK(TVMFFITypeGetOrAllocIndex(&first, -1, 2, 0, 0, base) == base + 1);
  return TVMFFITypeGetOrAllocIndex(&second, -1, 2, 0, 0, base) == -1 ? -1 : 0;
}

typedef struct {
  Object head;
  int64_t value;
} Counter;
static int get(void *field, Any *result) { return number(result, *(int64_t *)field); }
static int set(void *field, const Any *value) {
  *(int64_t *)field = value->number;
  return 0;
}
static int increase(void *self, const Any *args, int count, Any *result) {
  return number(result, ++((Counter *)args[0].pointer)->value);
}
static void drop(void *counter, int flags) {
  if (flags & 1) ended += 1000;
  if (flags & 2) free(counter);
}
static int32_t counter_index(void) {
  Bytes key = bytes("test.Counter");
  return TVMFFITypeGetOrAllocIndex(&key, -1, 1, 0, 1, 64);
}

/* A class with a field, a method and what it says of itself; registered as often as called. */
FUNCTION(register_counter) {
  int32_t index = counter_index();
  Field field = {bytes("value"), bytes("how far it is"), {0}, 3, 8, 8, sizeof(Object), get, set};
  field.initial = (Any){1, 0, {42}};
  field.static_index = 1;
  CHECK(TVMFFITypeRegisterField(index, &field) == 0);
  Method method = {bytes("increase"), {0}, {0}, 0, {0}};
  void *made = 0;
  CHECK(TVMFFIFunctionCreate(0, increase, 0, &made) == 0);
  object(&method.method, 68, made);
  CHECK(TVMFFITypeRegisterMethod(index, &method) == 0);
  TVMFFIObjectDecRef(made);
  Metadata metadata = {bytes("counts"), 0, sizeof(Counter), 0};
  CHECK(TVMFFITypeRegisterMetadata(index, &metadata) == 0);
  const Info *info = TVMFFIGetTypeInfo(index);
  CHECK(info->num_fields == 1 && info->num_methods == 1 && info->metadata);
  const Field *read = info->fields;
  CHECK(read->getter == get && read->name.size == 5 && read->initial.number == 42);
  const Method *call = info->methods;
  CHECK(call->method.pointer == made && !memcmp(call->name.data, "increase", 8));
  return number(result, index);
}

FUNCTION(counter) {
  Counter *made = calloc(1, sizeof(Counter));
  made->head = (Object){(1ULL << 32) | 1, counter_index(), 0, drop};
  made->value = args[0].number;
  return object(result, made->head.type_index, made);
}

FUNCTION(attributes) {
  Bytes name = bytes("__test__"), other = bytes("__other__");
  const Column *column = TVMFFIGetTypeAttrColumn(&name);
  CHECK(column && column->size <= 64);
  Any value = {1, 0, {5}};
  CHECK(TVMFFITypeRegisterAttr(64, &name, &value) == 0);
  CHECK(column->begin == 0 && column->size > 64 && column->data[64].number == 5);
  CHECK(column->data[1].index == 0);
  CHECK(TVMFFITypeRegisterAttr(0, &other, &value) == 0);
  CHECK(TVMFFIGetTypeAttrColumn(&name) == column);
  return TVMFFITypeRegisterAttr(88888, &name, &value);
}

/* Tensors. */
static int64_t shape[2] = {2, 3};
static float numbers[6];
static DLTensor prototype = {0, 1, 0, 2, 2, 32, 1, shape, 0, 0};

FUNCTION(allocated) {
  void *made = 0;
  CHECK(TVMFFIEnvTensorAlloc(&prototype, &made) == 0);
  DLTensor *tensor = (DLTensor *)((Object *)made + 1);
  CHECK(tensor->shape != shape && tensor->shape[1] == 3);
  CHECK(tensor->strides && tensor->strides[0] == 3 && tensor->strides[1] == 1);
  for (int i = 0; i < 6; ++i) ((float *)tensor->data)[i] = (float)i;
  return object(result, 70, made);
}

static void delete_managed(Managed *managed) {
  ended += 7;
  free(managed);
}
static Managed *managed(void) {
  Managed *made = calloc(1, sizeof(Managed));
  made->major = 1;
  made->deleter = delete_managed;
  made->tensor = prototype;
  made->tensor.data = numbers;
  return made;
}
static int give(DLTensor *wanted, Managed **out, void *context,
                void (*fail)(void *, const char *, const char *)) {
  if (wanted->shape[0] != 2) {
    fail(context, "MemoryError", "only two rows");
    return -1;
  }
  *out = managed();
  return 0;
}

/* Allocated by a function of the library's own. */
FUNCTION(by_allocator) {
  void *before = &before, *made = 0;
  CHECK(TVMFFIEnvSetDLPackManagedTensorAllocator(give, 0, &before) == 0 && !before);
  CHECK(TVMFFIEnvGetDLPackManagedTensorAllocator() == give);
  DLTensor wanted = prototype;
  int64_t rows[2] = {args[0].number, 3};
  wanted.shape = rows;
  int code = TVMFFIEnvTensorAlloc(&wanted, &made);
  CHECK(TVMFFIEnvSetDLPackManagedTensorAllocator(0, 0, &before) == 0 && before == give);
  if (code) return code;
  numbers[5] = 55;
  return object(result, 70, made);
}

FUNCTION(exchanged) {
  void *tensor = 0, *view = 0;
  Managed *again = 0, *wrong = managed();
  wrong->major = 9;
  CHECK(TVMFFITensorFromDLPackVersioned(wrong, 0, 0, &tensor) != 0);
  TVMFFIErrorMoveFromRaised(&tensor);
  TVMFFIObjectDecRef(tensor);
  free(wrong);
  CHECK(TVMFFITensorFromDLPackVersioned(managed(), 4, 1, &tensor) == 0);
  CHECK(TVMFFITensorToDLPackVersioned(tensor, &again) == 0);
  CHECK(again->tensor.data == numbers && again->tensor.ndim == 2);
  int before = ended;
  TVMFFIObjectDecRef(tensor);
  CHECK(ended == before);
  DLTensor flat = again->tensor;
  int64_t length = 6;
  flat.ndim = 1;
  flat.shape = &length;
  flat.strides = 0;
  CHECK(TVMFFITensorCreateUnsafeView((char *)tensor, &flat, &view) == 0);
  again->deleter(again);
  CHECK(ended == before);
  TVMFFIObjectDecRef(view);
  return number(result, ended - before);
}

static void delete_plain(Plain *plain) {
  ended += 9;
  free(plain);
}
FUNCTION(exchanged_plain) {
  Plain *made = calloc(1, sizeof(Plain)), *again = 0;
  int64_t strides[2] = {1, 2};
  void *tensor = 0;
  made->tensor = prototype;
  made->tensor.data = numbers;
  made->tensor.strides = strides;
  made->deleter = delete_plain;
  CHECK(TVMFFITensorFromDLPack(made, 0, 1, &tensor) != 0);
  TVMFFIErrorMoveFromRaised(&tensor);
  TVMFFIObjectDecRef(tensor);
  CHECK(TVMFFITensorFromDLPack(made, 0, 0, &tensor) == 0);
  CHECK(TVMFFITensorToDLPack(tensor, &again) == 0 && again->tensor.data == numbers);
  CHECK(again->tensor.strides != strides && again->tensor.strides[1] == 2);
  TVMFFIObjectDecRef(tensor);
  int before = ended;
  again->deleter(again);
  return number(result, ended - before);
}

FUNCTION(streams) {
  void *before = &before;
  CHECK(TVMFFIEnvGetStream(2, 1) == 0);
  CHECK(TVMFFIEnvSetStream(2, 1, (void *)17, &before) == 0 && !before);
  CHECK(TVMFFIEnvGetStream(2, 1) == (void *)17 && TVMFFIEnvGetStream(2, 0) == 0);
  CHECK(TVMFFIEnvSetStream(2, 1, 0, &before) == 0 && before == (void *)17);
  return number(result, 0);
}

FUNCTION(surroundings) {
  CHECK(TVMFFIEnvRegisterCAPI("PyErr_CheckSignals", (void *)1) == 0);
  CHECK(TVMFFIEnvModRegisterContextSymbol("__test_symbol", (void *)77) == 0);
  return TVMFFIEnvCheckSignals();
}
void *__test_symbol = 0;
FUNCTION(test_symbol) { return number(result, (int64_t)(intptr_t)__test_symbol); }

static int deinit(void *handle) { return handle == (void *)5 ? 0 : -1; }
FUNCTION(deinit) {
  void *handle = (void *)5;
  CHECK(TVMFFIHandleDeinitOnce(&handle, deinit) == 0 && !handle);
  CHECK(TVMFFIHandleDeinitOnce(&handle, deinit) == 0);
  return number(result, 0);
}

/* Registers of compiled Relax code. */
FUNCTION(registers) {
  Any list[2] = {{0}}, packed[2] = {{0}};
  void *made = 0;
  CHECK(TVMFFIFunctionCreate((void *)10000, add, end, &made) == 0);
  object(&packed[1], 68, made);
  CHECK(TVMBackendAnyListMoveFromPackedReturn(list, 1, packed, 1) == 0);
  CHECK(list[1].pointer == made && packed[1].index == 0);
  CHECK(TVMBackendAnyListSetPackedArg(list, 1, packed, 0) == 0);
  CHECK(packed[0].pointer == made && ((Object *)made)->counts == ((1ULL << 32) | 1));
  int before = ended;
  CHECK(TVMBackendAnyListResetItem(list, 1) == 0 && list[1].index == 0);
  return number(result, ended - before);
}

/* Objects that are kept until the process ends, as a static variable of C++ keeps them. */
static Object *kept[8];
static int num_kept = 0;
FUNCTION(keep) {
  TVMFFIObjectIncRef(args[0].pointer);
  kept[num_kept] = args[0].pointer;
  return number(result, ++num_kept);
}
__attribute__((destructor)) static void leave(void) {
  for (int i = 0; i < num_kept; ++i) {
    if (__atomic_fetch_sub(&kept[i]->counts, 1, __ATOMIC_RELEASE) != ((1ULL << 32) | 1)) abort();
    if (kept[i]->deleter) kept[i]->deleter(kept[i], 3);
  }
}

/* What is registered as the library is loaded. */
#ifdef REGISTERS
__attribute__((constructor)) static void start(void) {
  Method method = {bytes(REGISTERS), {0}, {0}, 0, {0}};
  void *made = 0;
  TVMFFIFunctionCreate((void *)(intptr_t)ADDS, add, end, &made);
  object(&method.method, 68, made);
  TVMFFIFunctionSetGlobalFromMethodInfo(&method, 0);
  TVMFFIObjectDecRef(made);
}
#endif

#ifdef TYPES
__attribute__((constructor)) static void enter(void) {
  Bytes key = bytes("test.Full"), extra = bytes("test.Extra");
  int32_t base = TVMFFITypeGetOrAllocIndex(&key, -1, 1, 0, 0, 64);
  TVMFFITypeGetOrAllocIndex(&extra, -1, 2, 0, 0, base);
}
#endif
