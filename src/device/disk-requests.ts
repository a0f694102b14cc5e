/** What a front end has done by a disk, with or without lazy stripes: the requests of a queue, and a sync. */
import { XtsCipher } from "../disk/cipher.ts";
import { FlushGroup } from "../disk/flush-group.ts";
import type { IoEngine } from "../disk/io-engine.ts";
import { openEngine } from "../disk/open-engine.ts";
import { RequestExecutor, type RequestRunner } from "../disk/request-executor.ts";
import type { RequestTable } from "../disk/request-table.ts";
import { signalEvent } from "../ffi/event.ts";
import { syncFileData } from "../ffi/file.ts";
import { StripeState } from "../stripes/stripe-state.ts";
import type { DiskDescription, SharedDiskState } from "./disk-device.ts";
import { LazyRequests } from "./lazy-requests.ts";

/** The disk and those who work on it. */
interface DiskMembers {
  readonly disk: DiskDescription;
  readonly shared: SharedDiskState;
  /** eventfds, one a queue. */
  readonly wakeFds: readonly number[];
}

interface DiskRequestOptions extends DiskMembers {
  readonly queue: number;
  readonly requests: RequestTable;
  /** Of the disk, in this thread. */
  readonly engine: IoEngine;
  readonly ioEngine: "io_uring" | "sync";
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
    openImageEngine: ({ fd }) =>
      openEngine(options.ioEngine, requests.slotsMax, { fd, isWriteThrough: false }),
    wakeQueue: group.wake,
    wakeStripeWorker: () => {
      signalEvent(stripes.stripeWakeFd);
    },
  });
}

/** Makes durable what all queues have written so far. The calling thread waits. False when that fails. */
export function syncDisk(members: DiskMembers, timeoutMs: number): boolean {
  const sync = () => syncFileData(members.disk.fd) === 0;
  const { shared } = members;
  return FlushGroup.syncAndWait({ ...groupOf(members), shared: shared.flush, timeoutMs, sync });
}

// --- internal ---

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
