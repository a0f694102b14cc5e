/**
 * Memory that comes and goes under requests that hang: messages are answered at once, each request keeps the memory that
 * it was taken with, and that memory is unmapped behind its last one.
 */
import { expect } from "bun:test";
import { readFileSync, renameSync } from "node:fs";
import { encodeMemoryTable, REQUEST } from "../../src/formats/vhost-user.ts";
import { FEATURE, REQUEST_TYPE } from "../../src/formats/virtio-blk.ts";
import { FuseImage, missingFuse } from "../support/fuse-image.ts";
import { HostileClient, STATUS_UNSET, WRITE } from "../support/hostile-client.ts";
import { LazyDisk, MIB } from "../support/lazy-disk.ts";
import { PluggedMemory } from "../support/plugged-memory.ts";
import { skipUnless } from "../support/requires.ts";
import { until } from "../support/until.ts";

const missing = missingFuse();
const testWithFuse = skipUnless(missing ?? "", missing === undefined);

/** Twice the size of the client's own memory: its mappings are told from others by it. */
const PLUG_BYTES = 2 * MIB;
const PLUG = 0x9_0000_0000;
const DATA_BYTES = 64 * 1024;
/** A stripe that nobody has fetched, and the first behind the image, which needs no fetch. */
const SLOW_SECTOR = (5 * MIB) / 512;
const READY_SECTOR = (17 * MIB) / 512;
/**
 * Of a message while a request hangs, which it does for as long as the test likes; the answer takes below a millisecond on a
 * machine with nothing else to do.
 */
const ANSWER_MS = 1_000;

testWithFuse(
  "memory is taken away and given anew under a read that hangs: old memory for the old read, new for the new",
  async () => {
    await using world = await World.create();
    const { client, disk } = world;
    using old = plug(0x11);
    using fresh = plug(0x22);
    old.add(client);
    expect(world.mappings()).toBe(1);
    world.halt();
    world.read(0, SLOW_SECTOR);
    await until("the read waits for its stripe", () => world.isTaken(1));
    expect(world.timed(() => old.remove(client))).toBeLessThan(ANSWER_MS);
    expect(world.mappings()).toBe(1);
    expect(world.timed(() => fresh.add(client))).toBeLessThan(ANSWER_MS);
    expect(world.mappings()).toBe(2);
    world.read(1, READY_SECTOR);
    await until("the new read is answered", () => client.status(4) === 0);
    expect(fresh.bytes.subarray(0, DATA_BYTES).every((byte) => byte === 0)).toBe(true);
    expect(client.status(1)).toBe(STATUS_UNSET);
    expect(world.mappings()).toBe(2);
    fresh.bytes.fill(0x22);
    world.goOn();
    await until("the old read is answered", () => client.status(1) === 0);
    const offset = SLOW_SECTOR * 512;
    const expected = disk.image.subarray(offset, offset + DATA_BYTES);
    expect(Buffer.compare(old.bytes.subarray(0, DATA_BYTES), expected)).toBe(0);
    expect(fresh.bytes.every((byte) => byte === 0x22)).toBe(true);
    await until("the old memory is unmapped", () => world.mappings() === 1);
    expect(world.timed(() => fresh.remove(client))).toBeLessThan(ANSWER_MS);
    expect(world.mappings()).toBe(0);
    client.waitUsed();
    client.waitUsed();
    expect(client.isServed(READY_SECTOR)).toBe(true);
  },
);

testWithFuse(
  "a table sent again under a read that hangs keeps the mappings of what is the same, and the ring runs on",
  async () => {
    await using world = await World.create();
    const { client } = world;
    using more = plug(0x33);
    const table = encodeMemoryTable([client.region, more.region]);
    client.command(REQUEST.SET_MEM_TABLE, table, [client.memoryFd, more.fd]);
    const places = world.places();
    world.halt();
    world.read(0, SLOW_SECTOR);
    await until("the read waits for its stripe", () => world.isTaken(1));
    const send = () => client.command(REQUEST.SET_MEM_TABLE, table, [client.memoryFd, more.fd]);
    expect(world.timed(send)).toBeLessThan(ANSWER_MS);
    expect(world.places()).toEqual(places);
    world.read(1, READY_SECTOR);
    await until("a read behind it is answered", () => client.status(4) === 0);
    world.goOn();
    await until("the slow read is answered", () => client.status(1) === 0);
    expect(world.places()).toEqual(places);
  },
);

