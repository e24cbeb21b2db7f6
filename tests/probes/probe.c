/* What a process in a jail sees, and what it can do: one JSON object a line.
 *
 *   probe              everything
 *   probe NAME...      those reports and attempts only; "reports" and "attempts" are all of a kind
 *   probe --list       the names
 *
 * A report says what there is: {"probe": "ids", "uid": 0, ...}
 * An attempt says how it ended: {"probe": "mount_tmpfs", "errno": 1, "error": "EPERM"}
 * with errno 0 where it was possible.  Every attempt is made in a child of its own, and is harmless
 * where it succeeds: it undoes itself, changes nothing, or has an argument that the kernel refuses
 * only after it has looked at the privileges (that errno then means "would have been allowed").
 *
 * Build: gcc -static -Os -o probe probe.c
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/personality.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <unistd.h>

#include "attempts.h"

/* --- output ------------------------------------------------------------------------------------ */

static void print_string(const char *text)
{
	putchar('"');
	for (const unsigned char *c = (const unsigned char *)text; *c; c++) {
		if (*c == '"' || *c == '\\')
			printf("\\%c", *c);
		else if (*c < 0x20 || *c >= 0x7f)
			printf("\\u%04x", *c);
		else
			putchar(*c);
	}
	putchar('"');
}

static void print_member(const char *key, const char *value)
{
	printf(", \"%s\": ", key);
	print_string(value);
}

static size_t read_text(const char *path, char *buffer, size_t size)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	size_t done = 0;
	ssize_t got;

	if (fd >= 0) {
		while (done + 1 < size && (got = read(fd, buffer + done, size - 1 - done)) > 0)
			done += got;
		close(fd);
	}
	buffer[done] = 0;
	return done;
}

static void print_file(const char *key, const char *path)
{
	static char buffer[65536];

	read_text(path, buffer, sizeof buffer);
	print_member(key, buffer);
}

/* Prints the entries of a directory as a list; only numbers where asked. */
static void print_directory(const char *key, const char *path, int numbers)
{
	DIR *directory = opendir(path);
	struct dirent *entry;
	const char *separator = "";

	printf(", \"%s\": [", key);
	while (directory && (entry = readdir(directory))) {
		if (entry->d_name[0] == '.' || (numbers && !strchr("0123456789", entry->d_name[0])))
			continue;
		printf("%s", separator);
		print_string(entry->d_name);
		separator = ", ";
	}
	printf("]");
	if (directory)
		closedir(directory);
}

/* --- reports ------------------------------------------------------------------------------------- */

static void report_ids(void)
{
	uid_t ruid, euid, suid;
	gid_t rgid, egid, sgid, groups[1024];
	int count = getgroups(1024, groups);

	getresuid(&ruid, &euid, &suid);
	getresgid(&rgid, &egid, &sgid);
	printf(", \"uid\": %u, \"euid\": %u, \"suid\": %u", ruid, euid, suid);
	printf(", \"gid\": %u, \"egid\": %u, \"sgid\": %u, \"groups\": [", rgid, egid, sgid);
	for (int i = 0; i < count; i++)
		printf("%s%u", i ? ", " : "", groups[i]);
	printf("], \"pid\": %d, \"ppid\": %d, \"sid\": %d", getpid(), getppid(), getsid(0));
	print_file("uid_map", "/proc/self/uid_map");
	print_file("gid_map", "/proc/self/gid_map");
}

static void report_status(void)
{
	static char buffer[16384];
	static const char *const keys[] = {"CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb",
		"NoNewPrivs", "Seccomp", "Seccomp_filters", "SigBlk", "SigIgn", "SigCgt", "Umask",
		"NSpid", "Cpus_allowed_list"};

	read_text("/proc/self/status", buffer, sizeof buffer);
	for (char *line = strtok(buffer, "\n"); line; line = strtok(NULL, "\n")) {
		char *value = strchr(line, ':');
		if (!value)
			continue;
		*value++ = 0;
		while (*value == '\t' || *value == ' ')
			value++;
		for (size_t i = 0; i < sizeof keys / sizeof *keys; i++)
			if (!strcmp(line, keys[i]))
				print_member(line, value);
	}
}

static void report_fds(void)
{
	char path[64], target[4096];
	const char *separator = "";

	printf(", \"open\": {");
	for (int fd = 0; fd < 4096; fd++) {
		if (fcntl(fd, F_GETFD) < 0)
			continue;
		snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
		ssize_t length = readlink(path, target, sizeof target - 1);
		target[length < 0 ? 0 : length] = 0;
		printf("%s\"%d\": ", separator, fd);
		print_string(target);
		separator = ", ";
	}
	printf("}");
}

static void report_namespaces(void)
{
	static const char *const kinds[] = {"cgroup", "ipc", "mnt", "net", "pid", "time", "user", "uts"};
	char path[64];
	struct stat status;

	for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
		snprintf(path, sizeof path, "/proc/self/ns/%s", kinds[i]);
		if (!stat(path, &status))
			printf(", \"%s\": %lu", kinds[i], (unsigned long)status.st_ino);
	}
}

