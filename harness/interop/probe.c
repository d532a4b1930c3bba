/* Functions that show what a kernel sees, over TVM's calling convention and without its headers. */
#include <stdint.h>
#include <stdlib.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

typedef struct {
    int32_t type_index;
    uint32_t small_len;
    union {
        int64_t v_int64;
        double v_float64;
        void *v_ptr;
        const char *v_c_str;
        char v_bytes[8];
        struct { uint8_t code, bits; uint16_t lanes; } v_dtype;
        struct { int32_t type, id; } v_device;
    };
} Any;

typedef struct { const char *data; size_t size; } ByteArray;

typedef struct {
    void *data;
    struct { int32_t type, id; } device;
    int32_t ndim;
    struct { uint8_t code, bits; uint16_t lanes; } dtype;
    int64_t *shape;
    int64_t *strides;
    uint64_t byte_offset;
} Tensor;

enum { NONE, INT, BOOL, FLOAT, POINTER, DTYPE, DEVICE, TENSOR, RAW_STR, BYTE_ARRAY,
       SMALL_STR = 11, SMALL_BYTES = 12, BYTES = 66, TENSOR_OBJECT = 70, OBJECT_HEADER = 24 };

/* The loader puts addresses here. */
void (*__TVMFFIErrorSetRaisedFromCStr)(const char *kind, const char *message);
void *(*__TVMBackendAllocWorkspace)(int type, int id, uint64_t nbytes, int code, int bits);
int (*__TVMBackendFreeWorkspace)(int type, int id, void *memory);
void *__tvm_ffi__library_ctx;

#define EXPORT(name) \
    int __tvm_ffi_##name(void *self, const Any *args, int32_t count, Any *result)

static int fail(const char *kind, const char *message) {
    __TVMFFIErrorSetRaisedFromCStr(kind, message);
    return -1;
}

static int give_int(Any *result, int64_t value) {
    result->type_index = INT;
    result->small_len = 0;
    result->v_int64 = value;
    return 0;
}

static int give_bool(Any *result, int value) {
    give_int(result, value != 0);
    result->type_index = BOOL;
    return 0;
}

static const Tensor *tensor_of(const Any *value) {
    if (value->type_index == TENSOR) return value->v_ptr;
    if (value->type_index == TENSOR_OBJECT) return (void *)((char *)value->v_ptr + OBJECT_HEADER);
    return NULL;
}

EXPORT(addone) {
    if (count != 1 || args[0].type_index != INT) return fail("TypeError", "want one int");
    return give_int(result, args[0].v_int64 + 1);
}

EXPORT(main) { return give_int(result, 4711); }

EXPORT(nothing) { return 0; }

/* How a value arrives: its type index. */
EXPORT(kind_of) { return give_int(result, count == 1 ? args[0].type_index : -1); }

EXPORT(count_of) { return give_int(result, count); }

EXPORT(text_length) {
    if (args[0].type_index != RAW_STR) return fail("TypeError", "want a C string");
    return give_int(result, (int64_t)strlen(args[0].v_c_str));
}

/* The sum of the bytes of a bytes value, in whatever form it came. */
EXPORT(bytes_sum) {
    ByteArray bytes = {args[0].v_bytes, args[0].small_len};
    if (args[0].type_index == BYTE_ARRAY) bytes = *(ByteArray *)args[0].v_ptr;
    else if (args[0].type_index == BYTES)
        bytes = *(ByteArray *)((char *)args[0].v_ptr + OBJECT_HEADER);
    else if (args[0].type_index != SMALL_BYTES) return fail("TypeError", "want bytes");
    int64_t sum = 0;
    for (uint64_t i = 0; i < bytes.size; i++) sum += (unsigned char)bytes.data[i];
    return give_int(result, sum);
}

/* A result of the kind whose number is given. */
EXPORT(give) {
    give_int(result, 0);
    result->type_index = (int32_t)args[0].v_int64;
    switch (args[0].v_int64) {
    case NONE: return 0;
    case INT: result->v_int64 = -5; return 0;
    case BOOL: result->v_int64 = 1; return 0;
    case FLOAT: result->v_float64 = 0.25; return 0;
    case POINTER: result->v_int64 = 0x1234; return 0;
    case DTYPE:
        result->v_dtype.code = 2; result->v_dtype.bits = 16; result->v_dtype.lanes = 4; return 0;
    case DEVICE: result->v_device.type = 1; result->v_device.id = 0; return 0;
    case RAW_STR: result->v_c_str = "a raw string"; return 0;
    case SMALL_STR: result->small_len = 5; memcpy(result->v_bytes, "small", 6); return 0;
    case SMALL_BYTES: result->small_len = 3; memcpy(result->v_bytes, "\0\1\2", 4); return 0;
    }
    result->type_index = NONE;
    return fail("ValueError", "no such kind");
}

