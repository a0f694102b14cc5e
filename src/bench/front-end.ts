/**
 * A vhost-user-blk front end without a virtual machine: connects, negotiates, shares its memory and
 * starts the queues. The order of messages is QEMU's.
 */
import { UbiError } from "../errors.ts";
import {
  bitMask,
  decodeConfigPart,
  encodeConfigPart,
  encodeMemoryRegion,
  encodeMemoryTable,
  encodeVringAddress,
  encodeVringState,
  hasBit,
  PROTOCOL_FEATURE,
  REQUEST,
} from "../formats/vhost-user.ts";
import {
  type BlockConfig,
  CONFIG_BYTES,
  decodeBlockConfig,
  FEATURE,
  SECTOR_BYTES,
} from "../formats/virtio-blk.ts";
import { isRingSize, RING_ENTRIES_MAX } from "../formats/virtio-ring.ts";
import { Connection } from "./connection.ts";
import { DriverQueue } from "./driver-queue.ts";
import { descriptorsPerSlot, GuestMemory, layOutQueue, type QueueShape } from "./guest-memory.ts";

/** QEMU's default, and the least that rings get here. */
const RING_ENTRIES_MIN = 128;
const MEMORY_BYTES_MAX = 16 * 2 ** 30;

export interface FrontEndOptions {
  readonly socketPath: string;
  readonly queueCount: number;
  readonly queueDepth: number;
  readonly segmentsMax: number;
  readonly dataBytesMax: number;
  /** How long any single wait for the backend may take. */
  readonly timeoutMs: number;
  readonly usesEventIndex: boolean;
  readonly isIndirect: boolean;
  readonly usesReplyAck: boolean;
  /** Share memory by ADD_MEM_REG instead of SET_MEM_TABLE. */
  readonly usesMemorySlots: boolean;
}

export class FrontEnd implements Disposable {
  readonly connection: Connection;
  readonly queues: readonly DriverQueue[];
  readonly config: BlockConfig;
  readonly features: bigint;
  readonly #stack: DisposableStack;

  private constructor(parts: {
    readonly connection: Connection;
    readonly queues: readonly DriverQueue[];
    readonly config: BlockConfig;
    readonly features: bigint;
    readonly stack: DisposableStack;
  }) {
    this.connection = parts.connection;
    this.queues = parts.queues;
    this.config = parts.config;
    this.features = parts.features;
    this.#stack = parts.stack;
  }

  /** @throws UbiError E_SOCKET, E_BENCH, E_PROTOCOL, E_MEMORY */
  static connect(options: FrontEndOptions): FrontEnd {
    using stack = new DisposableStack();
    const connection = stack.use(new Connection(options.socketPath, options.timeoutMs));
    const { features, protocol, config } = negotiate(connection, options);
    const shape = queueShape(options);
    const queueBytes = layOutQueue(shape).totalBytes;
    checkMemory(queueBytes * options.queueCount);
    const memory = stack.use(new GuestMemory(queueBytes * options.queueCount));
    const queues = Array.from({ length: options.queueCount }, (_, index) =>
      stack.use(
        new DriverQueue({
          index,
          shape,
          memory,
          base: index * queueBytes,
          usesEventIndex: hasBit(features, FEATURE.RING_EVENT_IDX),
        }),
      ),
    );
    shareMemory(connection, memory, protocol, options);
    for (const queue of queues) {
      startQueue(connection, queue);
    }
    return new FrontEnd({ connection, queues, config, features, stack: stack.move() });
  }

  get capacityBytes(): number {
    return this.config.capacitySectors * SECTOR_BYTES;
  }

  hasFeature(bit: number): boolean {
    return hasBit(this.features, bit);
  }

  /** Stops the rings in good order, as a guest that shuts down. */
  stop(): void {
    for (const queue of this.queues) {
      this.connection.ask(
        REQUEST.GET_VRING_BASE,
        encodeVringState({ index: queue.index, value: 0 }),
      );
    }
  }

  [Symbol.dispose](): void {
    this.#stack.dispose();
  }
}

// --- internal ---

const WANTED_FEATURES = bitMask(
  FEATURE.BLK_SIZE_MAX,
  FEATURE.BLK_SEG_MAX,
  FEATURE.BLK_RO,
  FEATURE.BLK_BLK_SIZE,
  FEATURE.BLK_FLUSH,
  FEATURE.BLK_TOPOLOGY,
  FEATURE.BLK_CONFIG_WCE,
  FEATURE.BLK_MQ,
  FEATURE.VHOST_USER_PROTOCOL_FEATURES,
  FEATURE.VERSION_1,
);

interface Negotiated {
  readonly features: bigint;
  readonly protocol: bigint;
  readonly config: BlockConfig;
}

