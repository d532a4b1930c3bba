/* Kernels that go wrong, and one that prints. */
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define FUNCTION(name) \
  int __tvm_ffi_##name(void* self, const void* args, int32_t count, int64_t* result)

FUNCTION(crash) {
  printf("about to crash\n");
  fflush(stdout);
  abort();
}

FUNCTION(hang) {
  printf("about to hang\n");
  fflush(stdout);
  for (;;) pause();
}

/* A session's parent is its server. */
FUNCTION(kill_server) {
  kill(getppid(), SIGKILL);
  for (;;) pause();
}

FUNCTION(say) {
  printf("said by the device\n");
  return 0;
}
