/** What a front end has done by a disk, with or without lazy stripes: the requests of a queue, and a sync. */
import { XtsCipher } from "../disk/cipher.ts";
import { FlushGroup } from "../disk/flush-group.ts";
import type { IoEngine } from "../disk/io-engine.ts";
import { RequestExecutor, type RequestRunner } from "../disk/request-executor.ts";
import type { RequestTable } from "../disk/request-table.ts";
import { SlotWaits } from "../disk/slot-waits.ts";
import { assert, errnoText } from "../errors.ts";
import { signalEvent } from "../ffi/event.ts";
import { syncFileData } from "../ffi/file.ts";
import { f64, u8 } from "../ffi/view.ts";
import { LogLimiter } from "../log.ts";
import { StripeState } from "../stripes/stripe-state.ts";
import type { DiskDescription, SharedDiskState } from "./disk-device.ts";
import { LazyRequests } from "./lazy-requests.ts";
import type { Machine } from "./machine.ts";
import { OPERATION_NAMES } from "./queue-statistics.ts";

/** A guest goes on asking a disk that is full or dying: so many lines a queue tell it, in this time. */
const FAILURES_TOLD_MAX = 3;
const FAILURES_WINDOW_MS = 60_000;

/** What syncs need of the disk and those who work on it. */
export interface DiskMembers {
  readonly disk: Pick<DiskDescription, "fd" | "stripes">;
  readonly shared: Pick<SharedDiskState, "flush">;
  /** eventfds, one a queue. */
  readonly wakeFds: readonly number[];
}

interface DiskRequestOptions extends DiskMembers {
  readonly disk: DiskDescription;
  readonly shared: SharedDiskState;
  readonly queue: number;
  readonly requests: RequestTable;
  /** Of the disk, in this thread. */
  readonly engine: IoEngine;
  readonly machine: Pick<Machine, "openEngine">;
  readonly bufferLimitBytes: number;
  /** A watch of `engine` that is free: its completions need nothing but another turn. */
  readonly imageWatchId: number;
  /** See ExecutorOptions. */
  readonly ownBuffers?: Int32Array;
}

export function openDiskRequests(options: DiskRequestOptions): RequestRunner {
  const { disk, shared, queue, requests, engine } = options;
  const { stripes } = disk;
  const cipher = disk.cipherContext === 0 ? undefined : XtsCipher.attach(disk.cipherContext);
  const group = groupOf(options);
  const waits = waitsOf(shared, queue, requests.slotsMax);
  const executor = new RequestExecutor({
    engine,
    disk,
    cipher,
    requests,
    bufferLimitBytes: options.bufferLimitBytes,
    flush: { shared: shared.flush, queue, queues: group.queues },
    subBlockLock: shared.subBlockLock,
    wakeQueue: group.wake,
    noteSyncFailure: group.noteFailure,
    noteFailure: failureTeller(queue, requests),
    waits,
    ownBuffers: options.ownBuffers,
  });
  if (stripes === undefined) {
    return executor;
  }
  return new LazyRequests({
    executor,
    requests,
    stripes,
    diskSectors: disk.sectors,
    cipher,
    queue,
    engine,
    imageWatchId: options.imageWatchId,
    waits,
    openImageEngine: ({ fd }) =>
      options.machine.openEngine(requests.slotsMax, { fd, isWriteThrough: false }),
    wakeQueue: group.wake,
    wakeStripeWorker: () => {
      signalEvent(stripes.stripeWakeFd);
    },
  });
}

/**
 * Makes durable what all queues have written so far. The calling thread waits. False when that fails.
 * @param how for simulations: the sync itself, and what happens while another one runs
 */
export function syncDisk(
  members: DiskMembers,
  timeoutMs: number,
  how: { readonly sync?: () => boolean; readonly pause?: () => void } = {},
): boolean {
  const sync = () => syncFileData(members.disk.fd) === 0;
  const { shared } = members;
  return FlushGroup.syncAndWait({
    ...groupOf(members),
    shared: shared.flush,
    timeoutMs,
    sync,
    ...how,
  });
}

/**
 * The same in two steps: what it returns is false also when any sync has failed in between, which may have taken along
 * what was written before, and have told others.
 */
export function beginSync(...how: Parameters<typeof syncDisk>): () => boolean {
  const { flush } = how[0].shared;
  const failures = FlushGroup.failuresOf(flush);
  return () => syncDisk(...how) && FlushGroup.failuresOf(flush) === failures;
}

// --- internal ---

/** Tells the log what the disk answered; the guest is told no more than that it failed. */
function failureTeller(queue: number, requests: RequestTable) {
  const limiter = new LogLimiter(FAILURES_TOLD_MAX, FAILURES_WINDOW_MS);
  return (slot: number, result: number) => {
    const bytes = f64(requests.bytes, slot);
    const short = `only ${result} of ${bytes} bytes were moved`;
    limiter.warn("the disk failed a request", {
      queue,
      operation: OPERATION_NAMES[u8(requests.operation, slot)] ?? "",
      sector: f64(requests.sector, slot),
      bytes,
      cause: result < 0 ? errnoText(result) : short,
    });
  };
}

function waitsOf({ waits }: SharedDiskState, queue: number, slots: number): SlotWaits {
  const shared = waits[queue];
  assert(shared !== undefined, "every queue has a place for its waits");
  return new SlotWaits(shared, slots);
}

/** Who shares the syncs of the disk: the queues, and behind them the stripe worker. */
function groupOf(members: DiskMembers) {
  const { stripes } = members.disk;
  const fds = stripes === undefined ? members.wakeFds : [...members.wakeFds, stripes.stripeWakeFd];
  const state = stripes === undefined ? undefined : new StripeState(stripes.state);
  return {
    queues: fds.length,
    wake: (member: number) => {
      signalEvent(fds[member] ?? -1);
    },
    noteFailure: () => state?.noteBaseFailure(),
  };
}