function negotiate(connection: Connection, options: FrontEndOptions): Negotiated {
  const offered = connection.askFirst(REQUEST.GET_FEATURES);
  requireBit(offered, FEATURE.VHOST_USER_PROTOCOL_FEATURES, "protocol features");
  requireBit(offered, FEATURE.VERSION_1, "virtio 1");
  const offeredProtocol = connection.askU64(REQUEST.GET_PROTOCOL_FEATURES);
  requireBit(offeredProtocol, PROTOCOL_FEATURE.CONFIG, "the configuration space");
  const protocol = offeredProtocol & wantedProtocol(options);
  connection.commandU64(REQUEST.SET_PROTOCOL_FEATURES, protocol);
  connection.isAcknowledging = hasBit(protocol, PROTOCOL_FEATURE.REPLY_ACK);
  connection.command(REQUEST.SET_OWNER);
  checkQueueCount(connection, protocol, options.queueCount);
  const part = encodeConfigPart({ offset: 0, flags: 0, bytes: new Uint8Array(CONFIG_BYTES) });
  const reply = connection.ask(REQUEST.GET_CONFIG, part);
  if (reply.length === 0) {
    throw new UbiError("E_PROTOCOL", "the backend has no configuration space");
  }
  const config = decodeBlockConfig(decodeConfigPart(reply).bytes);
  const features = offered & wantedFeatures(options);
  requireChosen(features, options);
  connection.commandU64(REQUEST.SET_FEATURES, features);
  return { features, protocol, config };
}

function wantedProtocol(options: FrontEndOptions): bigint {
  const bits: number[] = [PROTOCOL_FEATURE.MQ, PROTOCOL_FEATURE.CONFIG];
  if (options.usesReplyAck) {
    bits.push(PROTOCOL_FEATURE.REPLY_ACK);
  }
  if (options.usesMemorySlots) {
    bits.push(PROTOCOL_FEATURE.CONFIGURE_MEM_SLOTS);
  }
  return bitMask(...bits);
}

function wantedFeatures(options: FrontEndOptions): bigint {
  const eventIndex = options.usesEventIndex ? bitMask(FEATURE.RING_EVENT_IDX) : 0n;
  const indirect = options.isIndirect ? bitMask(FEATURE.RING_INDIRECT_DESC) : 0n;
  return WANTED_FEATURES | eventIndex | indirect;
}

function requireChosen(features: bigint, options: FrontEndOptions): void {
  if (options.isIndirect) {
    requireBit(features, FEATURE.RING_INDIRECT_DESC, "indirect descriptors");
  }
}

function requireBit(mask: bigint, bit: number, what: string): void {
  if (!hasBit(mask, bit)) {
    throw new UbiError("E_PROTOCOL", `the backend does not offer ${what}`);
  }
}

function checkQueueCount(connection: Connection, protocol: bigint, queueCount: number): void {
  const offered = hasBit(protocol, PROTOCOL_FEATURE.MQ)
    ? Number(connection.askU64(REQUEST.GET_QUEUE_NUM))
    : 1;
  if (queueCount > offered) {
    const queues = `${offered} queue${offered === 1 ? "" : "s"}`;
    const hint = "raise num_queues in its [tuning], or lower --queues";
    throw new UbiError("E_BENCH", `the backend has ${queues}, ${queueCount} are wanted; ${hint}`);
  }
}

function queueShape(options: FrontEndOptions): QueueShape {
  const { queueDepth: depth, segmentsMax, dataBytesMax, isIndirect } = options;
  const shape = { entries: 0, depth, segmentsMax, dataBytesMax, isIndirect };
  const needed = isIndirect ? depth : depth * descriptorsPerSlot(shape);
  const entries = Math.max(RING_ENTRIES_MIN, 2 ** Math.ceil(Math.log2(needed)));
  if (!isRingSize(entries)) {
    throw new UbiError(
      "E_BENCH",
      `${needed} descriptors exceed a ring of ${RING_ENTRIES_MAX}; use --indirect or a lower depth`,
    );
  }
  return { ...shape, entries };
}

function checkMemory(memoryBytes: number): void {
  if (memoryBytes > MEMORY_BYTES_MAX) {
    const gibibytes = Math.ceil(memoryBytes / 2 ** 30);
    throw new UbiError("E_BENCH", `buffers of ${gibibytes} GiB are too many; lower depth or size`);
  }
}

function shareMemory(
  connection: Connection,
  memory: GuestMemory,
  protocol: bigint,
  options: FrontEndOptions,
): void {
  if (!options.usesMemorySlots) {
    const table = encodeMemoryTable([memory.region]);
    connection.command(REQUEST.SET_MEM_TABLE, table, [memory.fd]);
    return;
  }
  requireBit(protocol, PROTOCOL_FEATURE.CONFIGURE_MEM_SLOTS, "memory slots");
  const region = encodeMemoryRegion(memory.region);
  connection.command(REQUEST.ADD_MEM_REG, region, [memory.fd]);
}

function startQueue(connection: Connection, queue: DriverQueue): void {
  const state = (value: number) => encodeVringState({ index: queue.index, value });
  const index = BigInt(queue.index);
  connection.command(REQUEST.SET_VRING_NUM, state(queue.shape.entries));
  connection.command(REQUEST.SET_VRING_BASE, state(0));
  connection.command(REQUEST.SET_VRING_ADDR, encodeVringAddress(queue.address));
  connection.commandU64(REQUEST.SET_VRING_CALL, index, [queue.callFd]);
  connection.commandU64(REQUEST.SET_VRING_ERR, index, [queue.errorFd]);
  connection.commandU64(REQUEST.SET_VRING_KICK, index, [queue.kickFd]);
  connection.command(REQUEST.SET_VRING_ENABLE, state(1));
}
