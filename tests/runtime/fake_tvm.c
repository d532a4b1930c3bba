/* As much of TVM's runtime as a process has that imported TVM: it records errors on its own. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

typedef struct {
  uint64_t counts;
  int32_t type_index;
  uint32_t padding;
  void (*deleter)(void *, int);
  struct {
    const char *data;
    size_t size;
  } kind, message, backtrace;
  void *update_backtrace, *cause_chain, *extra_context;
} Error;

static Error *raised = 0;
static void delete_error(void *error, int flags) { free(error); }

void TVMFFIErrorSetRaisedFromCStrParts(const char *kind, const char **parts, int count) {
  raised = calloc(1, sizeof(Error));
  raised->counts = (1ULL << 32) | 1;
  raised->type_index = 67;
  raised->deleter = delete_error;
  raised->kind.data = kind;
  raised->kind.size = strlen(kind);
  raised->message.data = parts[0];
  raised->message.size = strlen(parts[0]);
}

void TVMFFIErrorSetRaised(void *error) {
  raised = error;
  ++*(uint32_t *)error;
}

void TVMFFIErrorMoveFromRaised(void **error) {
  *error = raised;
  raised = 0;
}

int TVMFFIEnvModLookupFromImports(void *context, const char *name, void **out) { abort(); }

/* The same of TVM up to 0.20. */
static char last_error[256];
void TVMAPISetLastError(const char *text) { strncpy(last_error, text, 255); }
const char *TVMGetLastError(void) { return last_error; }
int TVMFuncCall(void *f, void *args, int *codes, int n, void *out, int *out_code) { abort(); }
