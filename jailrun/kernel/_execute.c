/* The native executor: runs an encoded program, in the caller or in a new child.
 *
 * It interprets and decides nothing: what is done, and in which order, is in the program that
 * jailrun/kernel/encode.py laid out in memory.  A child shares the caller's memory (CLONE_VM), so
 * that a start costs the same from a large process as from a small one, and it may run while other
 * threads of the caller hold any lock: it makes raw system calls only, uses no libc state (not even
 * errno, which it would share with the thread that cloned it) and allocates nothing.
 *
 * The buffer belongs to the caller and must stay until the child has executed or ended.
 */
#define Py_LIMITED_API 0x030b0000
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <errno.h>
#include <fcntl.h>
#include <linux/sched.h>
#include <signal.h>
#include <stdint.h>
#include <sys/syscall.h>
#include <unistd.h>

#ifndef CLONE_CLEAR_SIGHAND
#define CLONE_CLEAR_SIGHAND 0x100000000ULL
#endif
#ifndef CLONE_INTO_CGROUP
#define CLONE_INTO_CGROUP 0x200000000ULL
#endif

/* --- the encoded form; jailrun/kernel/encode.py writes it ----------------------------------- */

struct header {
    uint64_t length;
    uint32_t operation_count, slot_count;
    uint64_t operations, slots, stacks; /* offsets from the start of the buffer */
    uint64_t stack_bytes;               /* of each of the two stacks */
    int64_t report_slot;
};

struct operation {
    int16_t number;                  /* of the system call, or one of the enumeration below */
    int16_t result;                  /* slot */
    int16_t needs;                   /* slot that must not be empty, or -1 */
    uint8_t slot_mask, pointer_mask; /* which arguments are slots, which offsets in the buffer */
    uint8_t flags, unused;
    int16_t allow[3];
    int64_t args[6];
};

struct report {
    uint32_t kind, operation;
    int32_t value;
    uint32_t unused;
};

struct kept {
    int64_t value;
    int64_t is_slot;
};

enum { FORMAT = -1, STORE32 = -2, SPLIT = -3, SIGNALS = -4, KEEP = -5 };
enum { EXACT = 1, NOTE = 2, ANY_ERROR = 4 };
enum { FAILED = 1, NOTED = 2, MOVED = 3 };
enum { KEPT_MAX = 256 };

struct run {
    char *base;
    uint32_t first, last;
    int in_child;
    uint32_t failed_at;
};

/* --- raw system calls ------------------------------------------------------------------------ */

#if defined(__x86_64__)

static long raw_syscall(long number, const int64_t *a)
{
    register long r10 __asm__("r10") = a[3];
    register long r8 __asm__("r8") = a[4];
    register long r9 __asm__("r9") = a[5];
    long result;
    __asm__ volatile("syscall"
                     : "=a"(result)
                     : "0"(number), "D"(a[0]), "S"(a[1]), "d"(a[2]), "r"(r10), "r"(r8), "r"(r9)
                     : "rcx", "r11", "memory");
    return result;
}

/* The child starts on its own stack, from which nothing may return: it calls start and is gone. */
static long raw_clone3(struct clone_args *args, void (*start)(void *), void *argument)
{
    register void (*r8)(void *) __asm__("r8") = start;
    register void *r9 __asm__("r9") = argument;
    long result;
    __asm__ volatile("syscall\n\t"
                     "test %%rax, %%rax\n\t"
                     "jnz 1f\n\t"
                     "xor %%ebp, %%ebp\n\t"
                     "and $-16, %%rsp\n\t"
                     "mov %%r9, %%rdi\n\t"
                     "call *%%r8\n\t"
                     "ud2\n"
                     "1:"
                     : "=a"(result)
                     : "0"((long)SYS_clone3), "D"(args), "S"(sizeof *args), "r"(r8), "r"(r9)
                     : "rcx", "r11", "memory");
    return result;
}

#elif defined(__aarch64__)

static long raw_syscall(long number, const int64_t *a)
{
    register long x8 __asm__("x8") = number;
    register long x0 __asm__("x0") = a[0];
    register long x1 __asm__("x1") = a[1];
    register long x2 __asm__("x2") = a[2];
    register long x3 __asm__("x3") = a[3];
    register long x4 __asm__("x4") = a[4];
    register long x5 __asm__("x5") = a[5];
    __asm__ volatile("svc 0"
                     : "+r"(x0)
                     : "r"(x8), "r"(x1), "r"(x2), "r"(x3), "r"(x4), "r"(x5)
                     : "memory");
    return x0;
}

