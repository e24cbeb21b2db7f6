/* What a process in a jail may try: one row an attempt, in ATTEMPTS and ATTEMPTS_X86.
 *
 * An attempt is an expression that is negative, with errno, where it failed.  It runs in a child of
 * its own and must be harmless where it succeeds: see probe.c, which includes this file once.
 */
#ifndef ATTEMPTS_H
#define ATTEMPTS_H

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/perf_event.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/personality.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/syscall.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <unistd.h>

#ifndef SYS_clone3
#define SYS_clone3 435
#endif
#ifndef SYS_io_uring_setup
#define SYS_io_uring_setup 425
#endif

static long ends(long result, int fd_result)
{
	if (fd_result && result >= 0)
		close(result);
	return result < 0 ? -1 : 0;
}

/* Returns a path below which this process can make a file. */
static const char *scratch(const char *name)
{
	static const char *const folders[] = {"/tmp", "/dev/shm", "/run", "/", "."};
	static char path[256];

	for (size_t i = 0; i < sizeof folders / sizeof *folders; i++) {
		snprintf(path, sizeof path, "%s/.probe-%d-%s", folders[i], getpid(), name);
		int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
		if (fd >= 0) {
			close(fd);
			unlink(path);
			return path;
		}
	}
	return path;
}

static long try_node(mode_t kind, unsigned major, unsigned minor, int open_it)
{
	const char *path = scratch("node");

	if (mknod(path, kind | 0600, makedev(major, minor)))
		return -1;
	int fd = open_it ? open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC) : 0;
	int error = errno;
	if (open_it && fd >= 0)
		close(fd);
	unlink(path);
	errno = error;
	return fd < 0 ? -1 : 0;
}

static long try_mount(const char *type)
{
	const char *path = scratch("mount");

	if (mkdir(path, 0700))
		return -1;
	long result = mount("none", path, type, 0, NULL);
	int error = errno;
	if (!result)
		umount2(path, MNT_DETACH);
	rmdir(path);
	errno = error;
	return result;
}

static long try_open(const char *path, int flags)
{
	return ends(open(path, flags | O_CLOEXEC | O_NOCTTY | O_NONBLOCK), 1);
}

static long try_socket(int family, int kind, int protocol)
{
	return ends(socket(family, kind | SOCK_CLOEXEC, protocol), 1);
}

/* Makes a read-only mount writable, in a mount namespace of this child's own. */
static long try_remount(const char *mounted, const char *file)
{
	if (unshare(CLONE_NEWNS) || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL)
	    || mount(NULL, mounted, NULL, MS_REMOUNT | MS_BIND, NULL))
		return -1;
	return try_open(file, O_WRONLY);
}

static long try_setns(const char *path)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	return fd < 0 ? -1 : setns(fd, 0);
}

static long try_hostname(void)
{
	struct utsname name;

	uname(&name);
	return sethostname(name.nodename, strlen(name.nodename));
}

static long try_domainname(void)
{
	struct utsname name;

	uname(&name);
	return setdomainname(name.domainname, strlen(name.domainname));
}

static long try_perf(void)
{
	struct perf_event_attr attributes = {.type = PERF_TYPE_SOFTWARE, .size = sizeof attributes,
		.config = PERF_COUNT_SW_CPU_CLOCK};

	return ends(syscall(SYS_perf_event_open, &attributes, -1, 0, -1, 0), 1);
}

static long try_clone3(uint64_t flags)
{
	uint64_t arguments[11] = {flags, 0, 0, 0, SIGCHLD};
	long pid = syscall(SYS_clone3, arguments, 88);

	if (pid == 0)
		_exit(0);
	if (pid > 0)
		waitpid(pid, NULL, 0);
	return ends(pid, 0);
}

static long try_clone(unsigned long flags)
{
	long pid = syscall(SYS_clone, flags | SIGCHLD, 0, 0, 0, 0);

	if (pid == 0)
		_exit(0);
	if (pid > 0)
		waitpid(pid, NULL, 0);
	return ends(pid, 0);
}

static long try_raise_limit(void)
{
	struct rlimit limit;

	getrlimit(RLIMIT_NOFILE, &limit);
	limit.rlim_max++;
	return setrlimit(RLIMIT_NOFILE, &limit);
}

static long try_fifo(void)
{
	struct sched_param parameter = {.sched_priority = 1};
	return sched_setscheduler(0, SCHED_FIFO, &parameter);
}

