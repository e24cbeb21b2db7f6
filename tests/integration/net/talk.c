/* Says who it is and who it talks to: one program for both ends, in jails and outside.
 *
 *   talk serve NAME KIND:ADDRESS:PORT...    says "ready", then answers until it is killed
 *   talk ask KIND ADDRESS PORT [MILLISECONDS [SOURCE]]
 *
 * KIND is tcp or udp, ADDRESS without brackets; "::" is for both families.  An answer is a line
 *
 *   NAME PEER PEER-PORT ADDRESS
 *
 * where PEER is who asks and ADDRESS is what was asked, as the server sees them.  Whoever asks
 * prints it, or the errno's name ("ETIMEDOUT" where no answer came) and exits with 1.
 *
 * Build: gcc -static -Os -o talk talk.c
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define MOST 256

union address {
	struct sockaddr any;
	struct sockaddr_in v4;
	struct sockaddr_in6 v6;
};

static int fail(const char *what)
{
	const char *name = strerrorname_np(errno);

	printf("%s%s%s\n", what, *what ? ": " : "", name ? name : "?");
	fflush(stdout);
	return 1;
}

static socklen_t parse(union address *address, const char *text, int port)
{
	memset(address, 0, sizeof *address);
	if (inet_pton(AF_INET, text, &address->v4.sin_addr) == 1) {
		address->v4.sin_family = AF_INET;
		address->v4.sin_port = htons(port);
		return sizeof address->v4;
	}
	if (inet_pton(AF_INET6, text, &address->v6.sin6_addr) == 1) {
		address->v6.sin6_family = AF_INET6;
		address->v6.sin6_port = htons(port);
		return sizeof address->v6;
	}
	errno = EADDRNOTAVAIL;
	return 0;
}

static const char *show(const union address *address, char *buffer)
{
	const void *raw = address->any.sa_family == AF_INET ? (const void *)&address->v4.sin_addr
							    : (const void *)&address->v6.sin6_addr;

	inet_ntop(address->any.sa_family, raw, buffer, INET6_ADDRSTRLEN);
	return strncmp(buffer, "::ffff:", 7) ? buffer : buffer + 7;
}

static size_t answer(char *buffer, size_t size, const char *name, const union address *peer,
		     const char *asked)
{
	char text[INET6_ADDRSTRLEN];

	return snprintf(buffer, size, "%s %s %d %s\n", name, show(peer, text),
			ntohs(peer->any.sa_family == AF_INET ? peer->v4.sin_port : peer->v6.sin6_port),
			asked);
}

static void serve_tcp(int listener, const char *name)
{
	union address peer = {0}, own = {0};
	socklen_t length = sizeof peer, size = sizeof own;
	char buffer[256], text[INET6_ADDRSTRLEN];
	int fd = accept(listener, &peer.any, &length);

	if (fd < 0)
		return;
	getsockname(fd, &own.any, &size);
	size_t count = answer(buffer, sizeof buffer, name, &peer, show(&own, text));
	if (write(fd, buffer, count) < 0)
		fail("write");
	close(fd);
}

/* Answers from the address that was asked: a host has several. */
static void serve_udp(int fd, const char *name)
{
	union address peer = {0};
	char data[256], control[256], text[INET6_ADDRSTRLEN] = "";
	struct iovec part = {data, sizeof data};
	struct msghdr message = {.msg_name = &peer, .msg_namelen = sizeof peer, .msg_iov = &part,
		.msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
	union address own = {0};

	if (recvmsg(fd, &message, 0) < 0)
		return;
	for (struct cmsghdr *one = CMSG_FIRSTHDR(&message); one; one = CMSG_NXTHDR(&message, one)) {
		if (one->cmsg_level == IPPROTO_IP && one->cmsg_type == IP_PKTINFO) {
			struct in_pktinfo *info = (struct in_pktinfo *)CMSG_DATA(one);
			own.any.sa_family = AF_INET;
			own.v4.sin_addr = info->ipi_addr;
			info->ipi_spec_dst = info->ipi_addr;
			info->ipi_ifindex = 0;
		} else if (one->cmsg_level == IPPROTO_IPV6 && one->cmsg_type == IPV6_PKTINFO) {
			own.any.sa_family = AF_INET6;
			own.v6.sin6_addr = ((struct in6_pktinfo *)CMSG_DATA(one))->ipi6_addr;
		}
	}
	part.iov_len = answer(data, sizeof data, name, &peer, show(&own, text));
	if (sendmsg(fd, &message, 0) < 0)
		fail("sendmsg");
}

static int serve(int argc, char **argv)
{
	struct pollfd polled[MOST];
	int is_udp[MOST], count = 0, on = 1;

	for (; count < argc - 1 && count < MOST; count++) {
		union address address;
		char *kind = argv[count + 1], *host = strchr(kind, ':'), *port = strrchr(kind, ':');

		*host++ = *port++ = 0;
		socklen_t length = parse(&address, host, atoi(port));
		is_udp[count] = !strcmp(kind, "udp");
		int fd = socket(address.any.sa_family, is_udp[count] ? SOCK_DGRAM : SOCK_STREAM, 0);
		setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
		setsockopt(fd, IPPROTO_IP, IP_PKTINFO, &on, sizeof on);
		setsockopt(fd, IPPROTO_IPV6, IPV6_RECVPKTINFO, &on, sizeof on);
		if (!length || bind(fd, &address.any, length))
			return fail(host);
		if (!is_udp[count] && listen(fd, 128))
			return fail(host);
		polled[count] = (struct pollfd){fd, POLLIN, 0};
	}
	puts("ready");
	fflush(stdout);
	for (;;) {
		if (poll(polled, count, -1) < 0)
			return fail("poll");
		for (int i = 0; i < count; i++)
			if (polled[i].revents)
				(is_udp[i] ? serve_udp : serve_tcp)(polled[i].fd, argv[0]);
	}
}

static int ask(int argc, char **argv)
{
	union address address, source;
	char buffer[256];
	int patience = argc > 3 ? atoi(argv[3]) : 5000, udp = !strcmp(argv[0], "udp"), error = 0;
	socklen_t length = parse(&address, argv[1], atoi(argv[2])), size = sizeof error;

	if (!length)
		return fail("");
	int fd = socket(address.any.sa_family, (udp ? SOCK_DGRAM : SOCK_STREAM) | SOCK_NONBLOCK, 0);
	struct pollfd polled = {fd, POLLOUT, 0};
	if (argc > 4 && (!(size = parse(&source, argv[4], 0)) || bind(fd, &source.any, size)))
		return fail("");
	if (connect(fd, &address.any, length) && errno != EINPROGRESS)
		return fail("");
	errno = ETIMEDOUT;
	if (poll(&polled, 1, patience) != 1)
		return fail("");
	size = sizeof error;
	getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &size);
	if ((errno = error))
		return fail("");
	if (udp && send(fd, "who\n", 4, 0) < 0)
		return fail("");
	polled.events = POLLIN;
	errno = ETIMEDOUT;
	if (poll(&polled, 1, patience) != 1)
		return fail("");
	ssize_t got = read(fd, buffer, sizeof buffer);
	if (got < 0)
		return fail("");
	if (!got)
		puts("EPIPE");
	fwrite(buffer, 1, got, stdout);
	return !got;
}

int main(int argc, char **argv)
{
	if (argc > 3 && !strcmp(argv[1], "serve"))
		return serve(argc - 2, argv + 2);
	if (argc > 4 && !strcmp(argv[1], "ask"))
		return ask(argc - 2, argv + 2);
	fputs("usage: see the source\n", stderr);
	return 2;
}