static long raw_clone3(struct clone_args *args, void (*start)(void *), void *argument)
{
    register long x8 __asm__("x8") = SYS_clone3;
    register long x0 __asm__("x0") = (long)args;
    register long x1 __asm__("x1") = sizeof *args;
    register void (*x9)(void *) __asm__("x9") = start;
    register void *x10 __asm__("x10") = argument;
    __asm__ volatile("svc 0\n\t"
                     "cbnz x0, 1f\n\t"
                     "mov x29, xzr\n\t"
                     "mov x0, x10\n\t"
                     "blr x9\n\t"
                     "brk 1\n"
                     "1:"
                     : "+r"(x0)
                     : "r"(x8), "r"(x1), "r"(x9), "r"(x10)
                     : "memory", "x30");
    return x0;
}

#else
#error "no raw system calls for this architecture: jailrun uses its ctypes executor here"
#endif

static long call3(long number, int64_t a, int64_t b, int64_t c)
{
    int64_t args[6] = {a, b, c, 0, 0, 0};
    return raw_syscall(number, args);
}

static long call4(long number, int64_t a, int64_t b, int64_t c, int64_t d)
{
    int64_t args[6] = {a, b, c, d, 0, 0};
    return raw_syscall(number, args);
}

/* --- the operations that are not one system call --------------------------------------------- */

static int64_t *slots_of(char *base)
{
    return (int64_t *)(base + ((struct header *)base)->slots);
}

static void send_report(char *base, uint32_t kind, uint32_t operation, int32_t value)
{
    struct report report = {kind, operation, value, 0};
    int64_t fd = slots_of(base)[((struct header *)base)->report_slot];
    call3(SYS_write, fd, (int64_t)&report, sizeof report);
}

/* Copies template to target, with a number in place of the first percent sign. */
static void format_number(char *target, const char *template, int64_t number)
{
    int done = 0;
    for (; *template; template++) {
        if (*template != '%' || done++) {
            *target++ = *template;
            continue;
        }
        char digits[20];
        int count = 0;
        do
            digits[count++] = (char)('0' + number % 10);
        while ((number /= 10) > 0);
        while (count)
            *target++ = digits[--count];
    }
    *target = 0;
}

/* Closes every descriptor that is not in the table: those of the caller, and of other starts in it. */
static long keep_only(const struct kept *table, int64_t count, const int64_t *slots)
{
    int64_t sorted[KEPT_MAX];
    int used = 0;
    if (count > KEPT_MAX)
        return -E2BIG;
    for (int64_t i = 0; i < count; i++) {
        int64_t fd = table[i].is_slot ? slots[table[i].value] : table[i].value;
        int at = used;
        if (fd < 0)
            continue;
        for (; at > 0 && sorted[at - 1] > fd; at--)
            sorted[at] = sorted[at - 1];
        sorted[at] = fd;
        used++;
    }
    int64_t next = 0;
    for (int i = 0; i < used; i++) {
        if (sorted[i] > next) {
            long result = call3(SYS_close_range, next, sorted[i] - 1, 0);
            if (result < 0)
                return result;
        }
        if (sorted[i] >= next)
            next = sorted[i] + 1;
    }
    return call3(SYS_close_range, next, 0xffffffffU, 0);
}

/* The kernel's struct sigaction, all zero: the default, no flags, an empty mask. */
static long reset_signals(void)
{
    uint64_t action[4] = {0, 0, 0, 0}, mask = 0;
    for (int number = 1; number <= 64; number++)
        if (number != SIGKILL && number != SIGSTOP)
            call4(SYS_rt_sigaction, number, (int64_t)action, 0, sizeof mask);
    return call4(SYS_rt_sigprocmask, SIG_SETMASK, (int64_t)&mask, 0, sizeof mask);
}

static void child_main(void *argument);

/* Goes on in a new child of the caller.  With a shared memory the next process needs a stack of
 * its own, since this one still runs; its run structure lies at the far end of that stack. */
static long split(struct run *run, uint32_t at, uint64_t flags)
{
    struct header *header = (struct header *)run->base;
    char *stack = run->base + header->stacks + header->stack_bytes;
    struct run *next = (struct run *)stack;
    struct clone_args args = {.flags = flags | CLONE_PARENT};
    *next = *run;
    next->first = at + 1;
    if (flags & CLONE_VM) {
        args.stack = (uint64_t)(stack + sizeof *next);
        args.stack_size = header->stack_bytes - sizeof *next;
    }
    long pid = raw_clone3(&args, child_main, next);
    if (pid < 0)
        return pid;
    send_report(run->base, MOVED, at, (int32_t)pid);
    call3(SYS_exit_group, 0, 0, 0);
    __builtin_unreachable();
}

