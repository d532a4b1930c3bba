/* The parallel loops of kernels: tasks on threads that are kept for the next loop. A worker and the
 * caller of a loop spin for a moment before they sleep. */
#include <errno.h>
#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "objects.h"

#if !defined(SYS_futex) && defined(SYS_futex_time64)
#define SYS_futex SYS_futex_time64
#endif

enum { MAX_TASKS = 1024, SPINS = 1000, STACK = 2 << 20 };

struct loop;
typedef int (*task_call)(int number, struct loop *env, void *closure);

typedef struct loop { /* begins as TVM's TVMParallelGroupEnv, which each task gets */
  void *sync_handle;
  int32_t num_task;
  uint32_t spins; /* how often to look before sleeping */
  task_call call;
  void *closure;
  uint32_t left;                             /* tasks that are not over, and CALLER_SLEEPS */
  uint32_t failed;                           /* whether a task has */
  int code;                                  /* what the first of them returned */
  TVMFFIObject *error;                       /* and why */
  uint32_t ended, watched, arrived, changes; /* for those that wait at a barrier */
} loop;

enum { CALLER_SLEEPS = 1 << 28 };
enum { IDLE, ASLEEP, BEGIN };

typedef struct worker {
  uint32_t state;
  int32_t task;
  loop *loop;
  struct worker *next;
} worker;

static worker *idle;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static __thread int is_inside; /* of a task */

/* ------------------------------------------------------------------------------------ waiting */

static void sleep_at(uint32_t *word, uint32_t value) {
  syscall(SYS_futex, word, FUTEX_WAIT_PRIVATE, value, NULL, NULL, 0);
}

static void wake_at(uint32_t *word, int count) {
  syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, count, NULL, NULL, 0);
}

static void relax(void) {
#if defined(__x86_64__) || defined(__i386__)
  __asm__ volatile("pause");
#elif defined(__aarch64__)
  __asm__ volatile("isb");
#endif
}

static uint32_t load(uint32_t *word) { return __atomic_load_n(word, __ATOMIC_SEQ_CST); }

/* --------------------------------------------------------------------------------- one task */

/* An error of a task that returned 0 nevertheless is not for a later call on its thread. */
static void note(loop *running, int code) {
  TVMFFIObject *error = mrpc_move_raised();
  if (code && !__atomic_exchange_n(&running->failed, 1, __ATOMIC_SEQ_CST)) {
    running->code = code;
    running->error = error;
  } else {
    mrpc_release(error);
  }
}

static void run_one(loop *running, int32_t task) {
  int code = running->call(task, running, running->closure);
  if (code || mrpc_peek_raised())
    note(running, code);
  __atomic_fetch_add(&running->ended, 1, __ATOMIC_SEQ_CST);
  if (load(&running->watched)) {
    __atomic_fetch_add(&running->changes, 1, __ATOMIC_SEQ_CST);
    wake_at(&running->changes, MAX_TASKS);
  }
  /* With the last one the loop may be gone at once: after this it is an address only. */
  if (__atomic_fetch_sub(&running->left, 1, __ATOMIC_SEQ_CST) == (1 | CALLER_SLEEPS))
    wake_at(&running->left, 1);
}

static void *serve(void *self) {
  worker *own = self;
  uint32_t spins = 0, left, state, expected;
  is_inside = 1;
  for (;;) {
    left = spins;
    while ((state = load(&own->state)) != BEGIN) {
      expected = IDLE;
      if (left) {
        left--;
        relax();
      } else if (state == ASLEEP ||
                 __atomic_compare_exchange_n(&own->state, &expected, ASLEEP, 0, __ATOMIC_SEQ_CST,
                                             __ATOMIC_SEQ_CST)) {
        sleep_at(&own->state, ASLEEP);
      }
    }
    spins = own->loop->spins;
    __atomic_store_n(&own->state, IDLE, __ATOMIC_SEQ_CST);
    run_one(own->loop, own->task);
  }
  return NULL;
}

/* --------------------------------------------------------------------------------- the threads */

/* Threads do not survive a fork: a child starts its own. */
static void before_fork(void) { pthread_mutex_lock(&lock); }
static void after_fork(void) { pthread_mutex_unlock(&lock); }
static void after_fork_in_child(void) {
  idle = NULL;
  pthread_mutex_unlock(&lock);
}

static void watch_forks(void) { pthread_atfork(before_fork, after_fork, after_fork_in_child); }

static worker *start_worker(void) {
  static pthread_once_t once = PTHREAD_ONCE_INIT;
  worker *made = calloc(1, sizeof *made);
  pthread_attr_t attributes;
  pthread_t thread;
  sigset_t all, before;
  size_t stack = 0;
  int failure;
  if (!made) {
    mrpc_out_of_memory();
    return NULL;
  }
  pthread_once(&once, watch_forks);
  pthread_attr_init(&attributes);
  pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
  pthread_attr_getstacksize(&attributes, &stack);
  if (stack < STACK)
    pthread_attr_setstacksize(&attributes, STACK);
  sigfillset(&all); /* signals are for the thread of the session */
  pthread_sigmask(SIG_SETMASK, &all, &before);
  failure = pthread_create(&thread, &attributes, serve, made);
  pthread_sigmask(SIG_SETMASK, &before, NULL);
  pthread_attr_destroy(&attributes);
  if (!failure)
    return made;
  free(made);
  mrpc_raise("RuntimeError", "a thread for a parallel loop cannot be started: %s",
             strerror(failure));
  return NULL;
}

