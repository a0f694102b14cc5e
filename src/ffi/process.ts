/** The process and its threads (ffi/process.h). */
import { nameLogThread } from "../log.ts";
import { link } from "./library.ts";

const native = link({
  ubi_process_harden: { args: [], returns: "i32" },
  ubi_process_flush_io: { args: [], returns: "i32" },
  ubi_process_pin: { args: ["u32"], returns: "i32" },
  ubi_process_may_run_on: { args: ["u32"], returns: "i32" },
  ubi_process_name_thread: { args: ["ptr"], returns: "i32" },
  ubi_process_cpu: { args: ["i32"], returns: "f64" },
});

/** No core dumps and no tracing by the same user: keys are in this memory. 0 or a negative errno. */
export function hardenProcess(): number {
  return native.ubi_process_harden();
}

/**
 * For a process that the kernel writes through: when it needs memory, the kernel does not free some by I/O, which might be
 * that of the process itself. Counts for the calling thread and those it starts from here on. 0 or a negative errno.
 */
export function becomeIoFlusher(): number {
  return native.ubi_process_flush_io();
}

/** Pins the calling thread to a CPU. 0 or a negative errno. */
export function pinThread(cpu: number): number {
  return native.ubi_process_pin(cpu);
}

/** Whether the calling thread may run on a CPU. */
export function mayRunOn(cpu: number): boolean {
  return native.ubi_process_may_run_on(cpu) === 1;
}

/** Names the calling thread for `top -H` and debuggers, where 15 bytes are kept, and for the log. */
export function nameThread(name: string): void {
  nameLogThread(name);
  const bytes = new Uint8Array(1024);
  new TextEncoder().encodeInto(name, bytes.subarray(0, 15));
  native.ubi_process_name_thread(bytes);
}

/** CPU time that a process has used, nanoseconds, with that of its ended threads; or a negative errno. */
export function processCpuNs(pid: number): number {
  return native.ubi_process_cpu(pid);
}
