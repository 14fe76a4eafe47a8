/* A small program of Windows that knows nothing of Phantom: it connects in every way there is, serves, and asks for names.
 *
 *   victim serve PORT              says "serving", then echoes what one peer after the other sends
 *   victim serve-ex PORT           the same by AcceptEx
 *   victim echo HOST PORT          sends a mebibyte, says whether the same comes back, and who is at the other end
 *   victim bare HOST PORT          the same by a child that gets next to no environment, in both forms that it may have
 *   victim WAY ADDRESS PORT        tries to reach an address; exit status 0 when it did not fail, as far as it can tell
 *   victim name WAY NAME           asks for a name; exit status 0 when there is an answer
 *   victim arguments STATUS ...    says its arguments, each in a line, and ends with that
 *   victim sleep                   says "sleeping", and sleeps
 */
#define _WIN32_WINNT 0x0602
#include <winsock2.h>
#include <ws2tcpip.h>
#include <mswsock.h>
#include <windows.h>
#include <windns.h>
#include <winternl.h>
#include <shellapi.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char hello[] = "hello";

static struct sockaddr_in to(const char *address, const char *port)
{
	struct sockaddr_in at = { .sin_family = AF_INET, .sin_port = htons((u_short)atoi(port)) };
	at.sin_addr.s_addr = inet_addr(address);
	return at;
}

static SOCKET stream(void) { return socket(AF_INET, SOCK_STREAM, IPPROTO_TCP); }

/* Whether a connection that was begun comes to stand, within ten seconds. */
static int stands(SOCKET s)
{
	fd_set ready, failed;
	struct timeval patience = { 10, 0 };
	FD_ZERO(&ready);
	FD_ZERO(&failed);
	FD_SET(s, &ready);
	FD_SET(s, &failed);
	return select(0, NULL, &ready, &failed, &patience) > 0 && FD_ISSET(s, &ready);
}

static int by_connect(const char *address, const char *port)
{
	struct sockaddr_in at = to(address, port);
	SOCKET s = stream();
	return connect(s, (void *)&at, sizeof at) == 0 && send(s, hello, sizeof hello, 0) > 0;
}

static int by_wsaconnect(const char *address, const char *port)
{
	struct sockaddr_in at = to(address, port);
	SOCKET s = WSASocketW(AF_INET, SOCK_STREAM, IPPROTO_TCP, NULL, 0, WSA_FLAG_OVERLAPPED);
	return WSAConnect(s, (void *)&at, sizeof at, NULL, NULL, NULL, NULL) == 0;
}

static int by_nonblocking(const char *address, const char *port)
{
	struct sockaddr_in at = to(address, port);
	SOCKET s = stream();
	u_long yes = 1;
	ioctlsocket(s, FIONBIO, &yes);
	if (connect(s, (void *)&at, sizeof at) == 0)
		return 1;
	return WSAGetLastError() == WSAEWOULDBLOCK && stands(s);
}

static int by_event(const char *address, const char *port)
{
	struct sockaddr_in at = to(address, port);
	SOCKET s = stream();
	WSAEVENT event = WSACreateEvent();
	WSANETWORKEVENTS seen;
	WSAEventSelect(s, event, FD_CONNECT);
	if (connect(s, (void *)&at, sizeof at) != 0 && WSAGetLastError() != WSAEWOULDBLOCK)
		return 0;
	WSAWaitForMultipleEvents(1, &event, TRUE, 10000, FALSE);
	return WSAEnumNetworkEvents(s, event, &seen) == 0 && seen.lNetworkEvents & FD_CONNECT &&
	       seen.iErrorCode[FD_CONNECT_BIT] == 0;
}

