/** Whether another program serves the file system that a file lies in. */
import { readFileSync } from "node:fs";

/**
 * Files of FUSE tell the kernel that a read would not wait, and it waits in the middle of `submit`: with it all
 * else that this thread serves. The file system is found without a question to it, which would wait as well.
 */
export function isServedByProgram(fd: number): boolean {
  try {
    const mount = /^mnt_id:\s*(\d+)$/m.exec(readFileSync(`/proc/self/fdinfo/${fd}`, "latin1"))?.[1];
    const line = readFileSync("/proc/self/mountinfo", "latin1")
      .split("\n")
      .find((text) => text.startsWith(`${mount} `));
    return /^(fuse|virtiofs)/.test(line?.split(" - ")[1] ?? "");
  } catch {
    return false; // no /proc
  }
}
