/* The time of day, wrong by as many seconds as the file that CLOCK_IS_OFF names says. A machine's own clock belongs to everybody on it, and
   namespaces have none of their own. Clocks that measure spans are left alone, as they are where somebody sets the time. */
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

int clock_gettime(clockid_t which, struct timespec *now) {
    int failed = (int)syscall(SYS_clock_gettime, which, now);
    const char *path = getenv("CLOCK_IS_OFF");
    FILE *file = !failed && which == CLOCK_REALTIME && path ? fopen(path, "r") : NULL;
    long off = 0;
    if (file) {
        if (fscanf(file, "%ld", &off) == 1) now->tv_sec += off;
        fclose(file);
    }
    return failed;
}