/* out[i] = value: shows that a tensor's memory is writable in place. */
EXPORT(fill) {
    const Tensor *out = count == 2 ? tensor_of(&args[0]) : NULL;
    if (out == NULL || args[1].type_index != FLOAT) return fail("TypeError", "want tensor, float");
    int64_t length = 1;
    for (int i = 0; i < out->ndim; i++) length *= out->shape[i];
    for (int64_t i = 0; i < length; i++)
        ((float *)((char *)out->data + out->byte_offset))[i] = (float)args[1].v_float64;
    return 0;
}

/* Parts of a tensor's description: 0 ndim, 1 dtype as code << 24 | bits << 16 | lanes, 2 alignment
   of its memory, 3 device type, 4 byte offset, 5 whether strides are compact, 10 + i: shape[i]. */
EXPORT(tensor_field) {
    const Tensor *tensor = tensor_of(&args[0]);
    if (tensor == NULL) return fail("TypeError", "want a tensor");
    int64_t field = args[1].v_int64;
    int64_t stride = 1;
    switch (field) {
    case 0: return give_int(result, tensor->ndim);
    case 1: return give_int(result, (int64_t)tensor->dtype.code << 24
                            | (int64_t)tensor->dtype.bits << 16 | tensor->dtype.lanes);
    case 2: return give_int(result, (int64_t)((uintptr_t)tensor->data & -(uintptr_t)tensor->data));
    case 3: return give_int(result, tensor->device.type);
    case 4: return give_int(result, (int64_t)tensor->byte_offset);
    case 5:
        for (int i = tensor->ndim - 1; tensor->strides != NULL && i >= 0; i--) {
            if (tensor->shape[i] != 1 && tensor->strides[i] != stride) return give_bool(result, 0);
            stride *= tensor->shape[i];
        }
        return give_bool(result, 1);
    }
    if (field < 10 || field - 10 >= tensor->ndim) return fail("IndexError", "no such field");
    return give_int(result, tensor->shape[field - 10]);
}

static int64_t calls;

EXPORT(count) { calls++; return 0; }

EXPORT(calls) { return give_int(result, calls); }

EXPORT(workspace) {
    char *memory = __TVMBackendAllocWorkspace(1, 0, 1 << 20, 2, 32);
    if (memory == NULL || ((uintptr_t)memory & 63) != 0) return fail("MemoryError", "unaligned");
    memset(memory, 1, 1 << 20);
    return give_int(result, __TVMBackendFreeWorkspace(1, 0, memory));
}

EXPORT(has_context) { return give_bool(result, __tvm_ffi__library_ctx != NULL); }

EXPORT(wait) { sleep((unsigned)args[0].v_int64); return 0; }

EXPORT(crash) { abort(); }

EXPORT(print_line) { return printf("a line of C\n") < 0; }

/* Whether a file whose name contains the text is mapped into this process. */
EXPORT(maps) {
    char line[4096];
    int found = 0;
    FILE *file = fopen("/proc/self/maps", "r");
    if (file == NULL) return fail("OSError", "no /proc/self/maps");
    while (fgets(line, sizeof line, file) != NULL)
        if (strstr(line, args[0].v_c_str) != NULL) found = 1;
    fclose(file);
    return give_bool(result, found);
}

/* Whether the Python that runs this process, if any, can import a module of that name. */
extern int PyGILState_Ensure(void) __attribute__((weak));
extern void PyGILState_Release(int) __attribute__((weak));
extern void *PyImport_ImportModule(const char *) __attribute__((weak));
extern void PyErr_Clear(void) __attribute__((weak));

EXPORT(can_import) {
    if (PyGILState_Ensure == NULL || PyGILState_Release == NULL || PyErr_Clear == NULL ||
        PyImport_ImportModule == NULL)
        return 0;
    int state = PyGILState_Ensure();
    void *module = PyImport_ImportModule(args[0].v_c_str);
    if (module == NULL) PyErr_Clear();
    PyGILState_Release(state);
    return give_bool(result, module != NULL);
}
