/* What the parts of a session share: its connection, its handles, its memory. */
#ifndef MRPC_SERVING_H_
#define MRPC_SERVING_H_

#include "session.h"

enum {
  MRPC_BUFFER = 64 * 1024,   /* of what is received */
  MRPC_HELD = 16 * 1024,     /* answers that may wait for others, at most */
  MRPC_LAST = 16 * 1024,     /* the end of a long answer; see MRPC_ANSWERING_LONG */
  MRPC_FIRST_PART = 1024     /* of a long copy: enough for any tensor's record */
};

#define MRPC_MAX_COLLECTED (1ll << 31) /* bytes of a request that has to be collected */

/* The connection (channel.c). Sends and receives block; the kernel's timeouts bound each wait. */

typedef struct {
  int in, out;
  mrpc_progress *progress;
  size_t begin, end; /* of what was received and not read yet */
  size_t held;       /* bytes of answers that were not sent yet */
  uint64_t missing;  /* bytes of the current packet that have not been received */
  int is_broken;     /* the client is gone within a packet, or takes nothing */
  int is_late;       /* a wait for the client took longer than it may */
  uint8_t buffer[MRPC_BUFFER + 1];
  uint8_t answers[MRPC_HELD];
} mrpc_channel;

/* Receives more into the buffer: 1, 0 at the end of the stream, -1 on an error. */
int mrpc_receive(mrpc_channel *channel);
/* Receives the next `nbytes` of the missing ones to this place: 0, or -1 when the client is gone. */
int mrpc_receive_to(mrpc_channel *channel, uint8_t *target, uint64_t nbytes);
/* Passes over what is missing of a packet. */
int mrpc_skip_missing(mrpc_channel *channel);
/* Takes an answer, to be sent with others. */
int mrpc_answer(mrpc_channel *channel, const uint8_t *packet, size_t nbytes);
/* Sends what was held, this packet's beginning, and its content. */
int mrpc_answer_long(mrpc_channel *channel, const uint8_t *head, size_t head_nbytes,
                     const uint8_t *content, uint64_t nbytes);
/* Likewise, with a file's content. */
int mrpc_answer_file(mrpc_channel *channel, const uint8_t *head, size_t head_nbytes, int file,
                     uint64_t nbytes);
int mrpc_send_held(mrpc_channel *channel);

/* What a session constructor asks for (relay.c): 0 if it is this session; else, once the client has
 * been served by another server or program, 0 and *is_over. -1 after an error was raised. */
int mrpc_relay(mrpc_channel *channel, const mrpc_sequence *constructor, double idle_s,
               int *is_over);

/* Memory of tensors, counted (memory.c) */

typedef struct mrpc_memory {
  int32_t references;
  uint8_t *data;
  uint64_t nbytes;
  uint64_t mapped;     /* bytes that were mapped; 0: it was allocated, or belongs to `owner` */
  TVMFFIObject *owner; /* a tensor of somebody else, whose memory this is */
} mrpc_memory;

/* Zeroed memory with one reference; NULL after an error was raised. */
mrpc_memory *mrpc_memory_new(uint64_t nbytes);
/* That of a tensor which a function returned, with one reference. */
mrpc_memory *mrpc_memory_of(TVMFFIObject *tensor);
void mrpc_memory_release(mrpc_memory *memory);
/* A tensor object in this memory, of the form of a record; NULL after an error. */
TVMFFIObject *mrpc_tensor_in(mrpc_memory *memory, const mrpc_record *record);
/* Reverses the bytes of each element, in place: a machine's order to the wire's and back. Nothing to
 * do on little-endian machines. 0, or -1 after an error: these are no whole elements. */
int mrpc_swap(uint8_t *data, uint64_t nbytes, mrpc_dtype dtype);
int mrpc_is_big_endian(void);

/* Handles (handles.c): the numbers under which the client knows things. */

typedef enum { MRPC_HANDLE_OBJECT, MRPC_HANDLE_MEMORY, MRPC_HANDLE_RETURNED } mrpc_handle_kind;

typedef struct {
  uint64_t number; /* 0: this place is free */
  void *target;    /* an object, or memory */
  uint64_t memory; /* of a returned tensor: the handle of its memory */
  uint32_t count;  /* how often the client has to free it */
  uint8_t kind, is_quick;
} mrpc_handle;

/* The entry of a handle, valid until one is put or freed; NULL if it names nothing. */
mrpc_handle *mrpc_handle_find(uint64_t number);
/* The number of an object or memory, which is owned from here on; the same as before if it has one.
 * 0 after an error was raised. */
