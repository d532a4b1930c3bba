/* Values and objects as compiled code knows them: the layout is that of TVM's C API (tvm-ffi), of
 * which these are the facts. What is declared under a name of TVM is exported by our programs. */
#ifndef MRPC_FFI_H_
#define MRPC_FFI_H_

#include <stddef.h>
#include <stdint.h>

#include "wire.h"

#if defined(__GNUC__)
#define MRPC_EXPORT __attribute__((visibility("default"), used))
#define MRPC_PRINTF(text, first) __attribute__((format(printf, text, first)))
#else
#define MRPC_EXPORT
#define MRPC_PRINTF(text, first)
#endif

typedef struct {
  void *data;
  mrpc_device device;
  int32_t ndim;
  mrpc_dtype dtype;
  int64_t *shape;
  int64_t *strides;
  uint64_t byte_offset;
} DLTensor;

typedef struct TVMFFIObject {
  uint64_t combined_ref_count; /* strong in the lower 32 bits, weak in the upper */
  int32_t type_index;
  uint32_t padding;
  union {
    void (*deleter)(void *self, int flags); /* flags: 1 the strong part, 2 the weak one */
    int64_t align;
  } end;
} TVMFFIObject;

typedef struct {
  int32_t type_index;
  uint32_t small_len; /* of a small text; 0 otherwise */
  union {
    int64_t v_int64;
    double v_float64;
    void *v_ptr;
    const char *v_c_str;
    TVMFFIObject *v_obj;
    mrpc_dtype v_dtype;
    mrpc_device v_device;
    char v_bytes[8];
  } as;
} TVMFFIAny;

typedef struct {
  const char *data;
  size_t size;
} TVMFFIByteArray;

typedef int (*TVMFFISafeCallType)(void *self, const TVMFFIAny *args, int32_t num_args,
                                  TVMFFIAny *result);

typedef struct {
  TVMFFIObject object;
  TVMFFISafeCallType safe_call; /* gets the function object itself */
  void *cpp_call;
  TVMFFISafeCallType call; /* ours, behind what TVM knows: what `safe_call` calls with `self` */
  void *self;
  void (*end_self)(void *self);
} mrpc_function;

typedef struct {
  TVMFFIObject object;
  DLTensor tensor;
} mrpc_tensor;

/* Text and bytes objects; the content follows, with a NUL behind it. */
typedef struct {
  TVMFFIObject object;
  TVMFFIByteArray content;
} mrpc_text;

/* Objects (object.c) */

void mrpc_retain(TVMFFIObject *object);
void mrpc_release(TVMFFIObject *object);
/* Drops what an Any owns, and leaves None in it. */
void mrpc_drop(TVMFFIAny *any);
/* One more owner of what an Any refers to. */
void mrpc_keep(const TVMFFIAny *any);

/* A heap object with zeroed content, one reference; NULL after an error was raised. */
void *mrpc_object_new(size_t nbytes, int32_t type_index, void (*deleter)(void *self, int flags));
/* Text or bytes (type_index MRPC_TYPE_STR or MRPC_TYPE_BYTES). */
TVMFFIObject *mrpc_text_new(int32_t type_index, const void *content, size_t nbytes);
/* A function; `end_self` may be NULL. */
TVMFFIObject *mrpc_function_new(TVMFFISafeCallType call, void *self, void (*end_self)(void *self));
/* A tensor of the CPU with memory of its own, aligned to MRPC_ALIGNMENT, not zeroed. */
mrpc_tensor *mrpc_tensor_new(mrpc_dtype dtype, int32_t ndim, const int64_t *shape);
enum { MRPC_ALIGNMENT = 128 };

/* The content of any text or bytes value: raw, small, or an object. 0, or -1 if it is neither. */
int mrpc_content_of(const TVMFFIAny *any, TVMFFIByteArray *content);
/* The tensor of a value of kind 7 or 70; NULL if it is none. */
DLTensor *mrpc_tensor_of(const TVMFFIAny *any);

/* Calls a function: 0, or -1 after an error was raised. *result is None at first. */
int mrpc_call(TVMFFIObject *function, const TVMFFIAny *args, int32_t num_args, TVMFFIAny *result);

/* Global functions: a borrowed reference, or NULL; and a new one (override: may be there already). */
TVMFFIObject *mrpc_global_find(const char *name, size_t nbytes);
int mrpc_global_set(const char *name, size_t nbytes, TVMFFIObject *function, int override);

/* Functions that make arrays, maps and shapes and look into them, by their names in TVM. */
void mrpc_register_containers(void);

/* Errors: the one that this thread's running function fails with. */

/* Raises; returns -1, for `return mrpc_raise(...)`. */
int mrpc_raise(const char *kind, const char *format, ...) MRPC_PRINTF(2, 3);
#ifdef __clang_analyzer__ /* it does not look into functions of any number of arguments */
#define mrpc_raise(...) (mrpc_raise(__VA_ARGS__), -1)
#endif
/* Takes the raised error as text, "Kind: message" and then notes such as its place, at most
 * MRPC_MAX_TEXT bytes and a NUL; malloc'ed, never NULL. */
char *mrpc_take_error(size_t *nbytes);
enum { MRPC_MAX_TEXT = 64 * 1024 };

/* A library's constructors run between these, on one thread: what they may not register is raised by
 * mrpc_loading_end (-1), since an error within would end the process. */
void mrpc_loading_begin(void);
int mrpc_loading_end(void);

/* The key of a type by its index ("ffi.Array"), or NULL. */
const char *mrpc_type_key(int32_t type_index);

/* Functions of libraries of TVM up to 0.20 (legacy.c): a function object around a C function of that
 * age; `resource` is what it gets last. */
TVMFFIObject *mrpc_legacy_function_new(void *c_function, void *resource);

/* Modules (library.c); type index MRPC_TYPE_MODULE. */

typedef struct mrpc_module mrpc_module;

/* Loads a shared library: a module, or NULL after an error was raised. */
TVMFFIObject *mrpc_library_load(const char *path);
/* A function of a module, or of what it imports: a new reference in *function, NULL if there is
 * none. 0, or -1 after an error was raised. */
int mrpc_module_find(TVMFFIObject *module, const char *name, size_t nbytes, int query_imports,
                     TVMFFIObject **function);
/* The functions that are linked into the program, or were registered; a new reference. */
TVMFFIObject *mrpc_system_library(const char *prefix, size_t nbytes);
/* Makes functions that are linked into this program, and do not register, part of it. */
void mrpc_register_linked(void);
/* Registered by libraries as they are loaded (both ages): 0 or -1. `is_legacy`: the older form. */
int mrpc_system_symbol(const char *name, void *symbol, int is_legacy);
/* What TVMFFIEnvModRegisterContextSymbol gave: the value for variables of libraries loaded later. */
int mrpc_context_symbol(const char *name, void *value);
/* A function of the modules that `library_ctx` imports, or a global one: borrowed, lives as long as
 * the process; NULL if there is none. */
TVMFFIObject *mrpc_lookup(void *library_ctx, const char *name);

#endif /* MRPC_FFI_H_ */
