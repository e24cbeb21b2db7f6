/* An encoded program as C sees it, and the functions that the extension's two files share.
 *
 * jailrun/kernel/encode.py writes what is declared here; it must say the same.
 */
#ifndef JAILRUN_INTERPRET_H
#define JAILRUN_INTERPRET_H

#include <linux/sched.h>
#include <stdint.h>

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

enum { FORMAT = -1, STORE32 = -2, SPLIT = -3, SIGNALS = -4, KEEP = -5, DROP = -6, NETLINK = -7 };
enum { EXACT = 1, NOTE = 2, ANY_ERROR = 4 };
enum { FAILED = 1, NOTED = 2, MOVED = 3 };
enum { KEPT_MAX = 256 };

struct run {
    char *base;
    uint32_t first, last;
    int in_child;
    uint32_t failed_at;
};

/* One system call as the kernel takes it: the result, or minus errno. */
long raw_syscall(long number, const int64_t *arguments);

/* clone3, whose child starts on its own stack, if it got one, and never returns from `start`. */
long raw_clone3(struct clone_args *args, void (*start)(void *), void *argument);

/* Where the results of a program lie. */
int64_t *slots_of(char *base);

/* Runs operations; returns 0 or an errno, with the place in run->failed_at. */
int interpret(struct run *run);

/* The child's whole life: `argument` is its struct run. */
void child_main(void *argument);

#endif
