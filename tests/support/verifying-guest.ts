/**
 * A guest that writes and reads back all the time, several requests at once, and connects again when its backend goes,
 * as QEMU does with `reconnect`: memory and ring stay as they are.
 *
 * Each slot has a part of the disk to itself and knows what it wrote last to each place.
 */
import { drainEvent } from "../../src/ffi/event.ts";
import { closeDescriptor, connectSocket, PollSet } from "../../src/ffi/socket.ts";
import { encodeMemoryTable, REQUEST } from "../../src/formats/vhost-user.ts";
import { REQUEST_TYPE } from "../../src/formats/virtio-blk.ts";
import {
  at,
  DATA,
  ENTRIES,
  HEADERS,
  HostileClient,
  STATUS_UNSET,
  USED,
  WRITE,
} from "./hostile-client.ts";
import type { SeededRandom } from "./random.ts";

const CONNECTS_MAX = 20;
const CONNECT_PAUSE_MS = 100;
const SLOTS = 12;
/** Header, data, status. */
const DESCRIPTORS = 3;
const REQUEST_BYTES = 16 * 1024;
const REQUEST_SECTORS = REQUEST_BYTES / 512;
/** Of one slot: requests never lie across each other. */
const PLACES = 32;
/** So large has the disk to be. */
export const GUEST_DISK_BYTES = SLOTS * PLACES * REQUEST_BYTES;
const WAIT_MS = 20;
const CALL = 0;
const SOCKET = 1;
const { OUT, IN } = REQUEST_TYPE;

interface Slot {
  place: number;
  isWrite: boolean;
  isUnderWay: boolean;
  /** By place: what was acknowledged last; 0 for never written. */
  readonly generations: Uint32Array;
}

export class VerifyingGuest implements Disposable {
  readonly #socketPath: string;
  readonly #random: SeededRandom;
  readonly #client: HostileClient;
  readonly #poll = new PollSet(2);
  readonly #slots: readonly Slot[];
  #generation = 1;
  #taken = 0;
  #lastMs = performance.now();
  completed = 0;
  connections = 1;
  /** The longest time without a completion since `restartClock`. */
  gapMs = 0;

