/**
 * The lock that keeps two programs from working on one disk: flock(2) on the open file description that
 * does the I/O. After a process was killed the kernel still ends its last I/O; until then the lock is
 * taken without a visible holder, and that is waited for.
 */
import { constants, existsSync, fstatSync, openSync, readFileSync } from "node:fs";
import { errnoText, errorText, UbiError } from "../errors.ts";
import { lockFile } from "../ffi/file.ts";
import { log } from "../log.ts";

/** How long the I/O of a dead process is waited for. */
const WAIT_MS = 10_000;
const RETRY_MS = 10;
/** A process that ends gives its lock up a moment before its claim. */
const CLAIM_WAIT_MS = 1_000;
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
    const pid = lockHolderPid(fd);
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

/**
 * Claims a block device, as a mount does: neither is possible while the other lasts, also for a partition of
 * it. Returns the descriptor that holds the claim; it does no I/O, so the claim goes when it is closed.
 * @throws UbiError E_DISK_LOCKED, E_DISK_OPEN
 */
export function claimDevice(fd: number, what: string): number {
  const deadline = performance.now() + CLAIM_WAIT_MS;
  for (;;) {
    try {
      // O_EXCL without O_CREAT is for block devices: open(2).
      return openSync(
        `/proc/self/fd/${fd}`,
        constants.O_RDONLY | constants.O_EXCL | constants.O_NONBLOCK,
      );
    } catch (error) {
      if (!(error instanceof Error && "code" in error && error.code === "EBUSY")) {
        throw new UbiError("E_DISK_OPEN", `cannot claim ${what}: ${errorText(error)}`);
      }
      if (performance.now() > deadline) {
        const users = "it, or a part of it, is mounted, swapped to, or part of another device";
        throw new UbiError("E_DISK_LOCKED", `${what} is in use: ${users}`);
      }
    }
    Bun.sleepSync(RETRY_MS);
  }
}

/** Who has the file locked, for messages: of one that is locked. */
export function lockHolder(fd: number): string {
  return holderText(lockHolderPid(fd));
}

/** The process that has the file locked, as far as it can be seen without a lock. */
export function seenLockHolder(fd: number): string | undefined {
  const pid = lockHolderPid(fd);
  return pid === undefined ? undefined : holderText(pid);
}

/** The living process that holds a lock on the file, from /proc/locks. */
export function lockHolderPid(fd: number): number | undefined {
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

// --- internal ---

function inUse(what: string, pid: number | undefined): UbiError {
  const holder = holderText(pid);
  return new UbiError(
    "E_DISK_LOCKED",
    `${what} is in use by ${holder}; two programs must not work on one disk`,
  );
}

function holderText(pid: number | undefined): string {
  return pid === undefined
    ? "another process (its pid cannot be seen from here)"
    : `process ${pid}`;
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
