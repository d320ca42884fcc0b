/* Preloaded into every process of a soak: another time of day, and a slow disk, as a small shared file says.

   NAS_SOAK_CONTROL names the file: two int64, seconds that the clock is ahead, and microseconds that each fsync waits.
   Waits that end at a time of day are moved too, so that they last as long as they were asked to. The clocks that nobody sets stay. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#define OF_THE_DAY 1000000000 /* seconds: no machine is up for so long */
#define REAL(name) ((__typeof__(&name)) dlsym(RTLD_NEXT, #name))

static const volatile int64_t *control;

__attribute__((constructor)) static void attach(void) {
    const char *path = getenv("NAS_SOAK_CONTROL");
    int file = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    if (file < 0) return;
    void *at = mmap(NULL, 2 * sizeof(int64_t), PROT_READ, MAP_SHARED, file, 0);
    close(file);
    if (at != MAP_FAILED) control = at;
}

static int64_t ahead_s(void) { return control ? control[0] : 0; }

static int raw_clock(clockid_t id, struct timespec *at) { return (int) syscall(SYS_clock_gettime, id, at); }

int clock_gettime(clockid_t id, struct timespec *at) {
    static __typeof__(&clock_gettime) real;
    if (!real) real = REAL(clock_gettime);
    int code = real ? real(id, at) : raw_clock(id, at);
    if (!code && (id == CLOCK_REALTIME || id == CLOCK_REALTIME_COARSE)) at->tv_sec += ahead_s();
    return code;
}

int gettimeofday(struct timeval *restrict at, void *restrict zone) {
    struct timespec now;
    (void) zone;
    clock_gettime(CLOCK_REALTIME, &now);
    at->tv_sec = now.tv_sec;
    at->tv_usec = now.tv_nsec / 1000;
    return 0;
}

time_t time(time_t *at) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (at) *at = now.tv_sec;
    return now.tv_sec;
}

static const struct timespec *moved(const struct timespec *until, struct timespec *room) {
    if (!until || until->tv_sec < OF_THE_DAY) return until;
    *room = *until;
    room->tv_sec -= ahead_s();
    return room;
}

#define MOVED(type, name)                                                                                              \
    int name(type *of, const struct timespec *until) {                                                                 \
        static __typeof__(&name) real;                                                                                 \
        struct timespec room;                                                                                          \
        if (!real) real = REAL(name);                                                                                  \
        return real(of, moved(until, &room));                                                                          \
    }

MOVED(sem_t, sem_timedwait)
MOVED(pthread_mutex_t, pthread_mutex_timedlock)

int pthread_cond_timedwait(pthread_cond_t *condition, pthread_mutex_t *mutex, const struct timespec *until) {
    static __typeof__(&pthread_cond_timedwait) real;
    struct timespec room;
    if (!real) real = (__typeof__(real)) dlvsym(RTLD_NEXT, "pthread_cond_timedwait", "GLIBC_2.3.2");
    if (!real) real = REAL(pthread_cond_timedwait);
    return real(condition, mutex, moved(until, &room));
}

int pthread_cond_clockwait(pthread_cond_t *condition, pthread_mutex_t *mutex, clockid_t id, const struct timespec *until) {
    static __typeof__(&pthread_cond_clockwait) real;
    struct timespec room;
    if (!real) real = REAL(pthread_cond_clockwait);
    return real(condition, mutex, id, id == CLOCK_REALTIME ? moved(until, &room) : until);
}

int sem_clockwait(sem_t *of, clockid_t id, const struct timespec *until) {
    static __typeof__(&sem_clockwait) real;
    struct timespec room;
    if (!real) real = REAL(sem_clockwait);
    return real(of, id, id == CLOCK_REALTIME ? moved(until, &room) : until);
}

/* absl, and so gRPC and Ray, waits by futex itself. */
long syscall(long number, ...) {
    static __typeof__(&syscall) real;
    long given[6];
    struct timespec room;
    va_list rest;
    va_start(rest, number);
    for (int i = 0; i < 6; i++) given[i] = va_arg(rest, long);
    va_end(rest);
    if (!real) real = REAL(syscall);
    if (number == SYS_futex && (given[1] & FUTEX_CLOCK_REALTIME)) given[3] = (long) moved((const struct timespec *) given[3], &room);
    return real(number, given[0], given[1], given[2], given[3], given[4], given[5]);
}

static void wait_for_disk(void) {
    int64_t delay_us = control ? control[1] : 0;
    if (delay_us > 0) {
        struct timespec left = {delay_us / 1000000, delay_us % 1000000 * 1000};
        while (nanosleep(&left, &left) && errno == EINTR) {}
    }
}

int fsync(int file) {
    static __typeof__(&fsync) real;
    if (!real) real = REAL(fsync);
    wait_for_disk();
    return real(file);
}

int fdatasync(int file) {
    static __typeof__(&fdatasync) real;
    if (!real) real = REAL(fdatasync);
    wait_for_disk();
    return real(file);
}