  constructor(socketPath: string, random: SeededRandom) {
    this.#socketPath = socketPath;
    this.#random = random;
    this.#client = HostileClient.attach(socketPath);
    this.#slots = Array.from({ length: SLOTS }, () => ({
      place: 0,
      isWrite: false,
      isUnderWay: false,
      generations: new Uint32Array(PLACES),
    }));
  }

  /** Works until the promise is settled; returns what it came to. */
  async during<T>(promise: Promise<T>): Promise<T> {
    let isSettled = false;
    const settled = () => {
      isSettled = true;
    };
    promise.then(settled, settled);
    while (!isSettled) {
      this.step();
      await Bun.sleep(0);
    }
    return await promise;
  }

  /** Works until so many more requests have ended. */
  async work(requests: number): Promise<void> {
    const end = this.completed + requests;
    while (this.completed < end) {
      this.step();
      await Bun.sleep(0);
    }
  }

  restartClock(): void {
    this.gapMs = 0;
    this.#lastMs = performance.now();
  }

  /** Sends what there is room for, waits a little, checks what came. @throws Error when something is not as written */
  step(): void {
    this.#send();
    this.#poll.watch(CALL, this.#client.callFd);
    this.#poll.watch(SOCKET, this.#client.socket);
    this.#poll.wait(WAIT_MS);
    this.#take();
    if (this.#poll.events(SOCKET) !== 0) {
      this.connections += 1;
      this.#reconnect();
      this.#client.kick();
    }
  }

  /** Writes everywhere: an enciphered disk has anything where nobody wrote. */
  async fill(): Promise<void> {
    await this.#everywhere(true);
  }

  /** Ends what is under way, then reads all that was written. */
  async verifyAll(): Promise<void> {
    await this.#everywhere(false);
  }

  /**
   * After a backend that was killed: what it had taken is offered anew. (It may have been carried out, in any order.)
   */
  startAnew(): void {
    const client = this.#client;
    client.bytes.fill(0, 0, HEADERS);
    this.#taken = 0;
    this.connections += 1;
    this.#reconnect();
    for (const slot of this.#slots.filter(({ isUnderWay }) => isUnderWay)) {
      this.#submit(slot);
    }
  }

  [Symbol.dispose](): void {
    this.#client[Symbol.dispose]();
    this.#poll[Symbol.dispose]();
  }

  // --- internal ---

  async #everywhere(isWrite: boolean): Promise<void> {
    for (let place = 0; place < PLACES; place++) {
      for (const slot of this.#slots) {
        while (slot.isUnderWay) {
          this.#wait();
        }
        slot.place = place;
        slot.isWrite = isWrite;
        this.#submit(slot);
      }
    }
    while (this.#slots.some(({ isUnderWay }) => isUnderWay)) {
      this.#wait();
    }
    await Bun.sleep(0);
  }

  #wait(): void {
    this.#poll.watch(CALL, this.#client.callFd);
    this.#poll.watch(SOCKET, -1);
    this.#poll.wait(WAIT_MS);
    this.#take();
  }

  /** As at first, but that the ring goes on where it stopped: behind what was used. */
  #reconnect(): void {
    const client = this.#client;
    this.#connectAgain();
    client.command(REQUEST.SET_MEM_TABLE, encodeMemoryTable([client.region]), [client.memoryFd]);
    client.startRing(0, client.usedIndex());
  }

  /** As front ends do: a backend that ends, or has just handed over, lets go of whoever has just come. */
  #connectAgain(): void {
    const client = this.#client;
    for (let tries = 1; ; tries++) {
      closeDescriptor(client.socket);
      client.socket = connectSocket(this.#socketPath);
      if (client.socket < 0) {
        throw new Error(`cannot connect to ${this.#socketPath}: ${client.socket}`);
      }
      try {
        client.negotiate([]);
        return;
      } catch (error) {
        if (tries === CONNECTS_MAX) {
          throw error;
        }
        Bun.sleepSync(CONNECT_PAUSE_MS);
      }
    }
  }

  #send(): void {
    for (const slot of this.#slots) {
      if (!slot.isUnderWay) {
        slot.place = this.#random.below(PLACES);
        slot.isWrite = this.#random.oneIn(2);
        this.#submit(slot);
      }
    }
  }

  #submit(slot: Slot): void {
    const client = this.#client;
    const index = this.#slots.indexOf(slot);
    const head = index * DESCRIPTORS;
    const sector = (index * PLACES + slot.place) * REQUEST_SECTORS;
    const memory = DATA + index * REQUEST_BYTES;
    if (slot.isWrite) {
      this.#generation += 1;
      slot.generations[slot.place] = this.#generation;
      this.#words(memory).fill(this.#generation ^ sector);
    } else {
      this.#words(memory).fill(0xdead_beef);
    }
    slot.isUnderWay = true;
    client.setChain(head, [
      client.header(head, slot.isWrite ? OUT : IN, sector),
      { address: at(memory), length: REQUEST_BYTES, flags: slot.isWrite ? 0 : WRITE },
      client.statusByte(head),
    ]);
    client.offer(head);
    client.kick();
  }

  #take(): void {
    const client = this.#client;
    drainEvent(client.callFd);
    while (client.usedIndex() !== this.#taken) {
      const head = client.memory.getUint32(USED + 4 + (this.#taken % ENTRIES) * 8, true);
      this.#taken = (this.#taken + 1) & 0xffff;
      const index = head / DESCRIPTORS;
      const slot = this.#slots[index];
      if (slot?.isUnderWay !== true || client.status(head) !== 0) {
        const status = client.status(head) === STATUS_UNSET ? "none" : client.status(head);
        throw new Error(`descriptor ${head} ended with status ${status}: ${JSON.stringify(slot)}`);
      }
      slot.isUnderWay = false;
      this.completed += 1;
      const nowMs = performance.now();
      this.gapMs = Math.max(this.gapMs, nowMs - this.#lastMs);
      this.#lastMs = nowMs;
      this.#check(slot, index);
    }
  }

  #check({ isWrite, place, generations }: Slot, index: number): void {
    const generation = generations[place] ?? 0;
    const sector = (index * PLACES + place) * REQUEST_SECTORS;
    const expected = generation === 0 ? 0 : (generation ^ sector) >>> 0;
    const words = this.#words(DATA + index * REQUEST_BYTES);
    if (!isWrite && !words.every((word) => word === expected)) {
      const is = words.find((word) => word !== expected)?.toString(16);
      throw new Error(`sector ${sector} reads as ${is}, not ${expected.toString(16)}`);
    }
  }

  #words(offset: number): Uint32Array {
    return new Uint32Array(this.#client.bytes.buffer, offset, REQUEST_BYTES / 4);
  }
}