static void report_system(void)
{
	struct utsname name;
	char directory[4096];

	uname(&name);
	print_member("hostname", name.nodename);
	print_member("domainname", name.domainname);
	print_member("machine", name.machine);
	print_member("cwd", getcwd(directory, sizeof directory) ? directory : "");
	printf(", \"personality\": %d", personality(0xffffffff));
	printf(", \"nice\": %d", getpriority(PRIO_PROCESS, 0));
	printf(", \"scheduler\": %d", sched_getscheduler(0));
	printf(", \"io_priority\": %ld", syscall(SYS_ioprio_get, 1, 0));
	printf(", \"cpus\": %ld", sysconf(_SC_NPROCESSORS_ONLN));
	print_file("oom_score_adj", "/proc/self/oom_score_adj");
	print_file("cgroup", "/proc/self/cgroup");
	print_file("label", "/proc/self/attr/current");
	print_directory("root", "/", 0);
	print_directory("devices", "/dev", 0);
	print_directory("processes", "/proc", 1);
	print_directory("interfaces", "/sys/class/net", 0);
}

static void report_mounts(void)
{
	static char buffer[262144];
	char *rest = buffer, *line;
	const char *separator = "";

	read_text("/proc/self/mountinfo", buffer, sizeof buffer);
	printf(", \"mounts\": [");
	while ((line = strsep(&rest, "\n")) && *line) {
		char target[4096], options[1024], type[256], *tail = strstr(line, " - ");

		if (!tail || sscanf(line, "%*s %*s %*s %*s %4095s %1023s", target, options) != 2)
			continue;
		if (sscanf(tail, " - %255s", type) != 1)
			continue;
		printf("%s{\"type\": ", separator);
		print_string(type);
		print_member("target", target);
		print_member("options", options);
		printf("}");
		separator = ", ";
	}
	printf("]");
}

static void report_rlimits(void)
{
	static const char *const names[] = {"CPU", "FSIZE", "DATA", "STACK", "CORE", "RSS", "NPROC",
		"NOFILE", "MEMLOCK", "AS", "LOCKS", "SIGPENDING", "MSGQUEUE", "NICE", "RTPRIO", "RTTIME"};
	struct rlimit limit;

	for (int i = 0; i < 16; i++) {
		if (getrlimit(i, &limit))
			continue;
		printf(", \"RLIMIT_%s\": [%llu, %llu]", names[i], (unsigned long long)limit.rlim_cur,
		       (unsigned long long)limit.rlim_max);
	}
}

static void report_environment(void)
{
	const char *separator = "";

	printf(", \"environment\": [");
	for (char **each = environ; *each; each++) {
		printf("%s", separator);
		print_string(*each);
		separator = ", ";
	}
	printf("]");
}

/* --- the table ----------------------------------------------------------------------------------- */

#define FUNCTION(name, expression) static long attempt_##name(void) { return (expression); }
ATTEMPTS(FUNCTION)
ATTEMPTS_X86(FUNCTION)

struct probe {
	const char *name;
	void (*report)(void);
	long (*attempt)(void);
};

#define ROW(name, expression) {#name, NULL, attempt_##name},
static const struct probe probes[] = {
	{"ids", report_ids, NULL},
	{"status", report_status, NULL},
	{"fds", report_fds, NULL},
	{"namespaces", report_namespaces, NULL},
	{"system", report_system, NULL},
	{"mounts", report_mounts, NULL},
	{"rlimits", report_rlimits, NULL},
	{"environment", report_environment, NULL},
	ATTEMPTS(ROW)
	ATTEMPTS_X86(ROW)
};

static void run_attempt(const struct probe *probe)
{
	int status = 0, pipes[2], error = -1;

	if (pipe2(pipes, O_CLOEXEC))
		return;
	pid_t pid = fork();
	if (pid == 0) {
		errno = 0;
		error = probe->attempt() < 0 ? errno : 0;
		_exit(write(pipes[1], &error, sizeof error) != sizeof error);
	}
	close(pipes[1]);
	if (pid < 0 || read(pipes[0], &error, sizeof error) != sizeof error)
		error = -1;
	close(pipes[0]);
	if (pid > 0)
		waitpid(pid, &status, 0);
	if (error < 0) {
		printf(", \"signal\": %d", WIFSIGNALED(status) ? WTERMSIG(status) : 0);
		return;
	}
	const char *name = strerrorname_np(error);
	printf(", \"errno\": %d", error);
	print_member("error", error && name ? name : "");
}

int main(int argc, char **argv)
{
	int list = argc > 1 && !strcmp(argv[1], "--list"), found = 0;

	setvbuf(stdout, NULL, _IOFBF, 1 << 20);
	for (size_t i = 0; i < sizeof probes / sizeof *probes; i++) {
		const struct probe *probe = &probes[i];
		int wanted = argc == 1;

		if (list) {
			puts(probe->name);
			continue;
		}
		for (int j = 1; j < argc; j++)
			wanted |= !strcmp(argv[j], probe->name)
				|| !strcmp(argv[j], probe->report ? "reports" : "attempts");
		if (!wanted)
			continue;
		found++;
		fflush(stdout);
		printf("{\"probe\": \"%s\"", probe->name);
		if (probe->report)
			probe->report();
		else {
			fflush(stdout);
			run_attempt(probe);
		}
		printf("}\n");
	}
	fflush(stdout);
	return !list && found == 0;
}
