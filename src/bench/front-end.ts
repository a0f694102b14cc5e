/**
 * A vhost-user-blk front end without a virtual machine: connects, negotiates, shares its memory and
 * starts the queues. The order of messages is QEMU's.
 */
import { UbiError } from "../errors.ts";
import { closeDescriptor } from "../ffi/socket.ts";
import { isPackedSize } from "../formats/packed-ring.ts";
import {
  decodeInflight,
  encodeInflight,
  encodeMemoryRegion,
  encodeMemoryTable,
  encodeVringAddress,
  encodeVringState,
  hasBit,
  type Inflight,
  PROTOCOL_FEATURE,
  REQUEST,
} from "../formats/vhost-user.ts";
import { type BlockConfig, FEATURE, SECTOR_BYTES } from "../formats/virtio-blk.ts";
import { isRingSize, RING_ENTRIES_MAX } from "../formats/virtio-ring.ts";
import { Connection } from "./connection.ts";
import { DriverQueue } from "./driver-queue.ts";
import { descriptorsPerSlot, GuestMemory, layOutQueue, type QueueShape } from "./guest-memory.ts";
import { type Negotiated, negotiate, requireBit } from "./negotiation.ts";

/** QEMU's default, and the least that rings get here. */
const RING_ENTRIES_MIN = 128;
/** Of a packed ring: no power of two, and chains lie across its end. */
const PACKED_ENTRIES_MIN = 100;
const MEMORY_BYTES_MAX = 16 * 2 ** 30;
const RECONNECT_PAUSE_MS_MAX = 50;

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
  readonly isPacked: boolean;
  readonly usesReplyAck: boolean;
  /** Share memory by ADD_MEM_REG instead of SET_MEM_TABLE. */
  readonly usesMemorySlots: boolean;
  /** Outlive the backend: `reconnect`. */
  readonly isReconnecting: boolean;
  /** Keep what the backend notes of requests in flight, if it can. */
  readonly usesInflight: boolean;
}

/** What a backend noted of requests in flight, kept for the next one. */
interface KeptInflight {
  readonly inflight: Inflight;
  readonly fd: number;
}

export class FrontEnd implements Disposable {
  readonly queues: readonly DriverQueue[];
  readonly config: BlockConfig;
  readonly features: bigint;
  readonly #options: FrontEndOptions;
  readonly #memory: GuestMemory;
  readonly #stack: DisposableStack;
  readonly #inflight: KeptInflight | undefined;
  #connection: Connection;
  #reconnects = 0;

  private constructor(parts: {
    readonly options: FrontEndOptions;
    readonly connection: Connection;
    readonly negotiated: Negotiated;
    readonly memory: GuestMemory;
    readonly queues: readonly DriverQueue[];
    readonly inflight: KeptInflight | undefined;
    readonly stack: DisposableStack;
  }) {
    this.queues = parts.queues;
    this.config = parts.negotiated.config;
    this.features = parts.negotiated.features;
    this.#options = parts.options;
    this.#connection = parts.connection;
    this.#memory = parts.memory;
    this.#inflight = parts.inflight;
    this.#stack = parts.stack;
  }

  /** @throws UbiError E_SOCKET, E_BENCH, E_PROTOCOL, E_MEMORY */
  static connect(options: FrontEndOptions): FrontEnd {
    return options.isReconnecting
      ? untilFound(options, () => FrontEnd.#connectOnce(options))
      : FrontEnd.#connectOnce(options);
  }

  static #connectOnce(options: FrontEndOptions): FrontEnd {
    using stack = new DisposableStack();
    const connection = new Connection(options.socketPath, options.timeoutMs);
    try {
      const negotiated = negotiate(connection, options);
      const shape = queueShape(options);
      const queueBytes = layOutQueue(shape).totalBytes;
      checkMemory(queueBytes * options.queueCount);
      const memory = stack.use(new GuestMemory(queueBytes * options.queueCount));
      const usesEventIndex = hasBit(negotiated.features, FEATURE.RING_EVENT_IDX);
      const queues = Array.from({ length: options.queueCount }, (_, index) =>
        stack.use(
          new DriverQueue({ index, shape, memory, base: index * queueBytes, usesEventIndex }),
        ),
      );
      const inflight = hasBit(negotiated.protocol, PROTOCOL_FEATURE.INFLIGHT_SHMFD)
        ? askInflight(connection, options.queueCount, shape.entries)
        : undefined;
      stack.defer(() => inflight && closeDescriptor(inflight.fd));
      const parts = { options, connection, negotiated, memory, queues, inflight };
      const frontEnd = new FrontEnd({ ...parts, stack: stack.move() });
      frontEnd.#start(connection, negotiated.protocol, ({ ringBase }) => ringBase);
      return frontEnd;
    } catch (error) {
      connection[Symbol.dispose]();
      throw error;
    }
  }

