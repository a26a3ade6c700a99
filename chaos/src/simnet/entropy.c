/*
 * The entropy and the wall clock of a simulated process, told instead of taken. It is loaded before the C library
 * into `sonae-chaos simnet --alone`, and into nothing else.
 *
 * Everything that draws in such a process comes through one of two symbols: `getrandom` (the standard library's
 * hash maps, tokio's choices, newer crates) or `syscall(SYS_getrandom)` (the older ones: ring with all of TLS, age).
 * The first thread draws from a stream that is a function of SONAE_SIMNET_SEED; the other threads, of which no draw
 * may be seen, from streams of their own.
 *
 * The wall clock stands still: it dates certificates, and the driver and the node are told theirs. The steady clock
 * is the system's: simulated time is tokio's paused one.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <time.h>
#include <unistd.h>

static __thread uint64_t state;
static __thread int has_begun;

static long system_call(long number, long a, long b, long c, long d, long e, long f) {
    static long (*next)(long, ...);
    if (next == NULL) next = (long (*)(long, ...))dlsym(RTLD_NEXT, "syscall");
    return next(number, a, b, c, d, e, f);
}

/* splitmix64: a seed per thread, every state once. */
static uint64_t draw(void) {
    if (!has_begun) {
        const char *seed = getenv("SONAE_SIMNET_SEED");
        long thread = system_call(SYS_gettid, 0, 0, 0, 0, 0, 0);
        state = (seed == NULL ? 0 : strtoull(seed, NULL, 10)) * 0xd1342543de82ef95ULL;
        if (thread != (long)getpid()) state ^= (uint64_t)thread << 32;
        has_begun = 1;
    }
    uint64_t z = (state += 0x9e3779b97f4a7c15ULL);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ULL;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebULL;
    return z ^ (z >> 31);
}

ssize_t getrandom(void *buffer, size_t length, unsigned int flags) {
    (void)flags;
    unsigned char *out = buffer;
    for (size_t done = 0; done < length;) {
        uint64_t bits = draw();
        size_t part = length - done < sizeof bits ? length - done : sizeof bits;
        memcpy(out + done, &bits, part);
        done += part;
    }
    return (ssize_t)length;
}

long syscall(long number, ...) {
    va_list arguments;
    long a[6];
    va_start(arguments, number);
    for (int i = 0; i < 6; i++) a[i] = va_arg(arguments, long);
    va_end(arguments);
    if (number == SYS_getrandom) return getrandom((void *)a[0], (size_t)a[1], (unsigned int)a[2]);
    return system_call(number, a[0], a[1], a[2], a[3], a[4], a[5]);
}

int clock_gettime(clockid_t clock, struct timespec *now) {
    static int (*next)(clockid_t, struct timespec *);
    if (clock == CLOCK_REALTIME) {
        const char *seconds = getenv("SONAE_SIMNET_WALL");
        now->tv_sec = seconds == NULL ? 0 : (time_t)strtoll(seconds, NULL, 10);
        now->tv_nsec = 0;
        return 0;
    }
    if (next == NULL) next = (int (*)(clockid_t, struct timespec *))dlsym(RTLD_NEXT, "clock_gettime");
    return next(clock, now);
}
