/**
 * The lock that keeps two programs from working on one disk: flock(2) on the open file description that
 * does the I/O. After a process was killed the kernel still ends its last I/O; until then the lock is
 * taken without a visible holder, and that is waited for.
 */
import { existsSync, fstatSync, readFileSync } from "node:fs";
import { errnoText, UbiError } from "../errors.ts";
import { lockFile } from "../ffi/file.ts";
import { log } from "../log.ts";

/** How long the I/O of a dead process is waited for. */
const WAIT_MS = 10_000;
const RETRY_MS = 10;
const EAGAIN = -11;

/**
 * Takes the lock, or waits for that of a dead process.
 * @param what the file as the user knows it, for messages
 * @throws UbiError E_DISK_LOCKED naming the holder's pid where it can be seen
 */
export function lockDisk(fd: number, what: string, mode: "exclusive" | "shared"): void {
  const deadline = performance.now() + WAIT_MS;
  let isTold = false;
  for (;;) {
    const result = lockFile(fd, mode);
    if (result === 0) {
      return;
    }
    if (result !== EAGAIN) {
      throw new UbiError("E_DISK_LOCKED", `cannot lock ${what}: ${errnoText(result)}`);
    }
    const pid = holderOf(fd);
    if (pid !== undefined || performance.now() > deadline) {
      throw inUse(what, pid);
    }
    if (!isTold) {
      log.info("waiting for the last I/O of the process that had the disk before", { disk: what });
      isTold = true;
    }
    Bun.sleepSync(RETRY_MS);
  }
}

// --- internal ---

function inUse(what: string, pid: number | undefined): UbiError {
  const holder =
    pid === undefined ? "another process (its pid cannot be seen from here)" : `process ${pid}`;
  return new UbiError(
    "E_DISK_LOCKED",
    `${what} is in use by ${holder}; two programs must not work on one disk`,
  );
}

/** The living process that holds a lock on the file, from /proc/locks. */
function holderOf(fd: number): number | undefined {
  const info = fstatSync(fd, { bigint: true });
  const major = Number(((info.dev >> 8n) & 0xfffn) | ((info.dev >> 32n) & ~0xfffn));
  const minor = Number((info.dev & 0xffn) | ((info.dev >> 12n) & 0xffffff00n));
  const hex = (value: number) => value.toString(16).padStart(2, "0");
  const name = ` ${hex(major)}:${hex(minor)}:${info.ino} `;
  const line = readLocks().find(
    (text) => text.includes(name) && text.includes("FLOCK") && !text.includes("->"),
  );
  const pid = Number(line?.trim().split(/\s+/)[4]);
  return pid > 0 && isAlive(pid) ? pid : undefined;
}

/** A process that is dead but not yet waited for by its parent counts as dead: its I/O still ends. */
function isAlive(pid: number): boolean {
  try {
    // "pid (name) state ...": the name may hold anything.
    const state = readFileSync(`/proc/${pid}/stat`, "latin1").split(") ").at(-1)?.charAt(0);
    return state !== "Z" && state !== "X";
  } catch {
    return existsSync(`/proc/${pid}`);
  }
}

function readLocks(): readonly string[] {
  try {
    return readFileSync("/proc/locks", "utf8").split("\n");
  } catch {
    return []; // no /proc: the holder stays unnamed
  }
}
