/* The small process of ours that may stay: an init inside a jail, or a monitor outside of it.
 *
 *   jailrun-init COMMAND [ARGUMENT…]   as PID 1: runs the command, hands signals on to it, reaps
 *                                      orphans, and ends as the command ends
 *   jailrun-init --idle FD             as PID 1 without a payload: reaps orphans until FD, the read
 *                                      end of a pipe, sees its last writer gone
 *   jailrun-init --monitor PID STATUS-FILE MASTER LOG COMMAND [ARGUMENT…]
 *                                      as parent of PID: copies the terminal MASTER to LOG (-1: there
 *                                      is none), waits for the end of PID, writes its exit status
 *                                      (128 + n for signal n) to STATUS-FILE, executes the command
 *
 * Freestanding and static: no libc, nothing to load, a few pages of memory.
 */
#include <linux/fcntl.h>
#include <linux/sched.h>
#include <linux/wait.h>
#include <stddef.h>
#include <stdint.h>
#include <asm/unistd.h>

enum { EACCES_ = 13, EINTR_ = 4, ENOENT_ = 2, ENOTDIR_ = 20 };
enum { SIGHUP_ = 1, SIGINT_ = 2, SIGKILL_ = 9, SIGTERM_ = 15, SIGCHLD_ = 17, SIGTTIN_ = 21, SIGTTOU_ = 22 };
enum { SIG_SETMASK_ = 2, TIOCSPGRP_ = 0x5410, TIOCGPTPEER_ = 0x5441, POLLIN_ = 1 };

#if defined(__x86_64__)
static long call6(long number, long a, long b, long c, long d, long e, long f)
{
    register long r10 __asm__("r10") = d;
    register long r8 __asm__("r8") = e;
    register long r9 __asm__("r9") = f;
    long result;
    __asm__ volatile("syscall"
                     : "=a"(result)
                     : "0"(number), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9)
                     : "rcx", "r11", "memory");
    return result;
}
__asm__(".globl _start\n_start:\n\txor %ebp, %ebp\n\tmov %rsp, %rdi\n\tand $-16, %rsp\n\tcall start\n");
#elif defined(__aarch64__)
static long call6(long number, long a, long b, long c, long d, long e, long f)
{
    register long x8 __asm__("x8") = number;
    register long x0 __asm__("x0") = a;
    register long x1 __asm__("x1") = b;
    register long x2 __asm__("x2") = c;
    register long x3 __asm__("x3") = d;
    register long x4 __asm__("x4") = e;
    register long x5 __asm__("x5") = f;
    __asm__ volatile("svc 0" : "+r"(x0) : "r"(x8), "r"(x1), "r"(x2), "r"(x3), "r"(x4), "r"(x5) : "memory");
    return x0;
}
__asm__(".globl _start\n_start:\n\tmov x29, xzr\n\tmov x0, sp\n\tbl start\n");
#else
#error "no system calls for this architecture"
#endif

#define CALL1(n, a) call6(n, (long)(a), 0, 0, 0, 0, 0)
#define CALL2(n, a, b) call6(n, (long)(a), (long)(b), 0, 0, 0, 0)
#define CALL3(n, a, b, c) call6(n, (long)(a), (long)(b), (long)(c), 0, 0, 0)
#define CALL4(n, a, b, c, d) call6(n, (long)(a), (long)(b), (long)(c), (long)(d), 0, 0)

static void quit(int status)
{
    for (;;)
        CALL1(__NR_exit_group, status);
}

static size_t length(const char *text)
{
    size_t count = 0;
    while (text[count])
        count++;
    return count;
}

static int same(const char *a, const char *b)
{
    while (*a && *a == *b)
        a++, b++;
    return *a == *b;
}

static int number(const char *text)
{
    int value = 0, sign = 1;
    if (*text == '-')
        sign = -1, text++;
    for (; *text >= '0' && *text <= '9'; text++)
        value = value * 10 + (*text - '0');
    return sign * value;
}

static char *append(char *end, const char *text)
{
    while (*text)
        *end++ = *text++;
    *end = 0;
    return end;
}

