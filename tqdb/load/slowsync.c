/* A slow disk for benchmarks: preloaded into a throwaway server, it lets every fsync and fdatasync take
 * TQDB_SLOW_COMMIT_US microseconds longer. Only the thread that waits for the disk waits longer, as it would.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>
#include <time.h>

static void
delay(void)
{
	static long micros = -1;
	struct timespec ts;

	if (micros < 0) {
		const char *text = getenv("TQDB_SLOW_COMMIT_US");
		micros = text ? atol(text) : 0;
	}
	ts.tv_sec = micros / 1000000;
	ts.tv_nsec = micros % 1000000 * 1000;
	nanosleep(&ts, NULL);
}

int
fsync(int fd)
{
	static int (*real)(int);

	if (!real)
		real = (int (*)(int))dlsym(RTLD_NEXT, "fsync");
	delay();
	return real(fd);
}

int
fdatasync(int fd)
{
	static int (*real)(int);

	if (!real)
		real = (int (*)(int))dlsym(RTLD_NEXT, "fdatasync");
	delay();
	return real(fd);
}
