/* Feeds a whole session of the C server with anything a client could send, for libFuzzer.
 *
 * The first byte of an input chooses: its lowest bit, whether the rest is the stream itself, or
 * packets to be put into one (a byte of code, two of length, the body); the next bit, whether an
 * InitServer comes before it. Nothing outside of the process is touched but an empty directory:
 * what starts programs, connects, loads libraries or waits is replaced by the functions below, by
 * names that the compiler is given (see fuzz.py).
 */
#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define mrpc_time_calls really_time_calls /* see below */
#include "timing_loop.c"
#undef mrpc_time_calls

#include "handles.c" /* whose table has to be empty at first, and its numbers the same each time */

#define HOLDS(condition) \
  do { \
    if (!(condition)) { \
      fprintf(stderr, "%s:%d: does not hold: %s\n", __FILE__, __LINE__, #condition); \
      abort(); \
    } \
  } while (0)

enum { MOST_MAPPED = 1 << 20, MOST_CALLS = 3 };

#undef fork
#undef connect
#undef nanosleep
#undef mmap
#undef dlopen

extern void *mmap(void *, size_t, int, int, int, off_t);
extern void *dlopen(const char *, int);

pid_t fuzz_fork(void) {
  errno = EAGAIN;
  return -1;
}

int fuzz_connect(int fd, const struct sockaddr *address, socklen_t nbytes) {
  (void)fd, (void)address, (void)nbytes;
  errno = ECONNREFUSED;
  return -1;
}

int fuzz_nanosleep(const struct timespec *wait, struct timespec *rest) {
  (void)wait, (void)rest;
  return 0;
}

void *fuzz_dlopen(const char *path, int flags);

void *fuzz_dlopen(const char *path, int flags) {
  return path ? NULL : dlopen(NULL, flags);
}

/* As on a machine of little memory; the mark of a copied process has none of it. */
void *fuzz_mmap(void *place, size_t nbytes, int prot, int flags, int fd, off_t offset) {
  if (nbytes <= 4096 || nbytes > MOST_MAPPED) {
    errno = ENOMEM;
    return MAP_FAILED;
  }
  return mmap(place, nbytes, prot, flags, fd, offset);
}

int mrpc_time_calls(TVMFFISafeCallType call, void *self, const TVMFFIAny *args, int32_t num_args,
                    int64_t number, const mrpc_clock *clock);

/* A client may ask for any number of calls; here they take a second, however many. */
int mrpc_time_calls(TVMFFISafeCallType call, void *self, const TVMFFIAny *args, int32_t num_args,
                    int64_t number, const mrpc_clock *clock) {
  struct timespec *start = clock->start, *end = clock->end;
  if (number > MOST_CALLS) number = MOST_CALLS;
  int status = really_time_calls(call, self, args, num_args, number, clock);
  *end = *start;
  end->tv_sec++;
  return status;
}

static char directory[64] = "/tmp/tvmrpc-fuzz-session-XXXXXX";
static int in = -1, out = -1;

static void remove_directory(void) { rmdir(directory); }

static void prepare(void) {
  if (in >= 0) return;
  HOLDS(mkdtemp(directory) && !chdir(directory));
  atexit(remove_directory);
  in = memfd_create("in", 0);
  out = memfd_create("out", 0);
  HOLDS(in >= 0 && out >= 0);
}

static void put(const void *content, size_t nbytes) {
  HOLDS(write(in, content, nbytes) == (ssize_t)nbytes);
}

static void put_packet(int32_t code, const uint8_t *body, size_t nbytes) {
  uint8_t head[MRPC_HEAD];
  mrpc_put_u64(head, 4 + (uint64_t)nbytes);
  mrpc_put_u32(head + 8, (uint32_t)code);
  put(head, sizeof head);
  if (nbytes) put(body, nbytes);
}

/* The stream of a client; returns how many requests can be in it. */
static size_t put_stream(const uint8_t *content, size_t nbytes) {
  static const uint8_t opening[] = {5, 0, 0, 0, 0, 0, 0, 0, '0', '.', '8', '.', '0', 0, 0, 0, 0};
  size_t requests = 1 + nbytes / MRPC_HEAD;
  int choice = *content++;
  nbytes--;
  HOLDS(!ftruncate(in, 0) && !ftruncate(out, 0));
  HOLDS(!lseek(in, 0, SEEK_SET) && !lseek(out, 0, SEEK_SET));
  if (choice & 2) put_packet(MRPC_CODE_INIT_SERVER, opening, sizeof opening), requests++;
  if (choice & 1) {
    if (nbytes) put(content, nbytes);
  } else {
    while (nbytes >= 3) {
      int32_t code = content[0];
      size_t size = (size_t)content[1] | (size_t)content[2] << 8;
      content += 3;
      nbytes -= 3;
      if (size > nbytes) size = nbytes;
      put_packet(code, content, size), requests++;
      content += size;
      nbytes -= size;
    }
  }
  HOLDS(!lseek(in, 0, SEEK_SET));
  return requests;
}

/* Whole packets, of what is an answer, and no more of them than there can have been requests. */
static void check_answers(size_t requests) {
  static mrpc_value values[MRPC_MAX_VALUES];
  static mrpc_record records[MRPC_MAX_VALUES];
  off_t size = lseek(out, 0, SEEK_END);
  if (!size) return;
  uint8_t *all = mmap(NULL, (size_t)size, PROT_READ, MAP_PRIVATE, out, 0);
  HOLDS(all != MAP_FAILED);
  size_t nbytes = (size_t)size, answers = 0;
  for (const uint8_t *at = all; nbytes; answers++) {
    int32_t code;
    uint64_t body;
    HOLDS(mrpc_read_head(at, nbytes, &code, &body, NULL) == MRPC_HEAD);
    HOLDS(body <= nbytes - MRPC_HEAD);
    at += MRPC_HEAD;
    if (code != MRPC_CODE_COPY_ACK) {
      mrpc_sequence sequence = {values, MRPC_MAX_VALUES, records, MRPC_MAX_VALUES, 0, 0};
      HOLDS(code == MRPC_CODE_RETURN || code == MRPC_CODE_EXCEPTION);
      HOLDS(mrpc_read_values(MRPC_FFI, at, (size_t)body, 0, &sequence, NULL) >= 0 ||
            mrpc_read_values(MRPC_LEGACY, at, (size_t)body, 0, &sequence, NULL) >= 0);
      if (code == MRPC_CODE_EXCEPTION) HOLDS(sequence.count == 1 && values->kind == MRPC_TEXT);
    }
    at += body;
    nbytes -= MRPC_HEAD + (size_t)body;
  }
  HOLDS(answers <= requests);
  munmap(all, (size_t)size);
}

static void clear(void) {
  for (size_t place = 0; place < capacity; ++place) {
    while (entries[place].number) {
      uint64_t number = entries[place].number;
      entries[place].count = 1;
      mrpc_handle_free(number);
    }
  }
  for (size_t place = 0; place < capacity; ++place) HOLDS(!entries[place].number && !numbers[place]);
  HOLDS(!used);
  free(entries);
  free(numbers);
  entries = NULL;
  numbers = NULL;
  capacity = used = 0;
  last_number = 0;
  mrpc_raise("Error", "none is left behind");
  size_t nbytes;
  free(mrpc_take_error(&nbytes));
}

static void empty_directory(const char *path) {
  DIR *folder = opendir(path);
  struct dirent *entry;
  HOLDS(folder);
  while ((entry = readdir(folder))) {
    char below[4096];
    if (!strcmp(entry->d_name, ".") || !strcmp(entry->d_name, "..")) continue;
    snprintf(below, sizeof below, "%s/%s", path, entry->d_name);
    if (!unlink(below)) continue;
    empty_directory(below);
    rmdir(below);
  }
  closedir(folder);
}

int LLVMFuzzerTestOneInput(const uint8_t *content, size_t nbytes);

int LLVMFuzzerTestOneInput(const uint8_t *content, size_t nbytes) {
  mrpc_progress progress = {MRPC_IDLE, 0, MRPC_STARTING};
  mrpc_session session = {.lifeline = -1, .progress = &progress, .directory = directory};
  if (!nbytes) return 0;
  prepare();
  size_t requests = put_stream(content, nbytes);
  session.in = in;
  session.out = out;
  int status = mrpc_serve(&session);
  HOLDS(status == 0 || status == 1);
  check_answers(requests);
  clear();
  empty_directory(directory);
  return 0;
}