static void say(const char *a, const char *b, const char *c)
{
    CALL3(__NR_write, 2, "jailrun-init: ", 14);
    CALL3(__NR_write, 2, a, length(a));
    CALL3(__NR_write, 2, b, length(b));
    CALL3(__NR_write, 2, c, length(c));
    CALL3(__NR_write, 2, "\n", 1);
}

static void set_mask(uint64_t mask)
{
    CALL4(__NR_rt_sigprocmask, SIG_SETMASK_, &mask, 0, sizeof mask);
}

/* handler: 0 is the default, 1 ignores; another never returns, so that it needs no restorer. */
static void set_action(int signal, void *handler)
{
    uint64_t action[4] = {(uint64_t)(uintptr_t)handler, 0, 0, 0};
#if defined(__x86_64__)
    action[1] = 0x04000000; /* SA_RESTORER: the kernel wants the flag */
#endif
    CALL4(__NR_rt_sigaction, signal, action, 0, 8);
}

static int status_of(int code, int status)
{
    return code == 1 /* CLD_EXITED */ ? status : 128 + status;
}

/* Executes a command as execvpe(3) does; returns what a shell would exit with if it cannot. */
static int execute(char **argv, char **envp)
{
    const char *search = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
    char path[4352];
    int denied = 0, slash = 0;
    long error;
    for (const char *at = argv[0]; *at; at++)
        slash |= *at == '/';
    if (slash) {
        error = CALL3(__NR_execve, argv[0], argv, envp);
        return error == -ENOENT_ || error == -ENOTDIR_ ? 127 : 126;
    }
    for (char **one = envp; *one; one++)
        if ((*one)[0] == 'P' && (*one)[1] == 'A' && (*one)[2] == 'T' && (*one)[3] == 'H' && (*one)[4] == '=')
            search = *one + 5;
    while (*search && length(argv[0]) < 256) {
        char *end = path;
        while (*search && *search != ':' && end < path + 4000)
            *end++ = *search++;
        if (end == path)
            *end++ = '.';
        *end++ = '/';
        append(end, argv[0]);
        error = CALL3(__NR_execve, path, argv, envp);
        denied |= error != -ENOENT_ && error != -ENOTDIR_;
        while (*search && *search != ':')
            search++;
        if (*search)
            search++;
    }
    return denied ? 126 : 127;
}

struct siginfo {
    int signal, error, code, padding, pid, uid, status;
    char rest[128 - 28];
};

/* Reaps whoever has ended; returns 1 with the status once `payload` is among them. */
static int reap(int payload, int *status)
{
    struct siginfo info;
    for (;;) {
        info.pid = 0;
        if (call6(__NR_waitid, P_ALL, 0, (long)&info, WEXITED | WNOHANG, 0, 0) < 0 || !info.pid)
            return 0;
        if (info.pid == payload) {
            *status = status_of(info.code, info.status);
            return 1;
        }
    }
}

static int run_as_init(char **argv, char **envp)
{
    uint64_t all = ~0ULL;
    int status = 0;
    set_mask(all);
    long payload = call6(__NR_clone, SIGCHLD_, 0, 0, 0, 0, 0);
    if (payload < 0) {
        say("cannot make a process for ", argv[0], "");
        return 125;
    }
    if (payload == 0) {
        int own = (int)CALL1(__NR_getpid, 0);
        CALL2(__NR_setpgid, 0, 0);
        CALL3(__NR_ioctl, 0, TIOCSPGRP_, &own); /* the foreground, where there is a terminal */
        set_mask(0);
        status = execute(argv, envp);
        say("cannot execute ", argv[0], status == 127 ? ": not found in the jail" : ": permission denied or not a program");
        return status;
    }
    for (;;) {
        struct siginfo info;
        long signal = CALL4(__NR_rt_sigtimedwait, &all, &info, 0, sizeof all);
        if (signal == SIGCHLD_) {
            if (reap((int)payload, &status))
                return status;
        } else if (signal > 0 && signal != SIGTTIN_ && signal != SIGTTOU_) {
            /* From the terminal the whole foreground group has it already. */
            if (info.code != 0x80 /* SI_KERNEL */)
                CALL2(__NR_kill, payload, signal);
        }
    }
}

