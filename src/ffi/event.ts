/** eventfd, timers and clocks (ffi/event.h). */
import { assert, errnoText, UbiError } from "../errors.ts";
import { link } from "./library.ts";

const native = link({
  ubi_event_create: { args: [], returns: "i32" },
  ubi_event_check: { args: ["i32"], returns: "i32" },
  ubi_event_signal: { args: ["i32"], returns: "i32" },
  ubi_event_signal_asking: { args: ["i32"], returns: "i32" },
  ubi_event_drain: { args: ["i32"], returns: "i32" },
  ubi_event_relieve: { args: ["i32"], returns: "i32" },
  ubi_event_create_timer: { args: [], returns: "i32" },
  ubi_event_set_timer: { args: ["i32", "f64"], returns: "i32" },
  ubi_event_clock: { args: [], returns: "f64" },
  ubi_event_thread_cpu: { args: [], returns: "f64" },
});

/** A close-on-exec, non-blocking eventfd. @throws UbiError E_MEMORY */
export function createEvent(): number {
  const fd = native.ubi_event_create();
  if (fd < 0) {
    throw new UbiError("E_MEMORY", `cannot create an eventfd: ${errnoText(fd)}`);
  }
  return fd;
}

/** 1: an eventfd that never blocks its writer; 2: an eventfd that may; negative: not an eventfd. */
export function checkEvent(fd: number): number {
  return native.ubi_event_check(fd);
}

/** Adds 1 to the counter. A full counter (-EAGAIN) wakes its reader as well. */
export function signalEvent(fd: number): number {
  return native.ubi_event_signal(fd);
}

/** `signalEvent` for a descriptor that may block. */
export function signalEventAsking(fd: number): number {
  return native.ubi_event_signal_asking(fd);
}

/** Empties the counter without waiting: 1 when it held something, 0 when not, or a negative errno. */
export function drainEvent(fd: number): number {
  return native.ubi_event_drain(fd);
}

/** Empties a counter that is full, so that a thread that waits in its `signalEvent` goes on. */
export function relieveEvent(fd: number): number {
  return native.ubi_event_relieve(fd);
}

/** A timer that is waited for, and drained, like an eventfd. @throws UbiError E_MEMORY */
export function createTimer(): number {
  const fd = native.ubi_event_create_timer();
  if (fd < 0) {
    throw new UbiError("E_MEMORY", `cannot create a timer: ${errnoText(fd)}`);
  }
  return fd;
}

/** Lets the timer expire once, `delayNs` from now; 0 stops it. */
export function setTimer(fd: number, delayNs: number): void {
  const result = native.ubi_event_set_timer(fd, delayNs);
  assert(result === 0, "a timer of ours is set");
}

/** CLOCK_MONOTONIC, nanoseconds. */
export function clockNs(): number {
  return native.ubi_event_clock();
}

/** CPU time of the calling thread, nanoseconds. */
export function threadCpuNs(): number {
  return native.ubi_event_thread_cpu();
}
