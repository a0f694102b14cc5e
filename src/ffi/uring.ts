/** io_uring system calls (ffi/uring.h). Results are as the kernel gives them: counts or negative errno. */
import type { Pointer } from "bun:ffi";
import { link } from "./library.ts";

const native = link({
  ubi_uring_setup: { args: ["u32", "ptr"], returns: "i32" },
  ubi_uring_enter: { args: ["i32", "u32", "u32", "u32"], returns: "i32" },
  ubi_uring_register: { args: ["i32", "u32", "ptr", "u32"], returns: "i32" },
});

/** `paramsAddress`: 120 bytes of struct io_uring_params, read and filled. Returns a descriptor. */
export function uringSetup(entries: number, paramsAddress: number): number {
  return native.ubi_uring_setup(entries, paramsAddress as Pointer);
}

export function uringEnter(fd: number, submit: number, completeMin: number, flags: number): number {
  return native.ubi_uring_enter(fd, submit, completeMin, flags);
}

export function uringRegister(
  fd: number,
  opcode: number,
  argumentAddress: number,
  count: number,
): number {
  return native.ubi_uring_register(fd, opcode, argumentAddress as Pointer, count);
}