static void end_quietly(int signal)
{
    quit(128 + signal);
}

static int run_idle(int fd)
{
    char byte;
    long count;
    set_action(SIGCHLD_, (void *)1); /* ignored: the kernel reaps */
    set_action(SIGTERM_, end_quietly);
    set_action(SIGINT_, end_quietly);
    do
        count = CALL3(__NR_read, fd, &byte, 1);
    while (count > 0 || count == -EINTR_);
    return 0;
}

static void write_all(int fd, const char *data, long count)
{
    while (count > 0) {
        long written = CALL3(__NR_write, fd, data, count);
        if (written <= 0)
            return; /* a full disk: the jail goes on without its log */
        data += written;
        count -= written;
    }
}

struct pollfd {
    int fd;
    short events, revents;
};

/* Copies the terminal until the jail has ended.  Its other end is held open here, so that a payload
 * may close it and open it again; what is left is read once nobody writes any more. */
static void copy_terminal(int pid, int master, int log)
{
    char data[4096];
    long count;
    int ended = 0;
    int pidfd = (int)CALL2(__NR_pidfd_open, pid, 0);
    int peer = (int)CALL3(__NR_ioctl, master, TIOCGPTPEER_, O_RDWR | O_NOCTTY | O_CLOEXEC);
    if (pidfd < 0)
        return;
    while (!ended) {
        struct pollfd waiting[2] = {{master, POLLIN_, 0}, {pidfd, POLLIN_, 0}};
        if (call6(__NR_ppoll, (long)waiting, 2, 0, 0, 0, 0) < 0)
            continue;
        ended = waiting[1].revents != 0;
        if (ended && peer >= 0)
            CALL1(__NR_close, peer); /* from here on an empty terminal is an error, not a wait */
        if (waiting[0].revents || ended)
            do {
                count = CALL3(__NR_read, master, data, sizeof data);
                if (count > 0)
                    write_all(log, data, count);
            } while (ended && (count > 0 || count == -EINTR_));
    }
    CALL1(__NR_close, pidfd);
}

static void write_status(const char *path, int status)
{
    char temporary[4200], text[16], *end = text + sizeof text;
    append(append(temporary, path), ".new");
    *--end = '\n';
    do
        *--end = (char)('0' + status % 10);
    while ((status /= 10) > 0);
    long fd = CALL4(__NR_openat, AT_FDCWD, temporary, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (fd < 0)
        return;
    write_all((int)fd, end, text + sizeof text - end);
    CALL1(__NR_close, fd);
    call6(__NR_renameat2, AT_FDCWD, (long)temporary, AT_FDCWD, (long)path, 0, 0);
}

static int run_monitor(char **argv, char **envp)
{
    struct siginfo info = {0};
    int pid = number(argv[0]), master = number(argv[2]), log = number(argv[3]);
    uint64_t all = ~0ULL;
    set_mask(all); /* it ends when the jail ends */
    if (length(argv[1]) > 4090)
        return 125;
    if (master >= 0)
        copy_terminal(pid, master, log);
    while (call6(__NR_waitid, P_PID, pid, (long)&info, WEXITED, 0, 0) == -EINTR_)
        ;
    write_status(argv[1], info.pid == pid ? status_of(info.code, info.status) : 255);
    set_mask(0);
    if (argv[4])
        execute(argv + 4, envp);
    return 0;
}

void start(long *stack)
{
    long argc = stack[0];
    char **argv = (char **)(stack + 1), **envp = argv + argc + 1;
    if (argc >= 3 && same(argv[1], "--idle"))
        quit(run_idle(number(argv[2])));
    if (argc >= 6 && same(argv[1], "--monitor"))
        quit(run_monitor(argv + 2, envp));
    if (argc < 2) {
        say("it is run by jailrun", "", "");
        quit(125);
    }
    quit(run_as_init(argv + 1, envp));
}
