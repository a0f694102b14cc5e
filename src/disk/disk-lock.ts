/**
 * The lock that keeps two programs from working on one disk: flock(2) on the open file description that
 * does the I/O. After a process was killed the kernel still ends its last I/O; until then the lock is
 * taken without a visible holder, and that is waited for.
 */
import { constants, existsSync, fstatSync, openSync, readFileSync } from "node:fs";
import { errnoText, errorText, UbiError } from "../errors.ts";
import { lockFile, markFile } from "../ffi/file.ts";
import { log } from "../log.ts";

/** How long a holder is waited for that cannot be seen: dead, or in another namespace of pids. */
const UNSEEN_WAIT_MS = 10_000;
const MARK_OFFSET = 2 ** 62;
/** How often it is told what is waited for. */
const TELL_MS = 10_000;
const RETRY_MS = 10;
/** A process that ends gives its lock up a moment before its claim. */
const CLAIM_WAIT_MS = 1_000;
const EAGAIN = -11;

/** What else hears of a wait. */
export type LockWait = (what: string) => void;

/**
 * Takes the lock. That of a dead process is waited for as long as it takes: its last writes are still on their way,
 * and nothing may be read or written before them.
 * @param what the file as the user knows it, for messages
 * @param onWait called now and then meanwhile
 * @throws UbiError E_DISK_LOCKED naming the holder's pid where it can be seen
 */
export function lockDisk(
  fd: number,
  what: string,
  mode: "exclusive" | "shared",
  onWait?: LockWait,
): void {
  const startMs = performance.now();
  let toldMs = Number.NEGATIVE_INFINITY;
  for (;;) {
    const result = lockFile(fd, mode);
    if (result === 0) {
      return;
    }
    if (result !== EAGAIN) {
      throw new UbiError("E_DISK_LOCKED", `cannot lock ${what}: ${errnoText(result)}`);
    }
    const nowMs = performance.now();
    const holder = holderOf(fd);
    if (holder.isAlive || (holder.pid === undefined && nowMs - startMs > UNSEEN_WAIT_MS)) {
      throw inUse(what, holder.pid);
    }
    if (nowMs - toldMs >= TELL_MS) {
      toldMs = nowMs;
      const seconds = Math.round((nowMs - startMs) / 1000);
      log[seconds === 0 ? "info" : "warn"](
        "waiting for the last I/O of the process that had the disk before",
        { disk: what, seconds, ...(holder.pid === undefined ? {} : { pid: holder.pid }) },
      );
      onWait?.(what);
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

/**
 * The kernel names the process that took a lock, also when it has handed its file over and ended. So who takes a file
 * over says that it is the holder: by a record lock on a byte behind the end of any file, for nobody but `holderOf`.
 */
export function markHolder(fd: number): void {
  const result = markFile(fd, MARK_OFFSET);
  if (result < 0) {
    log.warn("others cannot see who has the disk", { cause: errnoText(result) });
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
  const { pid, isAlive } = holderOf(fd);
  return isAlive ? pid : undefined;
}

// --- internal ---

interface Holder {
  /** Undefined where the kernel tells none: another namespace has it, or had. */
  readonly pid: number | undefined;
  readonly isAlive: boolean;
}

function holderOf(fd: number): Holder {
  const info = fstatSync(fd, { bigint: true });
  const major = Number(((info.dev >> 8n) & 0xfffn) | ((info.dev >> 32n) & ~0xfffn));
  const minor = Number((info.dev & 0xffn) | ((info.dev >> 12n) & 0xffffff00n));
  const hex = (value: number) => value.toString(16).padStart(2, "0");
  const name = ` ${hex(major)}:${hex(minor)}:${info.ino} `;
  const mark = `${name}${BigInt(MARK_OFFSET)} `;
  const lines = readLocks().filter(
    (text) =>
      (text.includes(mark) || (text.includes(name) && text.includes("FLOCK"))) &&
      !text.includes("->"),
  );
  const pids = lines.map((line) => Number(line.trim().split(/\s+/)[4])).filter((pid) => pid > 0);
  const living = pids.find(isAlive);
  return { pid: living ?? pids[0], isAlive: living !== undefined };
}

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
