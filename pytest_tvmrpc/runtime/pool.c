/* The threads of parallel loops, in machine code: what pytest_tvmrpc/runtime/parallel.py asks of it.
 *
 * Neither libc nor data of its own: system calls are made here. A worker is a thread that sits in
 * `serve`; a loop is one call of `run`. Both spin for a moment before they sleep on a futex.
 */
#include <stdint.h>

typedef int (*Task)(int number, void *env, void *closure);

enum { IDLE, ASLEEP, BEGIN, LEAVE };

#define TASKS 0x0fffffffu   /* how many tasks of a loop have not ended */
#define WATCHED 0x10000000u /* a barrier has to be told when one ends */
#define CALLER_SLEEPS 0x20000000u

/* Results for Python; what a task returned is in the upper half. */
enum { ENDED = 1, RETURNED_CODE = 2, OF_WORKER = 4 };

typedef struct { /* begins as TVM's TVMParallelGroupEnv, which each task gets */
    void *sync_handle;
    int32_t num_task;
    uint32_t spins; /* how often to look before sleeping */
    Task call;
    void *closure;
    uint32_t left;  /* TASKS, WATCHED, CALLER_SLEEPS */
    int32_t failed; /* the number of the first task that returned a code, and 1; or 0 */
} Loop;

typedef struct {
    uint32_t state;
    int32_t task;
    Loop *loop;
} Worker;

static long futex(uint32_t *word, int operation, uint32_t value)
{
#if defined(__x86_64__)
    register long timeout __asm__("r10") = 0;
    long result;
    __asm__ volatile("syscall"
                     : "=a"(result)
                     : "a"(202L), "D"(word), "S"((long)operation), "d"((long)value), "r"(timeout)
                     : "rcx", "r11", "memory");
    return result;
#elif defined(__aarch64__)
    register long x8 __asm__("x8") = 98, x0 __asm__("x0") = (long)word, x1 __asm__("x1") = operation;
    register long x2 __asm__("x2") = value, x3 __asm__("x3") = 0;
    __asm__ volatile("svc 0" : "+r"(x0) : "r"(x8), "r"(x1), "r"(x2), "r"(x3) : "memory");
    return x0;
#endif
}

#define WAIT 128 /* FUTEX_WAIT_PRIVATE */
#define WAKE 129 /* FUTEX_WAKE_PRIVATE */

static inline void relax(void)
{
#if defined(__x86_64__)
    __asm__ volatile("pause");
#else
    __asm__ volatile("isb");
#endif
}

static inline uint32_t load(uint32_t *word) { return __atomic_load_n(word, __ATOMIC_ACQUIRE); }

static uint64_t run_one(Loop *loop, int32_t task)
{
    int code = loop->call(task, loop, loop->closure);
    int32_t none = 0;
    if (code)
        __atomic_compare_exchange_n(&loop->failed, &none, task + 1, 0, __ATOMIC_SEQ_CST,
                                    __ATOMIC_SEQ_CST);
    return (uint32_t)code;
}

/* One task less; the number of those left before, with the flags. */
static inline uint32_t end_one(Loop *loop)
{
    uint32_t before = __atomic_fetch_sub(&loop->left, 1, __ATOMIC_SEQ_CST);
    if ((before & TASKS) == 1 && (before & CALLER_SLEEPS)) /* the loop may be gone: an address only */
        futex(&loop->left, WAKE, 1);
    return before;
}

/* Run the tasks that a worker is told to, until there is something for Python to do.
 *
 * The result is 0 when it was told to leave. Otherwise a task ended and others may wait at a
 * barrier, or it returned a code, and has not ended before Python says so.
 */
uint64_t tvmrpc_serve(Worker *worker)
{
    uint32_t spins = 0;
    for (;;) {
        uint32_t state, left = spins;
        while ((state = load(&worker->state)) < BEGIN) {
            uint32_t idle = IDLE;
            if (left) {
                left--;
                relax();
            } else if (state == ASLEEP ||
                       __atomic_compare_exchange_n(&worker->state, &idle, ASLEEP, 0,
                                                   __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST)) {
                futex(&worker->state, WAIT, ASLEEP);
            }
        }
        if (state == LEAVE)
            return 0;
        Loop *loop = worker->loop;
        int32_t task = worker->task;
        spins = loop->spins;
        __atomic_store_n(&worker->state, IDLE, __ATOMIC_SEQ_CST);
        uint64_t code = run_one(loop, task);
        if (code)
            return code << 32 | RETURNED_CODE | OF_WORKER;
        if (end_one(loop) & WATCHED)
            return OF_WORKER;
    }
}

/* Tell a worker to begin, or to leave. */
static void tell(Worker *worker, uint32_t state)
{
    if (__atomic_exchange_n(&worker->state, state, __ATOMIC_SEQ_CST) == ASLEEP)
        futex(&worker->state, WAKE, 1);
}

void tvmrpc_tell(Worker *worker, uint32_t state)
{
    tell(worker, state);
}

/* A task that returned a code has ended. */
void tvmrpc_end(Loop *loop)
{
    end_one(loop);
}

/* Wait until all tasks have ended. */
static void wait(Loop *loop)
{
    uint32_t left, spins = loop->spins;
    while ((left = load(&loop->left)) & TASKS) {
        if (spins) {
            spins--;
            relax();
        } else if (left & CALLER_SLEEPS) {
            futex(&loop->left, WAIT, left);
        } else {
            __atomic_fetch_or(&loop->left, CALLER_SLEEPS, __ATOMIC_SEQ_CST);
        }
    }
}

void tvmrpc_wait(Loop *loop)
{
    wait(loop);
}

/* From now on Python wants to know when a task ends; how many have not, with the flags. */
uint32_t tvmrpc_watch(Loop *loop)
{
    return __atomic_or_fetch(&loop->left, WATCHED, __ATOMIC_SEQ_CST);
}

/* Begin a loop: task 0 here, the others on workers. Wait for them, unless there is something for
 * Python to do first: task 0 returned a code, or has ended and others may wait at a barrier.
 */
uint64_t tvmrpc_run(Loop *loop, Worker **workers, uint32_t count)
{
    loop->left = count + 1;
    loop->failed = 0;
    for (uint32_t i = 0; i < count; i++) {
        workers[i]->loop = loop;
        workers[i]->task = (int32_t)i + 1;
        tell(workers[i], BEGIN);
    }
    uint64_t code = run_one(loop, 0);
    uint32_t before = end_one(loop);
    if (code)
        return code << 32 | RETURNED_CODE;
    if (before & WATCHED)
        return ENDED;
    wait(loop);
    return 0;
}
