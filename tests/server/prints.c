/* Functions that print. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define FUNCTION(name) \
  int __tvm_ffi_##name(void* self, const void* args, int32_t count, int64_t* result)

/* Into the buffer of C's stdout, which nobody flushes here. */
FUNCTION(say) {
  printf("said in C\n");
  return 0;
}

FUNCTION(complain) {
  fprintf(stderr, "wrong\n");
  return 0;
}

/* By a process of its own, which has ended. */
FUNCTION(have_a_child_say) { return system("echo said by a child"); }

/* 5 MiB: 655,360 lines of 8 bytes with their numbers. */
FUNCTION(count) {
  for (int number = 0; number < 655360; ++number) printf("%07d\n", number);
  return 0;
}

/* All that a library could do wrong on connections that are not its own. */
FUNCTION(write_everywhere) {
  static const char nonsense[1000];
  long written = 0;
  for (int descriptor = 3; descriptor < 64; ++descriptor) {
    written += write(descriptor, nonsense, sizeof nonsense);
  }
  return written < 0;
}