testWithFuse(
  "a front end that leaves under a read that hangs has all its memory unmapped behind that read",
  async () => {
    await using world = await World.create();
    using more = plug(0x44);
    more.add(world.client);
    world.halt();
    world.read(0, SLOW_SECTOR);
    await until("the read waits for its stripe", () => world.isTaken(1));
    more.remove(world.client);
    world.client[Symbol.dispose]();
    expect(world.mappings()).toBe(1);
    world.goOn();
    await until("nothing is mapped", () => world.places().length === 0);
    using next = HostileClient.attach(world.disk.socketPath);
    expect(next.isServed(READY_SECTOR)).toBe(true);
  },
);

// --- internal ---

/** Always at the same guest address. */
function plug(value: number): PluggedMemory {
  const memory = new PluggedMemory({ guestAddress: PLUG, sizeBytes: PLUG_BYTES });
  memory.bytes.fill(value);
  return memory;
}

/** A disk whose image can be halted, and a client. */
class World implements AsyncDisposable {
  readonly disk: LazyDisk;
  readonly client: HostileClient;
  readonly #image: FuseImage;
  readonly #pid: number;

  static async create(): Promise<World> {
    const disk = new LazyDisk({
      diskBytes: 18 * MIB,
      imageBytes: 16 * MIB,
      isEncrypted: false,
    });
    await disk.init();
    renameSync(disk.files.file("image.raw"), disk.files.file("real.raw"));
    const image = new FuseImage(disk.files.file("real.raw"), disk.files.file("image.raw"));
    const { pid } = await disk.start();
    return new World(disk, image, pid);
  }

  private constructor(disk: LazyDisk, image: FuseImage, pid: number) {
    this.disk = disk;
    this.#image = image;
    this.#pid = pid;
    this.client = HostileClient.attach(disk.socketPath, { features: [FEATURE.RING_EVENT_IDX] });
  }

  halt(): void {
    this.#image.halt();
  }

  goOn(): void {
    this.#image.goOn();
  }

  /** Offers the read number `index` into the plugged memory: its status is that of head 1 or 4. */
  read(index: number, sector: number): void {
    const { client } = this;
    const head = 3 * index;
    const data = { address: PLUG, length: DATA_BYTES, flags: WRITE };
    client.setChain(head, [
      client.header(head, REQUEST_TYPE.IN, sector),
      data,
      client.statusByte(head + 1),
    ]);
    client.offer(head);
    client.kick();
  }

  /** The ring has been looked at up to `index`: its event index says so. */
  isTaken(index: number): boolean {
    return this.client.availableEvent() === index;
  }

  /** Milliseconds that a message takes. */
  timed(message: () => void): number {
    const startMs = performance.now();
    message();
    return performance.now() - startMs;
  }

  /** Mappings of plugged memory in the backend. */
  mappings(): number {
    return this.places().filter(({ bytes }) => bytes === PLUG_BYTES).length;
  }

  /** All mappings of shared memory in the backend. */
  places(): { readonly at: string; readonly bytes: number }[] {
    const lines = readFileSync(`/proc/${this.#pid}/maps`, "utf8").split("\n");
    return lines
      .filter((line) => line.includes("/memfd:ubiblk-shared"))
      .map((line) => {
        const [from = "", to = ""] = (line.split(" ")[0] ?? "").split("-");
        return { at: from, bytes: Number.parseInt(to, 16) - Number.parseInt(from, 16) };
      });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.goOn();
    this.client[Symbol.dispose]();
    await this.disk.stop();
    await this.#image[Symbol.asyncDispose]();
    await this.disk[Symbol.asyncDispose]();
  }
}