static int by_connectex(const char *address, const char *port)
{
	struct sockaddr_in at = to(address, port), any = { .sin_family = AF_INET };
	SOCKET s = stream();
	GUID which = WSAID_CONNECTEX;
	LPFN_CONNECTEX connect_ex = NULL;
	OVERLAPPED under_way = { .hEvent = CreateEventW(NULL, TRUE, FALSE, NULL) };
	DWORD sent = 0;
	bind(s, (void *)&any, sizeof any);
	WSAIoctl(s, SIO_GET_EXTENSION_FUNCTION_POINTER, &which, sizeof which, &connect_ex, sizeof connect_ex, &sent, NULL, NULL);
	if (!connect_ex)
		return 0;
	if (!connect_ex(s, (void *)&at, sizeof at, NULL, 0, &sent, &under_way) && WSAGetLastError() != WSA_IO_PENDING)
		return 0;
	return GetOverlappedResult((HANDLE)s, &under_way, &sent, TRUE) != 0;
}

static int by_name(const char *address, const char *port)
{
	wchar_t host[64], service[16];
	struct timeval patience = { 10, 0 };
	SOCKET s = stream();
	MultiByteToWideChar(CP_ACP, 0, address, -1, host, 64);
	MultiByteToWideChar(CP_ACP, 0, port, -1, service, 16);
	return WSAConnectByNameW(s, host, service, NULL, NULL, NULL, NULL, &patience, NULL) != 0;
}

static int by_datagram(const char *address, const char *port)
{
	struct sockaddr_in at = to(address, port);
	SOCKET s = socket(AF_INET, SOCK_DGRAM, 0);
	return sendto(s, hello, sizeof hello, 0, (void *)&at, sizeof at) > 0;
}

static int by_wsasendto(const char *address, const char *port)
{
	struct sockaddr_in at = to(address, port);
	SOCKET s = socket(AF_INET, SOCK_DGRAM, 0);
	WSABUF data = { sizeof hello, (char *)hello };
	DWORD sent = 0;
	return WSASendTo(s, &data, 1, &sent, 0, (void *)&at, sizeof at, NULL, NULL) == 0;
}

static int by_connected_datagram(const char *address, const char *port)
{
	struct sockaddr_in at = to(address, port);
	SOCKET s = socket(AF_INET, SOCK_DGRAM, 0);
	return connect(s, (void *)&at, sizeof at) == 0 && send(s, hello, sizeof hello, 0) > 0;
}

/* Past Winsock, as wine's own does it: another device call than that of Windows. */
static int by_device(const char *address, const char *port)
{
	struct {
		int length, waits;
		struct sockaddr_in at;
	} asked = { sizeof asked.at, 1, to(address, port) };
	SOCKET s = stream();
	HANDLE event = CreateEventW(NULL, TRUE, FALSE, NULL);
	IO_STATUS_BLOCK status;
	NTSTATUS begun = NtDeviceIoControlFile((HANDLE)s, event, NULL, NULL, &status, 0x12032c, &asked, sizeof asked, NULL, 0);
	if (begun == 0x103) {
		WaitForSingleObject(event, 10000);
		begun = status.Status;
	}
	return begun == 0 && send(s, hello, sizeof hello, 0) > 0;
}

static int end_of(HANDLE process)
{
	DWORD status = 1;
	WaitForSingleObject(process, 30000);
	GetExitCodeProcess(process, &status);
	return status == 0;
}

static int by_child(const char *address, const char *port)
{
	char own[MAX_PATH], line[2 * MAX_PATH];
	STARTUPINFOA how = { .cb = sizeof how };
	PROCESS_INFORMATION made;
	GetModuleFileNameA(NULL, own, sizeof own);
	snprintf(line, sizeof line, "\"%s\" connect %s %s", own, address, port);
	return CreateProcessA(NULL, line, NULL, NULL, FALSE, 0, NULL, NULL, &how, &made) && end_of(made.hProcess);
}

static int by_shell(const char *address, const char *port)
{
	char own[MAX_PATH], line[2 * MAX_PATH];
	GetModuleFileNameA(NULL, own, sizeof own);
	snprintf(line, sizeof line, "\"\"%s\" connect %s %s\"", own, address, port);
	return system(line) == 0;
}

static int by_shellexecute(const char *address, const char *port)
{
	char own[MAX_PATH], line[MAX_PATH];
	SHELLEXECUTEINFOA how = { .cbSize = sizeof how, .fMask = SEE_MASK_NOCLOSEPROCESS, .lpFile = own, .lpParameters = line };
	GetModuleFileNameA(NULL, own, sizeof own);
	snprintf(line, sizeof line, "connect %s %s", address, port);
	return ShellExecuteExA(&how) && how.hProcess && end_of(how.hProcess);
}