static long try_handle(void)
{
	struct {
		struct file_handle header;
		unsigned char space[8];
	} handle = {.header = {.handle_bytes = 0}};
	return ends(open_by_handle_at(AT_FDCWD, &handle.header, O_RDONLY), 1);
}

static long try_chroot_escape(void)
{
	/* The classic: out of a chroot by one that does not change the working directory. */
	const char *path = scratch("chroot");
	struct stat before, after;

	stat("/", &before);
	if (mkdir(path, 0700))
		return -1;
	long result = chroot(path);
	int error = errno;
	if (!result) {
		for (int i = 0; i < 64; i++)
			if (chdir(".."))
				break;
		result = chroot(".");
		stat("/", &after);
		error = before.st_ino == after.st_ino && before.st_dev == after.st_dev ? EXDEV : 0;
		result = error ? -1 : 0;
	}
	rmdir(path);
	errno = error;
	return result;
}

#define ATTEMPTS(X) \
	X(mknod_null, try_node(S_IFCHR, 1, 3, 0)) \
	X(mknod_fifo, try_node(S_IFIFO, 0, 0, 0)) \
	X(mknod_open_null, try_node(S_IFCHR, 1, 3, 1)) \
	X(mknod_open_mem, try_node(S_IFCHR, 1, 1, 1)) \
	X(mknod_open_kmsg, try_node(S_IFCHR, 1, 11, 1)) \
	X(mknod_open_sda, try_node(S_IFBLK, 8, 0, 1)) \
	X(mknod_open_loop, try_node(S_IFBLK, 7, 0, 1)) \
	X(open_dev_mem, try_open("/dev/mem", O_RDONLY)) \
	X(open_dev_kmsg, try_open("/dev/kmsg", O_RDONLY)) \
	X(open_dev_null, try_open("/dev/null", O_RDWR)) \
	X(open_kcore, try_open("/proc/kcore", O_RDONLY)) \
	X(open_keys, try_open("/proc/keys", O_RDONLY)) \
	X(open_sysrq, try_open("/proc/sysrq-trigger", O_WRONLY)) \
	X(open_core_pattern, try_open("/proc/sys/kernel/core_pattern", O_WRONLY)) \
	X(open_proc_hostname, try_open("/proc/sys/kernel/hostname", O_WRONLY)) \
	X(open_overcommit, try_open("/proc/sys/vm/overcommit_memory", O_WRONLY)) \
	X(open_sys_hugepage, try_open("/sys/kernel/mm/transparent_hugepage/enabled", O_WRONLY)) \
	X(open_sys_uevent, try_open("/sys/kernel/uevent_helper", O_WRONLY)) \
	X(open_irq, try_open("/proc/irq/default_smp_affinity", O_WRONLY)) \
	X(open_init_memory, try_open("/proc/1/mem", O_RDWR)) \
	X(open_init_root, try_open("/proc/1/root/.", O_RDONLY | O_DIRECTORY)) \
	X(mount_tmpfs, try_mount("tmpfs")) \
	X(mount_proc, try_mount("proc")) \
	X(mount_sysfs, try_mount("sysfs")) \
	X(mount_cgroup2, try_mount("cgroup2")) \
	X(remount_proc_sys, try_remount("/proc/sys", "/proc/sys/kernel/hostname")) \
	X(umount_proc, umount2("/proc", MNT_EXPIRE)) \
	X(pivot_root, syscall(SYS_pivot_root, "/nonexistent", "/nonexistent")) \
	X(chroot, chroot("/")) \
	X(chroot_escape, try_chroot_escape()) \
	X(unshare_user, unshare(CLONE_NEWUSER)) \
	X(unshare_mount, unshare(CLONE_NEWNS)) \
	X(unshare_net, unshare(CLONE_NEWNET)) \
	X(unshare_fs, unshare(CLONE_FS)) \
	X(clone_user, try_clone(CLONE_NEWUSER)) \
	X(clone3_user, try_clone3(CLONE_NEWUSER)) \
	X(setns_own_net, try_setns("/proc/self/ns/net")) \
	X(setns_own_mnt, try_setns("/proc/self/ns/mnt")) \
	X(sethostname, try_hostname()) \
	X(setdomainname, try_domainname()) \
	X(socket_inet, try_socket(AF_INET, SOCK_STREAM, 0)) \
	X(socket_raw, try_socket(AF_INET, SOCK_RAW, 1)) \
	X(socket_packet, try_socket(AF_PACKET, SOCK_RAW, 0)) \
	X(socket_vsock, try_socket(40, SOCK_STREAM, 0)) \
	X(socket_alg, try_socket(38, SOCK_SEQPACKET, 0)) \
	X(socket_netlink, try_socket(AF_NETLINK, SOCK_RAW, 0)) \
	X(socket_audit, try_socket(AF_NETLINK, SOCK_RAW, 9)) \
	X(ptrace_init, ptrace(PTRACE_SEIZE, 1, 0, 0)) \
	X(ptrace_self, ptrace(PTRACE_TRACEME, 0, 0, 0)) \
	X(kill_all, kill(-1, 0)) \
	X(kill_init, kill(1, 0)) \
	X(reboot, syscall(SYS_reboot, 0, 0, 0, 0)) \
	X(kexec_load, syscall(SYS_kexec_load, 0, 0, 0, 0xdead)) \
	X(init_module, syscall(SYS_init_module, NULL, 0, "")) \
	X(finit_module, syscall(SYS_finit_module, -1, "", 0)) \
	X(delete_module, syscall(SYS_delete_module, "no_such_module", O_NONBLOCK)) \
	X(swapon, syscall(SYS_swapon, "/nonexistent", 0)) \
	X(swapoff, syscall(SYS_swapoff, "/nonexistent")) \
	X(acct, acct("/nonexistent/file")) \
	X(quotactl, syscall(SYS_quotactl, 0xdead00, "/nonexistent", 0, NULL)) \
	X(syslog, syscall(SYS_syslog, 8, NULL, 0)) \
	X(settimeofday, syscall(SYS_settimeofday, NULL, NULL)) \
	X(keyctl, ends(syscall(SYS_keyctl, 0, -3, 0, 0, 0), 0)) \
	X(add_key, ends(syscall(SYS_add_key, "user", "jailrun-probe", "x", 1, -2), 0)) \
	X(bpf, syscall(SYS_bpf, 0xdead, NULL, 0)) \
	X(perf_event_open, try_perf()) \
	X(userfaultfd, ends(syscall(SYS_userfaultfd, 1), 1)) \
	X(io_uring_setup, ends(syscall(SYS_io_uring_setup, 1, NULL), 1)) \
	X(open_by_handle_at, try_handle()) \
	X(name_to_handle_at, syscall(SYS_name_to_handle_at, AT_FDCWD, "/", "\0\0\0\0\0\0\0", NULL, 0)) \
	X(fanotify_init, ends(syscall(SYS_fanotify_init, 0, O_RDONLY), 1)) \
	X(personality_exec, ends(personality(READ_IMPLIES_EXEC), 0)) \
	X(personality_linux32, ends(personality(8), 0)) \
	X(tiocsti, ioctl(0, TIOCSTI, NULL)) \
	X(tiocsti_upper, syscall(SYS_ioctl, 0, 1UL << 32 | TIOCSTI, NULL)) \
	X(setuid_root, setuid(0)) \
	X(setgroups, setgroups(0, NULL)) \
	X(nice_up, setpriority(PRIO_PROCESS, 0, -20)) \
	X(sched_fifo, try_fifo()) \
	X(raise_nofile, try_raise_limit()) \
	X(unknown_call, syscall(1000))

#if defined(__x86_64__)
/* 32-bit calls, which have numbers of their own and reach sockets through socketcall. */
static long call32(long number, long first, long second)
{
	long result;

	__asm__ volatile("int $0x80" : "=a"(result) : "0"(number), "b"(first), "c"(second)
			 : "r8", "r9", "r10", "r11", "memory");
	if (result < 0) {
		errno = -result;
		return -1;
	}
	return 0;
}
#define ATTEMPTS_X86(X) \
	X(iopl, syscall(SYS_iopl, 3)) \
	X(ioperm, syscall(SYS_ioperm, 0x80, 1, 1)) \
	X(int80_getpid, call32(20, 0, 0)) \
	X(int80_socketcall, call32(102, 1, 0)) \
	X(int80_unshare_user, call32(310, CLONE_NEWUSER, 0)) \
	X(x32_getpid, ends(syscall(0x40000000 | SYS_getpid), 0))
#else
#define ATTEMPTS_X86(X)
#endif

#endif
