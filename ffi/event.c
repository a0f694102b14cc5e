/*
 * Event descriptors. Ours are non-blocking; a front end's may not be, and its flags are shared with the
 * front end, so they are never changed here.
 */
#define _GNU_SOURCE
#include "event.h"

#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/timerfd.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

int32_t ubi_event_create(void) { return ubi_result(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)); }

int32_t ubi_event_check(int32_t fd) {
    char path[32];
    char target[32];
    snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
    ssize_t length = readlink(path, target, sizeof(target) - 1);
    if (length < 0) {
        return -errno;
    }
    target[length] = '\0';
    if (strcmp(target, "anon_inode:[eventfd]") != 0) {
        return -EINVAL;
    }
    int flags = fcntl(fd, F_GETFL);
    if (flags < 0) {
        return -errno;
    }
    return (flags & O_NONBLOCK) != 0 ? 1 : 2;
}

int32_t ubi_event_signal(int32_t fd) {
    uint64_t one = 1;
    ssize_t written;
    do {
        written = write(fd, &one, sizeof(one));
    } while (written < 0 && errno == EINTR);
    return written < 0 ? -errno : 0;
}

int32_t ubi_event_signal_asking(int32_t fd) {
    struct pollfd wait = {.fd = fd, .events = POLLOUT};
    if (poll(&wait, 1, 0) != 1 || (wait.revents & POLLOUT) == 0) {
        return -EAGAIN;
    }
    return ubi_event_signal(fd);
}

/* Whoever shares the descriptor may empty it, or make it block, at any time: the read itself must not wait. */
int32_t ubi_event_drain(int32_t fd) {
    uint64_t count;
    struct iovec vector = {.iov_base = &count, .iov_len = sizeof(count)};
    ssize_t length;
    do {
        length = preadv2(fd, &vector, 1, -1, RWF_NOWAIT);
    } while (length < 0 && errno == EINTR);
    if (length < 0 && errno == EOPNOTSUPP) { /* before kernel 5.8 */
        struct pollfd wait = {.fd = fd, .events = POLLIN};
        if (poll(&wait, 1, 0) != 1 || (wait.revents & POLLIN) == 0) {
            return 0;
        }
        length = read(fd, &count, sizeof(count));
    }
    if (length < 0) {
        return errno == EAGAIN ? 0 : -errno;
    }
    return 1;
}

int32_t ubi_event_relieve(int32_t fd) {
    struct pollfd wait = {.fd = fd, .events = POLLOUT};
    if (poll(&wait, 1, 0) == 1 && (wait.revents & POLLOUT) != 0) {
        return 0;
    }
    return ubi_event_drain(fd);
}

int32_t ubi_event_create_timer(void) {
    return ubi_result(timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK));
}

int32_t ubi_event_set_timer(int32_t fd, double nanoseconds) {
    uint64_t delay = (uint64_t)nanoseconds;
    struct itimerspec time = {
        .it_value = {.tv_sec = (time_t)(delay / 1000000000), .tv_nsec = (long)(delay % 1000000000)}};
    return ubi_result(timerfd_settime(fd, 0, &time, NULL));
}

static double clock_nanoseconds(clockid_t clock) {
    struct timespec now;
    clock_gettime(clock, &now);
    return (double)now.tv_sec * 1e9 + (double)now.tv_nsec;
}

double ubi_event_clock(void) { return clock_nanoseconds(CLOCK_MONOTONIC); }

double ubi_event_thread_cpu(void) { return clock_nanoseconds(CLOCK_THREAD_CPUTIME_ID); }
