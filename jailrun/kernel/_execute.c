/* The native executor: the module through which Python runs encoded programs (_interpret.c).
 *
 * A child shares the caller's memory (CLONE_VM), so that a start costs the same from a large process
 * as from a small one.  The buffer belongs to the caller and must stay until the child has executed
 * or ended.
 */
#define Py_LIMITED_API 0x030b0000
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include "_interpret.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <unistd.h>

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
