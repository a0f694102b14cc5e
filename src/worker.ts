/** The entry of every worker thread: its role decides what is loaded. */
import type { ObjectMakerData } from "./copy/object-maker.ts";
import type { ObjectReaderData } from "./copy/object-reader.ts";
import type { ScrubberData } from "./copy/stripe-scrubber.ts";
import type { SharedPulse } from "./device/heartbeat.ts";
import type { StripeWorkerData } from "./device/stripe-worker.ts";
import { AssertionError } from "./errors.ts";
import { adoptNativeLibrary } from "./ffi/library.ts";
import type { WorkerStart } from "./ffi/worker.ts";
import { adoptLogSettings, isStandardErrorSocket, setLineSender } from "./log.ts";
import type { ServerWorkerData } from "./serve/server-worker.ts";
import type { ArchiveWorkerData } from "./sources/archive-worker.ts";
import type { RemoteWorkerData } from "./sources/remote-worker.ts";
import type { UblkQueueData } from "./ublk/queue-worker.ts";
import type { ControlWorkerData } from "./vhost/control-worker.ts";
import type { QueueWorkerData } from "./vhost/queue-worker-data.ts";

/** What each role runs with what it was spawned with. */
const ROLES = {
  "archive-source": async (data: ArchiveWorkerData) =>
    (await import("./sources/archive-worker.ts")).runArchiveWorker(data),
  "object-maker": async (data: ObjectMakerData) =>
    (await import("./copy/object-maker.ts")).runObjectMaker(data),
  "object-reader": async (data: ObjectReaderData) =>
    (await import("./copy/object-reader.ts")).runObjectReader(data),
  "remote-source": async (data: RemoteWorkerData) =>
    (await import("./sources/remote-worker.ts")).runRemoteWorker(data),
  "stripe-scrubber": async (data: ScrubberData) =>
    (await import("./copy/stripe-scrubber.ts")).runStripeScrubber(data),
  "stripe-server": async (data: ServerWorkerData) =>
    (await import("./serve/server-worker.ts")).runServerWorker(data),
  stripes: async (data: StripeWorkerData & { readonly pulse: SharedPulse }) =>
    (await import("./device/stripe-worker.ts")).runStripeWorker(data),
  "ublk-queue": async (data: UblkQueueData) =>
    (await import("./ublk/queue-worker.ts")).runUblkQueueWorker(data),
  "vhost-control": async (data: ControlWorkerData) =>
    (await import("./vhost/control-worker.ts")).runControlWorker(data),
  "vhost-queue": async (data: QueueWorkerData) =>
    (await import("./vhost/queue-thread.ts")).runQueueWorker(data),
};

/** Runs the role that the first message gives this thread, to its end. */
export async function runWorker({
  role,
  log,
  data,
  ...native
}: WorkerStart<unknown>): Promise<void> {
  adoptLogSettings(log);
  adoptNativeLibrary(native);
  if (isStandardErrorSocket()) {
    setLineSender((await import("./ffi/socket.ts")).sendBytes);
  }
  if (!isRole(role)) {
    throw new AssertionError(`a worker was started as ${role}`);
  }
  await ROLES[role](data as never); // what the role was spawned with
}

// --- internal ---

function isRole(role: string): role is keyof typeof ROLES {
  return Object.hasOwn(ROLES, role);
}
