import { afterEach, expect, test } from "bun:test";
import { XtsCipher } from "../disk/cipher.ts";
import { FakeEngine } from "../disk/fake-engine.ts";
import { FlushGroup } from "../disk/flush-group.ts";
import { Arena } from "../ffi/arena.ts";
import { createEvent } from "../ffi/event.ts";
import { createSharedMemory, mapFile, unmap, viewOf } from "../ffi/memory.ts";
import { closeDescriptor } from "../ffi/socket.ts";
import { StripeState } from "../stripes/stripe-state.ts";
import { thisMachine } from "./machine.ts";
import { type StripeEnds, StripeHost } from "./stripe-host.ts";

const FILE_BYTES = 64 * 1024;
const EIO = -5;
const EINVAL = -22;
const EOPNOTSUPP = -95;
const KEY = Uint8Array.from({ length: 64 }, (_, i) => i);

const worlds: World[] = [];

afterEach(() => {
  for (const world of worlds.splice(0)) {
    world[Symbol.dispose]();
  }
});

test("a write of the base that comes short is continued", () => {
  const world = started({ baseFault: shortOnce(4096) });
  world.buffer.fill(7, 0, 16_384);
  world.host.writeBase(1, 8192, world.address, 16_384);
  world.run();
  expect(world.told).toEqual(["base 1: 0"]);
  expect(world.base.slice(8192, 24_576)).toEqual(new Uint8Array(16_384).fill(7));
  expect(world.base[24_576]).toBe(0);
});

test("a write of the base that fails is told at once", () => {
  const world = started({ baseFault: () => EIO });
  world.host.writeBase(0, 0, world.address, 4096);
  world.run();
  expect(world.told).toEqual([`base 0: ${EIO}`]);
});

test("a base that cannot free blocks: the caller is told to write", () => {
  const world = started({ baseFault: ({ kind }) => (kind === "allocate" ? EINVAL : undefined) });
  world.host.zeroBase(0, 0, 4096);
  world.run();
  expect(world.told).toEqual([`base 0: ${EOPNOTSUPP}`]);
});

test("zeros are looked for only where zeros of the base read as zeros", () => {
  const plain = started({});
  const enciphered = started({ isEncrypted: true });
  expect(plain.host.isZero(plain.address, 4096)).toBe(true);
  expect(enciphered.host.isZero(enciphered.address, 4096)).toBe(false);
  plain.buffer[4095] = 1;
  expect(plain.host.isZero(plain.address, 4096)).toBe(false);
  expect(plain.host.isZero(plain.address, 4095)).toBe(true);
});

test("a metadata sector is enciphered on a copy, by its number in the file", () => {
  const world = started({ isEncrypted: true });
  world.host.sectorPlaces[3]?.fill(0x5a);
  world.host.writeSector(3, 9);
  world.run();
  expect(world.told).toEqual(["sector 3: true"]);
  expect(world.host.sectorPlaces[3]).toEqual(new Uint8Array(512).fill(0x5a));
  const written = world.metadata.slice(9 * 512, 10 * 512);
  expect(written).not.toEqual(new Uint8Array(512).fill(0x5a));
  world.buffer.set(written);
  world.cipher?.decrypt(9, 1, world.address, world.address);
  expect(world.buffer.slice(0, 512)).toEqual(new Uint8Array(512).fill(0x5a));
});

test("a sector that cannot be enciphered counts as not written", () => {
  const world = started({ isEncrypted: true });
  world.cipher?.[Symbol.dispose]();
  world.host.writeSector(3, 9);
  world.run();
  expect(world.told).toEqual(["sector 3: false"]);
});

test("metadata is flushed by itself; a write or flush that fails is told", () => {
  let failing = "sync";
  const world = started({ metadataFault: ({ kind }) => (kind === failing ? EIO : undefined) });
  world.host.flushMetadata();
  world.run();
  failing = "write";
  world.host.writeSector(0, 1);
  world.host.flushMetadata();
  world.run();
  expect(world.told).toEqual(["metadata: false", "sector 0: false", "metadata: true"]);
});

test("a sync of the base that fails is counted for all before it is told", () => {
  const world = started({ baseFault: ({ kind }) => (kind === "sync" ? EIO : undefined) });
  world.host.flushBase();
  world.run();
  expect(world.told).toEqual(["flush: false"]);
  expect(world.state.baseFailures()).toBe(1);
});

test("a sync that was interrupted is done again, and is no failure", () => {
  let interruptions = 2;
  const world = started({
    baseFault: ({ kind }) => (kind === "sync" && interruptions-- > 0 ? -4 : undefined),
  });
  world.host.flushBase();
  world.run();
  expect(world.told).toEqual(["flush: true"]);
  expect(world.state.baseFailures()).toBe(0);
});

test("ends of what was just handed over are told at once, and then there is no sleep", () => {
  const world = started({ isMetadataDoneAtOnce: true });
  world.host.writeSector(0, 1);
  world.host.flushMetadata();
  expect(world.sleepsBehindTurn()).toBe(false);
  expect(world.told).toEqual(["sector 0: true", "metadata: true"]);
  expect(world.sleepsBehindTurn()).toBe(true);
});

