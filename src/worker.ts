/** The entry of every worker thread: its role decides what is loaded. */
import type { ObjectMakerData } from "./copy/object-maker.ts";
import type { ObjectReaderData } from "./copy/object-reader.ts";
import type { StripeWorkerData } from "./device/stripe-worker.ts";
import { AssertionError } from "./errors.ts";
import { adoptNativeLibrary } from "./ffi/library.ts";
import type { WorkerStart } from "./ffi/worker.ts";
import type { ServerWorkerData } from "./serve/server-worker.ts";
import type { ArchiveWorkerData } from "./sources/archive-worker.ts";
import type { RemoteWorkerData } from "./sources/remote-worker.ts";
import type { UblkQueueData } from "./ublk/queue-worker.ts";
import type { ControlWorkerData } from "./vhost/control-worker.ts";
import type { QueueWorkerData } from "./vhost/queue-worker.ts";

/** Runs the role that the first message gives this thread, to its end. */
export async function runWorker(start: WorkerStart<unknown>): Promise<void> {
  adoptNativeLibrary(start);
  switch (start.role) {
    case "vhost-control": {
      const { runControlWorker } = await import("./vhost/control-worker.ts");
      return runControlWorker(start.data as ControlWorkerData); // what the role was spawned with
    }
    case "vhost-queue": {
      const { runQueueWorker } = await import("./vhost/queue-worker.ts");
      return runQueueWorker(start.data as QueueWorkerData); // what the role was spawned with
    }
    case "object-maker": {
      const { runObjectMaker } = await import("./copy/object-maker.ts");
      return runObjectMaker(start.data as ObjectMakerData); // what the role was spawned with
    }
    case "object-reader": {
      const { runObjectReader } = await import("./copy/object-reader.ts");
      return runObjectReader(start.data as ObjectReaderData); // what the role was spawned with
    }
    case "ublk-queue": {
      const { runUblkQueueWorker } = await import("./ublk/queue-worker.ts");
      return runUblkQueueWorker(start.data as UblkQueueData); // what the role was spawned with
    }
    case "stripes": {
      const { runStripeWorker } = await import("./device/stripe-worker.ts");
      return runStripeWorker(start.data as StripeWorkerData); // what the role was spawned with
    }
    case "archive-source": {
      const { runArchiveWorker } = await import("./sources/archive-worker.ts");
      return runArchiveWorker(start.data as ArchiveWorkerData); // what the role was spawned with
    }
    case "remote-source": {
      const { runRemoteWorker } = await import("./sources/remote-worker.ts");
      return runRemoteWorker(start.data as RemoteWorkerData); // what the role was spawned with
    }
    case "stripe-server": {
      const { runServerWorker } = await import("./serve/server-worker.ts");
      return runServerWorker(start.data as ServerWorkerData); // what the role was spawned with
    }
    default:
      throw new AssertionError(`a worker was started as ${start.role}`);
  }
}