  get connection(): Connection {
    return this.#connection;
  }

  /** How often a lost backend was found again. */
  get reconnects(): number {
    return this.#reconnects;
  }

  get isReconnecting(): boolean {
    return this.#options.isReconnecting;
  }

  /**
   * Waits for the backend that comes after a lost one, and gives it the rings as they are. All that the lost one
   * answered was reaped.
   * @throws UbiError when none comes in time, or it is another disk
   */
  reconnect(): void {
    this.#connection[Symbol.dispose]();
    this.#connection = untilFound(this.#options, () => this.#connectAgain());
    this.#reconnects += 1;
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
    this.#connection[Symbol.dispose]();
    this.#stack.dispose();
  }

  // --- internal ---

  #connectAgain(): Connection {
    const connection = new Connection(this.#options.socketPath, this.#options.timeoutMs);
    try {
      const { features, protocol, config } = negotiate(connection, this.#options);
      if (features !== this.features || config.capacitySectors < this.config.capacitySectors) {
        throw new UbiError("E_PROTOCOL", "the backend came back as another one");
      }
      this.#start(connection, protocol, ({ lostRingBase }) => lostRingBase);
      for (const queue of this.queues) {
        queue.wake();
      }
      return connection;
    } catch (error) {
      connection[Symbol.dispose]();
      throw error;
    }
  }

  #start(connection: Connection, protocol: bigint, baseOf: (queue: DriverQueue) => number): void {
    if (this.#inflight !== undefined) {
      const { inflight, fd } = this.#inflight;
      connection.command(REQUEST.SET_INFLIGHT_FD, encodeInflight(inflight), [fd]);
    }
    shareMemory(connection, this.#memory, protocol, this.#options);
    for (const queue of this.queues) {
      startQueue(connection, queue, baseOf(queue));
    }
  }
}

// --- internal ---

/** Tries again while there is no backend, or one that ends in the middle of it. @throws UbiError of the last try */
function untilFound<T>(options: FrontEndOptions, connect: () => T): T {
  const deadline = performance.now() + options.timeoutMs;
  for (let pauseMs = 1; ; pauseMs = Math.min(2 * pauseMs, RECONNECT_PAUSE_MS_MAX)) {
    try {
      return connect();
    } catch (error) {
      const isLost =
        error instanceof UbiError && (error.code === "E_SOCKET" || error.code === "E_BENCH");
      if (!isLost || performance.now() > deadline) {
        throw error;
      }
    }
    Bun.sleepSync(pauseMs);
  }
}

function askInflight(connection: Connection, queueCount: number, queueSize: number): KeptInflight {
  const asked = encodeInflight({ mmapSizeBytes: 0, mmapOffset: 0, queueCount, queueSize });
  const { reply, descriptors } = connection.askForDescriptors(REQUEST.GET_INFLIGHT_FD, asked);
  const [fd, ...others] = descriptors;
  if (fd === undefined || others.length > 0) {
    descriptors.forEach(closeDescriptor);
    const count = `${descriptors.length} descriptors`;
    throw new UbiError("E_PROTOCOL", `GET_INFLIGHT_FD was answered with ${count}`);
  }
  return { inflight: decodeInflight(reply), fd };
}

function queueShape(options: FrontEndOptions): QueueShape {
  const { queueDepth: depth, segmentsMax, dataBytesMax, isIndirect, isPacked } = options;
  const shape = { entries: 0, depth, segmentsMax, dataBytesMax, isIndirect, isPacked };
  const needed = isIndirect ? depth : depth * descriptorsPerSlot(shape);
  const entries = isPacked
    ? Math.max(PACKED_ENTRIES_MIN, needed)
    : Math.max(RING_ENTRIES_MIN, 2 ** Math.ceil(Math.log2(needed)));
  if (!(isPacked ? isPackedSize(entries) : isRingSize(entries))) {
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

function startQueue(connection: Connection, queue: DriverQueue, base: number): void {
  const state = (value: number) => encodeVringState({ index: queue.index, value });
  const index = BigInt(queue.index);
  connection.command(REQUEST.SET_VRING_NUM, state(queue.shape.entries));
  connection.command(REQUEST.SET_VRING_BASE, state(base));
  connection.command(REQUEST.SET_VRING_ADDR, encodeVringAddress(queue.address));
  connection.commandU64(REQUEST.SET_VRING_CALL, index, [queue.callFd]);
  connection.commandU64(REQUEST.SET_VRING_ERR, index, [queue.errorFd]);
  connection.commandU64(REQUEST.SET_VRING_KICK, index, [queue.kickFd]);
  connection.command(REQUEST.SET_VRING_ENABLE, state(1));
}