static const struct {
	const char *name;
	int (*reach)(const char *, const char *);
} ways[] = {
	{ "connect", by_connect },
	{ "wsaconnect", by_wsaconnect },
	{ "nonblocking", by_nonblocking },
	{ "event", by_event },
	{ "connectex", by_connectex },
	{ "byname", by_name },
	{ "datagram", by_datagram },
	{ "wsasendto", by_wsasendto },
	{ "connected-datagram", by_connected_datagram },
	{ "device", by_device },
	{ "child", by_child },
	{ "shell", by_shell },
	{ "shellexecute", by_shellexecute },
};

static int ask(const char *way, const char *name)
{
	wchar_t wide[256];
	struct addrinfo *found = NULL;
	ADDRINFOW *found_wide = NULL;
	ADDRINFOEXW *found_ex = NULL;
	PDNS_RECORD records = NULL;
	MultiByteToWideChar(CP_ACP, 0, name, -1, wide, 256);
	if (!strcmp(way, "getaddrinfo"))
		return getaddrinfo(name, "80", NULL, &found);
	if (!strcmp(way, "GetAddrInfoW"))
		return GetAddrInfoW(wide, L"80", NULL, &found_wide);
	if (!strcmp(way, "GetAddrInfoExW"))
		return GetAddrInfoExW(wide, L"80", NS_ALL, NULL, NULL, &found_ex, NULL, NULL, NULL, NULL);
	if (!strcmp(way, "gethostbyname"))
		return gethostbyname(name) ? 0 : WSAGetLastError();
	if (!strcmp(way, "DnsQuery"))
		return DnsQuery_W(wide, DNS_TYPE_A, 0, NULL, &records, NULL);
	return -1;
}

static void answer(SOCKET peer, const struct sockaddr_in *from)
{
	char data[65536];
	int got;
	printf("from %s\n", inet_ntoa(from->sin_addr));
	while ((got = recv(peer, data, sizeof data, 0)) > 0)
		for (int sent = 0, more; sent < got; sent += more)
			if ((more = send(peer, data + sent, got - sent, 0)) <= 0)
				break;
	closesocket(peer);
}

/* As servers with completion ports accept, by Windows' own helpers. */
static SOCKET accepted(SOCKET s, struct sockaddr_in *from)
{
	enum { ROOM = sizeof(struct sockaddr_in) + 16 };
	char both[2 * ROOM];
	struct sockaddr *here, *there;
	int here_length, there_length;
	OVERLAPPED under_way = { .hEvent = CreateEventW(NULL, TRUE, FALSE, NULL) };
	DWORD got;
	SOCKET peer = stream();
	if (!AcceptEx(s, peer, both, 0, ROOM, ROOM, &got, &under_way) && WSAGetLastError() != WSA_IO_PENDING)
		return INVALID_SOCKET;
	if (!GetOverlappedResult((HANDLE)s, &under_way, &got, TRUE) ||
	    setsockopt(peer, SOL_SOCKET, SO_UPDATE_ACCEPT_CONTEXT, (char *)&s, sizeof s))
		return INVALID_SOCKET;
	GetAcceptExSockaddrs(both, 0, ROOM, ROOM, &here, &here_length, &there, &there_length);
	*from = *(struct sockaddr_in *)there;
	return peer;
}

static int serve(const char *port, int by_completion)
{
	struct sockaddr_in at = to("0.0.0.0", port), from;
	int length = sizeof from;
	SOCKET s = stream(), peer;
	if (bind(s, (void *)&at, sizeof at) || listen(s, 16))
		return printf("cannot serve: %d\n", WSAGetLastError()), 1;
	printf("serving\n");
	while ((peer = by_completion ? accepted(s, &from) : accept(s, (void *)&from, &length)) != INVALID_SOCKET) {
		answer(peer, &from);
		length = sizeof from;
	}
	return 1;
}

