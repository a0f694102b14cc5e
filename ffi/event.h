/* eventfd(2): the kick, call and wake-up descriptors; timers as descriptors; and the monotonic clock. */
#ifndef UBI_EVENT_H
#define UBI_EVENT_H

#include "ubi.h"

int32_t ubi_event_create(void);
/* 1 when the descriptor is an eventfd that never blocks its writer, 2 when it may block, else -EINVAL. */
int32_t ubi_event_check(int32_t fd);
/* Adds 1. -EAGAIN when the counter is full, which wakes its reader as well. */
int32_t ubi_event_signal(int32_t fd);
/* The same for a descriptor that may block: asks first, so that a peer can hardly make the caller wait. */
int32_t ubi_event_signal_asking(int32_t fd);
/* Empties the counter without waiting: 1 when it held something, else 0. */
int32_t ubi_event_drain(int32_t fd);
/* The same where the counter is full: a thread that waits in its signal goes on. */
int32_t ubi_event_relieve(int32_t fd);
/* A timer that is waited for like an event descriptor, and emptied with `drain`. */
int32_t ubi_event_create_timer(void);
/* Lets it expire once, after so many nanoseconds; 0 stops it. */
int32_t ubi_event_set_timer(int32_t fd, double nanoseconds);
/* CLOCK_MONOTONIC in nanoseconds. */
double ubi_event_clock(void);
/* CPU time of the calling thread in nanoseconds. */
double ubi_event_thread_cpu(void);

#endif