static long perform(struct run *run, uint32_t at, const struct operation *op, const int64_t *args)
{
    int64_t *slots = slots_of(run->base);
    long result;
    switch (op->number) {
    case FORMAT:
        format_number((char *)args[0], (const char *)args[1], args[2]);
        return 0;
    case STORE32:
        *(int32_t *)args[0] = (int32_t)args[1];
        return 0;
    case SPLIT:
        return split(run, at, (uint64_t)args[0]);
    case SIGNALS:
        return reset_signals();
    case KEEP:
        return keep_only((const struct kept *)args[0], args[1], slots);
    default:
        do
            result = raw_syscall(op->number, args);
        while (result == -EINTR);
        if (result >= 0 && (op->flags & EXACT) && result != args[2])
            return -EPIPE;
        return result;
    }
}

/* Runs the operations of `run`; returns 0 or an errno, with the place in run->failed_at. */
static int interpret(struct run *run)
{
    struct header *header = (struct header *)run->base;
    struct operation *operations = (struct operation *)(run->base + header->operations);
    int64_t *slots = slots_of(run->base);

    for (uint32_t at = run->first; at < run->last; at++) {
        const struct operation *op = &operations[at];
        int64_t args[6];
        int empty = op->needs >= 0 && slots[op->needs] < 0;
        for (int i = 0; i < 6; i++) {
            args[i] = op->args[i];
            if (op->slot_mask & (1 << i)) {
                args[i] = slots[op->args[i]];
                empty |= args[i] < 0;
            } else if (op->pointer_mask & (1 << i)) {
                args[i] += (int64_t)run->base;
            }
        }
        slots[op->result] = -1;
        if (empty)
            continue;
        long result = perform(run, at, op, args);
        if (result >= 0) {
            slots[op->result] = result;
            continue;
        }
        int allowed = op->flags & ANY_ERROR;
        for (int i = 0; i < 3; i++)
            allowed |= op->allow[i] == -result;
        if (!allowed) {
            run->failed_at = at;
            return (int)-result;
        }
        if ((op->flags & NOTE) && run->in_child)
            send_report(run->base, NOTED, at, (int32_t)-result);
    }
    return 0;
}

static void child_main(void *argument)
{
    struct run *run = argument;
    int error = interpret(run);
    if (error)
        send_report(run->base, FAILED, run->failed_at, error);
    call3(SYS_exit_group, error ? 125 : 0, 0, 0);
}

/* --- the module ------------------------------------------------------------------------------- */

/* Takes the buffer and checks that what its header promises lies in it. */
static char *take(PyObject *object, Py_buffer *view, unsigned first, unsigned last)
{
    if (PyObject_GetBuffer(object, view, PyBUF_WRITABLE) < 0)
        return NULL;
    struct header *header = view->buf;
    uint64_t length = (uint64_t)view->len;
    if (length < sizeof *header || header->length != length || first > last ||
        last > header->operation_count ||
        header->operations + (uint64_t)header->operation_count * sizeof(struct operation) > length ||
        header->slots + (uint64_t)header->slot_count * sizeof(int64_t) > length ||
        header->stacks + 2 * header->stack_bytes > length ||
        header->report_slot >= header->slot_count) {
        PyBuffer_Release(view);
        PyErr_SetString(PyExc_ValueError, "not an encoded program");
        return NULL;
    }
    return view->buf;
}

static PyObject *execute_address(PyObject *module, PyObject *object)
{
    Py_buffer view;
    (void)module;
    if (PyObject_GetBuffer(object, &view, PyBUF_WRITABLE) < 0)
        return NULL;
    uintptr_t address = (uintptr_t)view.buf;
    PyBuffer_Release(&view);
    return PyLong_FromUnsignedLongLong(address);
}

static PyObject *execute_syscall(PyObject *module, PyObject *arguments)
{
    long long number, a = 0, b = 0, c = 0, d = 0, e = 0, f = 0;
    (void)module;
    if (!PyArg_ParseTuple(arguments, "L|LLLLLL", &number, &a, &b, &c, &d, &e, &f))
        return NULL;
    int64_t args[6] = {a, b, c, d, e, f};
    long result;
    Py_BEGIN_ALLOW_THREADS
    result = raw_syscall((long)number, args);
    Py_END_ALLOW_THREADS
    return PyLong_FromLong(result);
}

