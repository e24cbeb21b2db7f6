/* The interpreter of encoded programs, in the caller or in a new child of it.
 *
 * It interprets and decides nothing: what is done, and in which order, is in the program.  A child
 * may share the caller's memory, and run while other threads of the caller hold any lock: this file
 * makes raw system calls only, uses no libc state (not even errno, which the child would share with
 * the thread that cloned it) and allocates nothing.
 */
#include "_interpret.h"

#include <errno.h>
#include <linux/prctl.h>
#include <linux/rtnetlink.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/syscall.h>

/* --- raw system calls ------------------------------------------------------------------------ */

#if defined(__x86_64__)

long raw_syscall(long number, const int64_t *a)
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
long raw_clone3(struct clone_args *args, void (*start)(void *), void *argument)
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

long raw_syscall(long number, const int64_t *a)
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

long raw_clone3(struct clone_args *args, void (*start)(void *), void *argument)
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

int64_t *slots_of(char *base)
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

/* Takes capabilities out of the bounding set: bit n of the mask is that of number n. */
static long drop_capabilities(uint64_t mask)
{
    long result = 0;
    for (int number = 0; mask && result >= 0; number++, mask >>= 1)
        if (mask & 1)
            result = call3(SYS_prctl, PR_CAPBSET_DROP, number, 0);
    return result;
}

/* Sends a message and reads what the kernel answers up to its acknowledgement: the index of the last
 * link that it told of.  The kernel has answered before the send returns: there is no waiting. */
static long talk(int64_t fd, struct nlmsghdr *message, uint32_t sequence)
{
    struct {
        struct nlmsghdr header;
        union {
            int error;             /* struct nlmsgerr */
            struct ifinfomsg link; /* the longer one */
        };
    } answer;
    int64_t send[6] = {fd, (int64_t)message, message->nlmsg_len, 0, 0, 0};
    int64_t receive[6] = {fd, (int64_t)&answer, sizeof answer, MSG_DONTWAIT, 0, 0};
    long result, index = 0;

    message->nlmsg_seq = sequence;
    do
        result = raw_syscall(SYS_sendto, send);
    while (result == -EINTR);
    while (result >= 0) {
        result = raw_syscall(SYS_recvfrom, receive);
        if (result < (long)sizeof answer || answer.header.nlmsg_seq != sequence)
            continue;
        if (answer.header.nlmsg_type == NLMSG_ERROR)
            return answer.error ? answer.error : index;
        if (answer.header.nlmsg_type == RTM_NEWLINK)
            index = answer.link.ifi_index;
    }
    return result;
}

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
    case DROP:
        return drop_capabilities((uint64_t)args[0]);
    case NETLINK:
        return talk(args[0], (struct nlmsghdr *)args[1], at + 1);
    default:
        do
            result = raw_syscall(op->number, args);
        while (result == -EINTR);
        if (result >= 0 && (op->flags & EXACT) && result != args[2])
            return -EPIPE;
        return result;
    }
}

int interpret(struct run *run)
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

void child_main(void *argument)
{
    struct run *run = argument;
    int error = interpret(run);
    if (error)
        send_report(run->base, FAILED, run->failed_at, error);
    call3(SYS_exit_group, error ? 125 : 0, 0, 0);
}