static void give_back(worker *first) {
  worker *next;
  pthread_mutex_lock(&lock);
  for (; first; first = next) {
    next = first->next;
    first->next = idle;
    idle = first;
  }
  pthread_mutex_unlock(&lock);
}

/* So many workers, of those that wait or new ones; NULL with an error. */
static worker *take_workers(int32_t count) {
  worker *taken = NULL, *one;
  for (; count; count--) {
    pthread_mutex_lock(&lock);
    one = idle;
    if (one)
      idle = one->next;
    pthread_mutex_unlock(&lock);
    if (!one)
      one = start_worker();
    if (!one) {
      give_back(taken);
      return NULL;
    }
    one->next = taken;
    taken = one;
  }
  return taken;
}

static int read_cores(void) {
  cpu_set_t allowed;
  long online;
  if (!sched_getaffinity(0, sizeof allowed, &allowed))
    return CPU_COUNT(&allowed);
  online = sysconf(_SC_NPROCESSORS_ONLN);
  return online > 0 ? (int)online : 1;
}

static int read_threads(const char *variable) {
  const char *value = getenv(variable);
  char *end = NULL;
  long number = value && *value >= '0' && *value <= '9' ? strtol(value, &end, 10) : 0;
  return !end || *end || number <= 0 ? 0 : number > MAX_TASKS ? MAX_TASKS : (int)number;
}

static int num_cores, num_threads; /* this process may use; a loop that does not say has tasks */

static void read_numbers(void) {
  num_cores = read_cores();
  num_threads = read_threads("TVM_NUM_THREADS");
  if (!num_threads)
    num_threads = read_threads("OMP_NUM_THREADS");
  if (!num_threads)
    num_threads = num_cores;
}

/* ----------------------------------------------------------------------------------- the loops */

static void tell(loop *running, worker *workers) {
  int32_t task = 1;
  worker *one;
  for (one = workers; one; one = one->next) {
    one->loop = running;
    one->task = task++;
    if (__atomic_exchange_n(&one->state, BEGIN, __ATOMIC_SEQ_CST) == ASLEEP)
      wake_at(&one->state, 1);
  }
}

static void wait_for(loop *running) {
  uint32_t left, spins = running->spins;
  while (((left = load(&running->left)) & ~(uint32_t)CALLER_SLEEPS) != 0) {
    if (spins) {
      spins--;
      relax();
    } else if (left & CALLER_SLEEPS) {
      sleep_at(&running->left, left);
    } else {
      __atomic_fetch_or(&running->left, CALLER_SLEEPS, __ATOMIC_SEQ_CST);
    }
  }
}

/* Runs a function once for each task, all at the same time; also within a task of another loop. */
MRPC_EXPORT int TVMBackendParallelLaunch(task_call call, void *closure, int num_task) {
  int was_inside = is_inside, count = num_task;
  TVMFFIObject *pending;
  worker *workers = NULL;
  loop running;
  static pthread_once_t once = PTHREAD_ONCE_INIT;
  pthread_once(&once, read_numbers);
  if (!count)
    count = was_inside ? 1 : num_threads;
  if (count < 1 || count > MAX_TASKS)
    return mrpc_raise("ValueError", "a parallel loop of %d tasks; expected 1 to %d", count,
                      MAX_TASKS);
  if (count > 1 && !(workers = take_workers(count - 1)))
    return -1;
  memset(&running, 0, sizeof running);
  running.sync_handle = &running;
  running.num_task = count;
  running.spins = !was_inside && count <= num_cores ? SPINS : 0;
  running.call = call;
  running.closure = closure;
  running.left = (uint32_t)count;
  pending = mrpc_move_raised(); /* of the caller, who may clean up before it returns */
  tell(&running, workers);
  is_inside = 1;
  run_one(&running, 0);
  wait_for(&running);
  is_inside = was_inside;
  give_back(workers);
  if (!running.failed)
    mrpc_set_raised(pending);
  else
    mrpc_release(pending);
  if (running.error)
    mrpc_set_raised(running.error);
  return running.code;
}

/* Waits until all tasks of a loop are here. */
MRPC_EXPORT int TVMBackendParallelBarrier(int task, loop *env) {
  uint32_t changes, spins, count, round;
  (void)task;
  if (!env || env->sync_handle != env)
    return mrpc_raise("ValueError", "a barrier outside of a parallel loop");
  count = (uint32_t)env->num_task;
  spins = env->spins;
  __atomic_store_n(&env->watched, 1, __ATOMIC_SEQ_CST);
  /* `arrived` goes on counting from round to round. */
  round = __atomic_fetch_add(&env->arrived, 1, __ATOMIC_SEQ_CST) / count;
  if (load(&env->arrived) / count != round) {
    __atomic_fetch_add(&env->changes, 1, __ATOMIC_SEQ_CST);
    wake_at(&env->changes, MAX_TASKS);
    return 0;
  }
  for (;;) {
    changes = load(&env->changes);
    if (load(&env->arrived) / count != round)
      return 0;
    if (load(&env->ended))
      return mrpc_raise("RuntimeError", "a task ended, and others wait for it at a barrier");
    if (spins) {
      spins--;
      relax();
    } else {
      sleep_at(&env->changes, changes);
    }
  }
}