uint64_t mrpc_handle_put(void *target, mrpc_handle_kind kind);
/* Likewise, under a number that the client chose. */
uint64_t mrpc_handle_put_as(uint64_t number, void *target, mrpc_handle_kind kind);
/* One less; with the last, what it names is released. */
void mrpc_handle_free(uint64_t number);
/* The number of a returned tensor whose memory has this handle; 0 if there is none. */
uint64_t mrpc_handle_of_returned(uint64_t memory);

/* Files (files.c) */

/* Where the bytes of an upload go as they arrive. */
typedef struct {
  int file;
  uint64_t nbytes, written;
  char name[1100], path[4096], partial[4096];
} mrpc_sink;

/* The function object of tvm.rpc.server.upload, to be told from others. */
extern TVMFFIObject *mrpc_upload_function;
int mrpc_files_open(const char *directory);
int mrpc_sink_open(mrpc_sink *sink, const TVMFFIByteArray *name, uint64_t nbytes);
int mrpc_sink_write(mrpc_sink *sink, const uint8_t *part, size_t nbytes);
int mrpc_sink_finish(mrpc_sink *sink);
void mrpc_sink_abort(mrpc_sink *sink);
/* What a function returns for the content of a file: an object of this type index, which only the
 * session that sends it knows. It is in the range of objects, so that it is released like any. */
enum { MRPC_TYPE_FILE = INT32_MAX };

typedef struct {
  TVMFFIObject object;
  int file;
  uint64_t nbytes;
} mrpc_file;

/* Linking (linking.c) */

/* What follows the last dot of a file's name; empty if there is none. */
const char *mrpc_suffix_of(const char *path);
/* Whether a file with this suffix has to be linked before it can be loaded. */
int mrpc_is_linked(const char *suffix);
/* Makes a library of such a file in the folder `root`; its path replaces that of the file. */
int mrpc_link_file(const char *root, int number, const char *name, char *path);
/* Runs a program to its end; its exit status, or -1. What it prints goes where we print. */
int mrpc_run(char *const arguments[]);

/* Registration of the session's functions, each in its file. */
typedef struct {
  const char *name;
  TVMFFISafeCallType call;
} mrpc_named;

int mrpc_register(const mrpc_named *functions, size_t count);
int mrpc_register_files(void);
int mrpc_register_timing(void);
int mrpc_register_tests(void);
int mrpc_register_tuning(void);
int mrpc_register_modules(void);
void mrpc_register_containers(void);

/* The parameters of a function, and a word that some of them are not looked at. */
#define MRPC_ARGUMENTS_OF_CALL \
  void *self, const TVMFFIAny *args, int32_t num_args, TVMFFIAny *result
#define MRPC_UNUSED (void)self, (void)args, (void)num_args, (void)result

/* Raises that an argument is missing, or of another kind; -1. */
int mrpc_wrong_argument(const TVMFFIAny *args, int32_t num_args, int index, const char *expected);
/* Arguments of the session's own functions: each 0, or -1 after an error was raised. */
int mrpc_argument_text(const TVMFFIAny *args, int32_t num_args, int index, const char *what,
                       TVMFFIByteArray *text);
int mrpc_argument_int(const TVMFFIAny *args, int32_t num_args, int index, const char *what,
                      int64_t *number);
int mrpc_argument_module(const TVMFFIAny *args, int32_t num_args, int index, TVMFFIObject **module);
void mrpc_return_int_to(TVMFFIAny *result, int64_t number);
int mrpc_return_text(TVMFFIAny *result, const void *text, size_t nbytes);
int mrpc_return_bytes(TVMFFIAny *result, const void *content, size_t nbytes);
void mrpc_return_object(TVMFFIAny *result, TVMFFIObject *object);

/* How a function is called without steps between: what to call, with which first argument. The
 * arguments are changed to those that it takes, which own nothing new (library.c). */
TVMFFISafeCallType mrpc_direct_call(TVMFFIObject *function, TVMFFIAny *args, int32_t num_args,
                                    void **self);

/* The names of a module's functions, a line each, malloc'ed; NULL after an error (library.c). */
char *mrpc_module_names(TVMFFIObject *module);
/* Why a function that somebody sees in the source cannot be called; empty, or malloc'ed. */
char *mrpc_module_hint(TVMFFIObject *module, const char *name);
const char *mrpc_module_path(TVMFFIObject *module);
int mrpc_module_import(TVMFFIObject *parent, TVMFFIObject *child);
void mrpc_module_clear_imports(TVMFFIObject *module);

#endif /* MRPC_SERVING_H_ */
