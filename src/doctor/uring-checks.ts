/** io_uring: whether it is allowed, how well the kernel does it, and whether all that a disk asks for works. */

import { UringEngine } from "../disk/uring-engine.ts";
import { PARAMS_WORDS, setUpRing } from "../disk/uring-setup.ts";
import { errnoText, UbiError } from "../errors.ts";
import { Arena } from "../ffi/arena.ts";
import { FALLOC_FL_KEEP_SIZE, FALLOC_FL_PUNCH_HOLE } from "../ffi/file.ts";
import { createSharedMemory } from "../ffi/memory.ts";
import { closeDescriptor } from "../ffi/socket.ts";
import { uringRegister } from "../ffi/uring.ts";
import { u32 } from "../ffi/view.ts";
import type { Finding } from "./finding.ts";
import { numberNamed, systemText } from "./system-file.ts";

export function* examineUring(): Generator<Finding> {
  using arena = new Arena(ARENA_BYTES);
  const params = arena.words(PARAMS_WORDS);
  let fd: number;
  try {
    fd = setUpRing(8, params);
  } catch (error) {
    if (!(error instanceof UbiError)) {
      throw error;
    }
    yield refusalFinding({
      message: error.message,
      setting: systemText("/proc/sys/kernel/io_uring_disabled"),
      isFiltered: (numberNamed(systemText("/proc/self/status"), "Seccomp") ?? 0) > 0,
    });
    return;
  }
  yield setUpFinding(u32(params.view, FLAGS_WORD));
  yield operationFinding(supportedOperations(fd, arena));
  closeDescriptor(fd);
  yield* workFindings(arena);
}

/** @param facts `setting` is that of kernel.io_uring_disabled; `isFiltered`: system calls are */
export function refusalFinding(facts: {
  readonly message: string;
  readonly setting: string | undefined;
  readonly isFiltered: boolean;
}): Finding {
  const { message, setting, isFiltered } = facts;
  const slower = 'or set tuning.io_engine = "sync", which is slower';
  const isTurnedOff = setting === "1" || setting === "2";
  const how = isTurnedOff
    ? `sysctl kernel.io_uring_disabled=0 (it is ${setting})`
    : isFiltered
      ? "allow io_uring_setup, io_uring_enter and io_uring_register in the sandbox's filter of system calls"
      : "use Linux 5.13 or later with CONFIG_IO_URING";
  return { check: "set-up", verdict: "warn", found: message, advice: `${how}, ${slower}` };
}

/** @param flags that the kernel took for the ring */
export function setUpFinding(flags: number): Finding {
  const check = "set-up";
  if ((flags & IORING_SETUP_DEFER_TASKRUN) !== 0) {
    return { check, verdict: "ok", found: "work is done in the thread that asked (Linux 6.1)" };
  }
  const found = "allowed, but the kernel interrupts threads to do its work";
  return { check, verdict: "warn", found, advice: "Linux 6.1 or later takes less CPU" };
}

/** @param supported numbers of operations; undefined where the kernel does not tell */
export function operationFinding(supported: ReadonlySet<number> | undefined): Finding {
  const check = "operations";
  if (supported === undefined) {
    return { check, verdict: "skip", found: "the kernel does not tell which it has" };
  }
  const missing = Object.entries(OPERATIONS).filter(([, number]) => !supported.has(number));
  if (missing.length > 0) {
    const found = `the kernel has no ${missing.map(([name]) => name).join(", ")}`;
    return { check, verdict: "warn", found, advice: "use a newer kernel" };
  }
  const ublk = supported.has(IORING_OP_URING_CMD) ? "" : "; not those of ublk";
  return {
    check,
    verdict: "ok",
    found: `all ${Object.keys(OPERATIONS).length} that disks use${ublk}`,
  };
}

// --- internal ---

const ARENA_BYTES = 64 * 1024;
const FLAGS_WORD = 2;
const IORING_SETUP_DEFER_TASKRUN = 1 << 13;
const IORING_REGISTER_PROBE = 8;
const IO_URING_OP_SUPPORTED = 1;
const PROBE_OPERATIONS = 256;
/** struct io_uring_probe: 16 bytes, then 8 for each operation. */
const PROBE_BYTES = 16 + PROBE_OPERATIONS * 8;
const IORING_OP_URING_CMD = 46;
const OPERATIONS: Readonly<Record<string, number>> = {
  READV: 1,
  WRITEV: 2,
  FSYNC: 3,
  READ_FIXED: 4,
  WRITE_FIXED: 5,
  POLL_ADD: 6,
  POLL_REMOVE: 7,
  FALLOCATE: 17,
  READ: 22,
  WRITE: 23,
};
const MEMORY_BYTES = 16 * 1024;

function supportedOperations(fd: number, arena: Arena): ReadonlySet<number> | undefined {
  const { view, address } = arena.bytes(PROBE_BYTES);
  if (uringRegister(fd, IORING_REGISTER_PROBE, address, PROBE_OPERATIONS) < 0) {
    return undefined;
  }
  const known = Array.from({ length: view[1] ?? 0 }, (_, number) => number);
  const isSupported = (number: number) =>
    ((view[16 + number * 8 + 2] ?? 0) & IO_URING_OP_SUPPORTED) !== 0;
  return new Set(known.filter(isSupported));
}

/** Writes, reads and frees memory that is a file, as a queue does with a disk. */
function* workFindings(arena: Arena): Generator<Finding> {
  const fd = createSharedMemory(MEMORY_BYTES);
  try {
    using engine = new UringEngine(8, { fd, isWriteThrough: false });
    const { address } = arena.bytes(MEMORY_BYTES);
    yield engine.registerBuffer(0, address, MEMORY_BYTES)
      ? { check: "registered buffers", verdict: "ok", found: "accepted" }
      : {
          check: "registered buffers",
          verdict: "warn",
          found: "refused: each request costs more",
          advice: "Linux 5.19 or later, and enough locked memory (see limits)",
        };
    const failed = failedRequests(engine, address);
    yield failed.length === 0
      ? { check: "requests", verdict: "ok", found: "a write, a read, a sync and a discard worked" }
      : {
          check: "requests",
          verdict: "fail",
          found: failed.join(", "),
          advice: 'set tuning.io_engine = "sync"',
        };
  } finally {
    closeDescriptor(fd);
  }
}

function failedRequests(engine: UringEngine, address: number): readonly string[] {
  const size = 4096;
  const hole = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE;
  const requests = [
    { name: "write", moved: size, prepare: () => engine.prepareWrite(1, 0, address, size) },
    { name: "read", moved: size, prepare: () => engine.prepareRead(2, 0, address, size) },
    { name: "sync", moved: 0, prepare: () => engine.prepareSync(3) },
    { name: "discard", moved: 0, prepare: () => engine.prepareAllocate(4, hole, 0, size) },
  ];
  return requests.flatMap(({ name, moved, prepare }) => {
    prepare();
    engine.submit(1);
    const result = engine.completedResult(0);
    engine.release(1);
    return result === moved ? [] : [`${name}: ${errnoText(result)}`];
  });
}
