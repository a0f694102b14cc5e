/**
 * The memory that a configuration makes a server take at most, by the sizes that its parts allocate.
 * What the program itself and its threads take comes on top.
 */
import { stat } from "node:fs/promises";
import type { DeviceConfig, ServerConfig } from "../config/index.ts";
import type { DocumentReport } from "../config/inspect-document.ts";
import { queueSlots, sharedMemory, stripeMemory } from "../device/disk-memory.ts";
import { queueMemory } from "../disk/queue-memory.ts";
import { stripesFitting } from "../formats/metadata.ts";
import { INPUT_BYTES } from "../serve/session-limits.ts";
import { bufferBytes, buffersFor } from "../serve/stripe-reads.ts";
import { queueSizes as ublkQueueSizes } from "../ublk/queue-sizes.ts";
import { TagMemory } from "../ublk/tag-memory.ts";
import { queueSizes as vhostQueueSizes } from "../vhost/queue-sizes.ts";

/** Bytes by what they are for, and their sum as `total`. */
export type MemoryNeed = Readonly<Record<string, number>>;

export async function memoryNeed(
  report: Pick<DocumentReport, "device" | "server" | "backend">,
): Promise<MemoryNeed | undefined> {
  const { device, server, backend } = report;
  if (device !== undefined) {
    return withTotal({
      ...(backend === "vhost" ? vhostNeed(device) : ublkNeed(device)),
      ...(await stripeNeed(device)),
    });
  }
  return server === undefined ? undefined : withTotal(serverNeed(server));
}

// --- internal ---

/** What stripes and files of metadata have unless something else is asked for. */
const USUAL_STRIPE_BYTES = 2 ** 20;
const SIZE_TIMEOUT_MS = 2_000;

function vhostNeed(config: DeviceConfig): MemoryNeed {
  const { tuning } = config;
  const slots = queueSlots(tuning, isLazy(config));
  return queuesNeed(config, vhostQueueSizes(tuning, slots));
}

function ublkNeed(config: DeviceConfig): MemoryNeed {
  const { tuning } = config;
  const { depth, ioBytes, bufferLimitBytes } = ublkQueueSizes(tuning);
  const data = TagMemory.dataBytes({ depth, ioBytes, isZeroCopy: false });
  return {
    request_data: tuning.numQueues * data,
    ...queuesNeed(config, { slots: depth, segmentsPerSlot: 1, bufferLimitBytes }),
  };
}

function queuesNeed(
  { tuning }: DeviceConfig,
  sizes: Parameters<typeof queueMemory>[0],
): MemoryNeed {
  const queues = tuning.numQueues;
  const each = queueMemory(sizes);
  return {
    bounce_buffers: queues * each.bufferBytes,
    requests: queues * each.requestBytes,
    ...(tuning.ioEngine === "io_uring" ? { rings: queues * each.ringBytes } : {}),
    statistics: sharedMemory(queues, sizes.slots),
  };
}

/** Only until all stripes are fetched, where nothing is tracked. */
async function stripeNeed(config: DeviceConfig): Promise<MemoryNeed> {
  const { metadataPath } = config.device;
  if (metadataPath === undefined) {
    return {};
  }
  const size = await sizeOf(metadataPath);
  const stripes = stripesFitting(size ?? 0);
  const queues = config.tuning.numQueues;
  const need = stripeMemory({ stripes, stripeBytes: USUAL_STRIPE_BYTES, queues });
  return {
    fetch_buffers: need.fetchBytes,
    ...(size === undefined ? {} : { stripe_states: need.stateBytes }),
  };
}

function serverNeed({ server }: ServerConfig): MemoryNeed {
  return {
    stripe_buffers: buffersFor(USUAL_STRIPE_BYTES) * bufferBytes(USUAL_STRIPE_BYTES),
    requests: server.maxConnections * INPUT_BYTES,
  };
}

function isLazy({ device }: DeviceConfig): boolean {
  return device.metadataPath !== undefined;
}

/** Undefined when the file is not there, or its file system does not answer. */
async function sizeOf(path: string): Promise<number | undefined> {
  const size = stat(path).then(
    ({ size }) => size,
    () => undefined,
  );
  return await Promise.race([size, Bun.sleep(SIZE_TIMEOUT_MS).then(() => undefined)]);
}

function withTotal(need: MemoryNeed): MemoryNeed {
  return { ...need, total: Object.values(need).reduce((sum, bytes) => sum + bytes, 0) };
}