test("a flush that another member's sync has answered is told at once, and then there is no sleep", () => {
  const world = started({});
  world.host.flushBase();
  Atomics.add(new Int32Array(world.flush), 1, 1); // a sync began and ended: FlushGroup's words
  Atomics.add(new Int32Array(world.flush), 2, 1);
  expect(world.sleepsBehindTurn()).toBe(false);
  expect(world.told).toEqual(["flush: true"]);
  expect(world.sleepsBehindTurn()).toBe(true);
});

// --- internal ---

type Fault = NonNullable<ConstructorParameters<typeof FakeEngine>[0]["fault"]>;

interface Start {
  readonly baseFault?: Fault;
  readonly metadataFault?: Fault;
  readonly isEncrypted?: boolean;
  /** As the synchronous engine does. */
  readonly isMetadataDoneAtOnce?: boolean;
}

function started(start: Start): World {
  const world = new World(start);
  worlds.push(world);
  return world;
}

/** The first write moves so many bytes only. */
function shortOnce(bytes: number): Fault {
  let isDone = false;
  return () => {
    if (isDone) {
      return undefined;
    }
    isDone = true;
    return bytes;
  };
}

class WatchedEngine extends FakeEngine {
  isDoneAtOnce = false;
  hasSlept = false;

  override submit(completionsMin = 0): void {
    super.submit();
    this.hasSlept = completionsMin > 0;
    while (this.isDoneAtOnce && this.underWay.length > 0) {
      this.finish(0);
    }
  }
}

/** A host over two files in memory, and a service that writes down what it is told. */
class World implements Disposable {
  readonly told: string[] = [];
  readonly state = StripeState.create(new Uint8Array(8), { queues: 1, buffers: 2 });
  readonly cipher: XtsCipher | undefined;
  readonly host: StripeHost;
  readonly base: Uint8Array;
  readonly metadata: Uint8Array;
  readonly buffer: Uint8Array;
  readonly address: number;
  readonly #arena = new Arena(FILE_BYTES);
  readonly #files = [createSharedMemory(FILE_BYTES), createSharedMemory(FILE_BYTES)] as const;
  readonly #mappings: readonly number[];
  readonly flush = new SharedArrayBuffer(FlushGroup.sharedBytes(2));
  readonly #engines: readonly WatchedEngine[];
  readonly #service: StripeEnds = {
    fetcher: { baseWritten: (buffer, result) => this.told.push(`base ${buffer}: ${result}`) },
    commit: {
      baseFlushed: (isOk) => this.told.push(`flush: ${isOk}`),
      sectorWritten: (place, isOk) => this.told.push(`sector ${place}: ${isOk}`),
      metadataFlushed: (isOk) => this.told.push(`metadata: ${isOk}`),
    },
  };
  readonly #wakeFd = createEvent();
  readonly #queueFd = createEvent();

  constructor({ baseFault, metadataFault, isEncrypted = false, ...start }: Start) {
    const engine = (fd: number, fault: Fault | undefined) =>
      new WatchedEngine({
        fd,
        requestsMax: 64,
        blockBytes: 1,
        memoryAlignBytes: 1,
        ...(fault === undefined ? {} : { fault }),
      });
    const baseEngine = engine(this.#files[0], baseFault);
    const metadataEngine = engine(this.#files[1], metadataFault);
    metadataEngine.isDoneAtOnce = start.isMetadataDoneAtOnce === true;
    this.#engines = [baseEngine, metadataEngine];
    this.#mappings = this.#files.map((fd) =>
      mapFile({ fd, offsetBytes: 0, lengthBytes: FILE_BYTES, writable: true }),
    );
    const [base = 0, metadata = 0] = this.#mappings;
    this.base = new Uint8Array(viewOf(base, FILE_BYTES));
    this.metadata = new Uint8Array(viewOf(metadata, FILE_BYTES));
    const { address, view } = this.#arena.bytes(FILE_BYTES);
    this.address = address;
    this.buffer = view;
    this.cipher = isEncrypted ? XtsCipher.create(KEY) : undefined;
    this.host = new StripeHost({
      machine: thisMachine("sync"),
      state: this.state,
      baseEngine,
      metadataEngine,
      wakeFd: this.#wakeFd,
      sourceFd: -1,
      cipher: this.cipher,
      flush: {
        shared: this.flush,
        queues: 1,
        queueWakeFds: [this.#queueFd],
      },
    });
  }

  /** Hands over, then waits for ever. */
  sleepsBehindTurn(): boolean {
    this.host.submit(this.#service);
    this.host.wait(Number.POSITIVE_INFINITY, 0);
    const hasSlept = this.#engines[0]?.hasSlept === true;
    this.host.tellEnds(this.#service);
    return hasSlept;
  }

  /** Until nothing is under way. */
  run(): void {
    const service = this.#service;
    do {
      this.host.submit(service);
      this.host.wait(0, 0);
      for (const engine of this.#engines) {
        while (engine.underWay.length > 0) {
          engine.finish(0);
        }
      }
      this.host.tellEnds(service);
    } while (this.#engines.some((engine) => engine.hasWork()));
  }

  [Symbol.dispose](): void {
    this.host[Symbol.dispose]();
    this.#arena[Symbol.dispose]();
    for (const mapping of this.#mappings) {
      unmap(mapping, FILE_BYTES);
    }
    for (const fd of [...this.#files, this.#wakeFd, this.#queueFd]) {
      closeDescriptor(fd);
    }
  }
}
