#define _GNU_SOURCE
#include <sys/time.h>
#include <stdio.h>
#include <fcntl.h>
#include <unistd.h>
#include <stdlib.h>
#include <time.h>
int gettimeofday(struct timeval *restrict tv, void *restrict tz)
{
	struct timespec ts; char b[64]; int fd, n;
	clock_gettime(CLOCK_REALTIME, &ts); tv->tv_sec = ts.tv_sec; tv->tv_usec = ts.tv_nsec/1000;
	fd = open("/tmp/prune/fake/now", O_RDONLY);
	if (fd >= 0) { n = read(fd, b, 63); close(fd); if (n > 0) { double d; b[n]=0; d = atof(b); tv->tv_sec = (long)d; tv->tv_usec = (long)((d-(long)d)*1e6); } }
	return 0;
}