static PyObject *execute_run(PyObject *module, PyObject *arguments)
{
    PyObject *object;
    Py_buffer view;
    struct run run = {0};
    int error;
    (void)module;
    if (!PyArg_ParseTuple(arguments, "OII", &object, &run.first, &run.last))
        return NULL;
    if (!(run.base = take(object, &view, run.first, run.last)))
        return NULL;
    Py_BEGIN_ALLOW_THREADS
    error = interpret(&run);
    Py_END_ALLOW_THREADS
    PyBuffer_Release(&view);
    return Py_BuildValue("iI", error, run.failed_at);
}

/* Moves a descriptor out of the way of the child's standard streams. */
static int above_standard(int fd)
{
    if (fd > 9)
        return fd;
    int moved = fcntl(fd, F_DUPFD_CLOEXEC, 10);
    close(fd);
    return moved;
}

/* Two pipes, close-on-exec: the child reports on the first and waits on the second. */
static int make_pipes(int *report, int *go)
{
    if (pipe2(report, O_CLOEXEC) < 0)
        return -1;
    if (pipe2(go, O_CLOEXEC) < 0) {
        close(report[0]);
        close(report[1]);
        return -1;
    }
    for (int i = 0; i < 2; i++) {
        report[i] = above_standard(report[i]);
        go[i] = above_standard(go[i]);
    }
    return 0;
}

/* Makes the child.  The interpreter's lock is held from the pipes to the closing of the child's
 * ends, so that no other thread can fork a process that keeps them open: their end of file is how
 * the caller sees the exec. */
static PyObject *execute_spawn(PyObject *module, PyObject *arguments)
{
    PyObject *object;
    Py_buffer view;
    unsigned first, last;
    unsigned long long flags;
    int cgroup_fd, go_slot, report[2], go[2], pidfd = -1;
    (void)module;
    if (!PyArg_ParseTuple(arguments, "OIIKii", &object, &first, &last, &flags, &cgroup_fd, &go_slot))
        return NULL;
    char *base = take(object, &view, first, last);
    if (!base)
        return NULL;
    struct header *header = (struct header *)base;
    if (go_slot < 0 || (uint32_t)go_slot >= header->slot_count || make_pipes(report, go) < 0) {
        PyBuffer_Release(&view);
        return PyErr_SetFromErrno(PyExc_OSError);
    }
    slots_of(base)[header->report_slot] = report[1];
    slots_of(base)[go_slot] = go[0];

    struct run *run = (struct run *)(base + header->stacks);
    *run = (struct run){.base = base, .first = first, .last = last, .in_child = 1};
    struct clone_args args = {
        .flags = flags | CLONE_PIDFD | CLONE_CLEAR_SIGHAND,
        .pidfd = (uint64_t)&pidfd,
        .exit_signal = SIGCHLD,
    };
    if (flags & CLONE_VM) {
        args.stack = (uint64_t)(run + 1);
        args.stack_size = header->stack_bytes - sizeof *run;
    }
    if (cgroup_fd >= 0) {
        args.flags |= CLONE_INTO_CGROUP;
        args.cgroup = (uint64_t)cgroup_fd;
    }
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    long pid = raw_clone3(&args, child_main, run);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    close(report[1]);
    close(go[0]);
    PyBuffer_Release(&view);
    if (pid < 0) {
        close(report[0]);
        close(go[1]);
        errno = (int)-pid;
        return PyErr_SetFromErrno(PyExc_OSError);
    }
    return Py_BuildValue("liii", pid, pidfd, report[0], go[1]);
}

static PyMethodDef methods[] = {
    {"address", execute_address, METH_O, "address(buffer): where the buffer lies in memory."},
    {"syscall", execute_syscall, METH_VARARGS,
     "syscall(number, *args): one raw system call; the result, or minus errno."},
    {"run", execute_run, METH_VARARGS,
     "run(buffer, first, last): run operations in the caller; (errno, operation)."},
    {"spawn", execute_spawn, METH_VARARGS,
     "spawn(buffer, first, last, clone_flags, cgroup_fd, go_slot): run operations in a new child;\n"
     "(pid, pidfd, descriptor of its reports, descriptor of the word to go on)."},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT, "_execute", "The native executor; see jailrun.kernel.execute.", 0,
    methods, NULL, NULL, NULL, NULL,
};

PyMODINIT_FUNC PyInit__execute(void)
{
    PyObject *module = PyModule_Create(&definition);
    if (module && PyModule_AddIntConstant(module, "SHARES_MEMORY", 1) < 0)
        Py_CLEAR(module);
    return module;
}
