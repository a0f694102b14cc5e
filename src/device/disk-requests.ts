/** What carries a queue's requests out on a disk, with or without lazy stripes: the same for every front end. */
import { XtsCipher } from "../disk/cipher.ts";
import type { IoEngine } from "../disk/io-engine.ts";
import { openEngine } from "../disk/open-engine.ts";
import { RequestExecutor, type RequestRunner } from "../disk/request-executor.ts";
import type { RequestTable } from "../disk/request-table.ts";
import { signalEvent } from "../ffi/event.ts";
import { StripeState } from "../stripes/stripe-state.ts";
import type { DiskDescription, SharedDiskState } from "./disk-device.ts";
import { LazyRequests } from "./lazy-requests.ts";

export interface DiskRequestOptions {
  readonly disk: DiskDescription;
  readonly shared: SharedDiskState;
  readonly queue: number;
  readonly queues: number;
  /** eventfds by queue. */
  readonly wakeFds: readonly number[];
  readonly requests: RequestTable;
  /** Of the disk, in this thread. */
  readonly engine: IoEngine;
  readonly ioEngine: "io_uring" | "sync";
  readonly bufferLimitBytes: number;
  /** A watch of `engine` that is free: its completions need nothing but another turn. */
  readonly imageWatchId: number;
}

export function openDiskRequests(options: DiskRequestOptions): RequestRunner {
  const { disk, shared, queue, queues, wakeFds, requests, engine } = options;
  const { stripes } = disk;
  const cipher = disk.cipherContext === 0 ? undefined : XtsCipher.attach(disk.cipherContext);
  const queueFds = wakeFds.slice(0, queues);
  // Behind the queues comes the stripe worker.
  const members = stripes === undefined ? queueFds : [...queueFds, stripes.stripeWakeFd];
  const wakeQueue = (member: number) => {
    signalEvent(members[member] ?? -1);
  };
  const state = stripes === undefined ? undefined : new StripeState(stripes.state);
  const executor = new RequestExecutor({
    engine,
    disk,
    cipher,
    requests,
    bufferLimitBytes: options.bufferLimitBytes,
    flush: { shared: shared.flush, queue, queues: members.length },
    subBlockLock: shared.subBlockLock,
    wakeQueue,
    noteSyncFailure: () => state?.noteBaseFailure(),
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
    wakeQueue,
    wakeStripeWorker: () => {
      signalEvent(stripes.stripeWakeFd);
    },
  });
}