static DWORD WINAPI pour(void *argument)
{
	SOCKET s = *(SOCKET *)argument;
	char data[4096];
	for (int block = 0; block < 256; block++) {
		memset(data, block, sizeof data);
		for (int sent = 0, more; sent < (int)sizeof data; sent += more)
			if ((more = send(s, data + sent, sizeof data - sent, 0)) <= 0)
				return 1;
	}
	shutdown(s, SD_SEND);
	return 0;
}

static int echo(const char *host, const char *port)
{
	struct addrinfo wanted = { .ai_socktype = SOCK_STREAM }, *found, *at;
	struct sockaddr_storage peer;
	int length = sizeof peer, total = 0, got;
	char text[64], data[65536];
	SOCKET s = INVALID_SOCKET;
	if (getaddrinfo(host, port, &wanted, &found))
		return printf("no such name: %d\n", WSAGetLastError()), 1;
	for (at = found; at; at = at->ai_next) {
		s = socket(at->ai_family, SOCK_STREAM, IPPROTO_TCP);
		if (!connect(s, at->ai_addr, (int)at->ai_addrlen))
			break;
		printf("not connected: %d\n", WSAGetLastError());
	}
	if (!at)
		return 1;
	getpeername(s, (void *)&peer, &length);
	getnameinfo((void *)&peer, length, text, sizeof text, NULL, 0, NI_NUMERICHOST);
	printf("at %s\n", text);
	CreateThread(NULL, 0, pour, &s, 0, NULL);
	while ((got = recv(s, data, sizeof data, 0)) > 0)
		for (int i = 0; i < got; i++, total++)
			if ((unsigned char)data[i] != total / 4096)
				return printf("byte %d is wrong\n", total), 1;
	printf("%d bytes came back\n", total);
	return total != 1 << 20;
}

/* A child that sends and hears the same, and knows where Windows lies. */
static int bare(const char *host, const char *port)
{
	static char narrow[] = "SYSTEMROOT=C:\\windows\0";
	static wchar_t wide[] = L"SYSTEMROOT=C:\\windows\0";
	char own[MAX_PATH], line[2 * MAX_PATH];
	STARTUPINFOA how = { .cb = sizeof how };
	PROCESS_INFORMATION made;
	GetModuleFileNameA(NULL, own, sizeof own);
	for (int is_wide = 0; is_wide < 2; is_wide++) {
		snprintf(line, sizeof line, "\"%s\" echo %s %s", own, host, port);
		if (!CreateProcessA(NULL, line, NULL, NULL, TRUE, is_wide ? CREATE_UNICODE_ENVIRONMENT : 0,
				    is_wide ? (void *)wide : narrow, NULL, &how, &made) ||
		    !end_of(made.hProcess))
			return 1;
	}
	return 0;
}

int main(int count, char **arguments)
{
	WSADATA data;
	setvbuf(stdout, NULL, _IONBF, 0);
	WSAStartup(MAKEWORD(2, 2), &data);
	if (count >= 3 && !strcmp(arguments[1], "arguments")) {
		for (int i = 3; i < count; i++)
			printf("[%s]\n", arguments[i]);
		return atoi(arguments[2]);
	}
	if (count == 2 && !strcmp(arguments[1], "sleep"))
		return printf("sleeping\n"), Sleep(INFINITE), 0;
	if (count == 3 && (!strcmp(arguments[1], "serve") || !strcmp(arguments[1], "serve-ex")))
		return serve(arguments[2], !strcmp(arguments[1], "serve-ex"));
	if (count == 4 && !strcmp(arguments[1], "echo"))
		return echo(arguments[2], arguments[3]);
	if (count == 4 && !strcmp(arguments[1], "bare"))
		return bare(arguments[2], arguments[3]);
	if (count == 4 && !strcmp(arguments[1], "name"))
		return ask(arguments[2], arguments[3]) != 0;
	for (size_t i = 0; i < sizeof ways / sizeof *ways && count == 4; i++)
		if (!strcmp(arguments[1], ways[i].name))
			return !ways[i].reach(arguments[2], arguments[3]);
	return 2;
}
