/** A front end that talks to a session without a socket between them, and queues that only take notes. */
import { expect } from "bun:test";
import { closeSync, openSync } from "node:fs";
import type { DiskDescription } from "../../src/device/disk-device.ts";
import { UbiError } from "../../src/errors.ts";
import { createEvent } from "../../src/ffi/event.ts";
import { createSharedMemory } from "../../src/ffi/memory.ts";
import {
  bitMask,
  decodeConfigPart,
  decodeU64,
  encodeConfigPart,
  encodeMemoryTable,
  encodeU64,
  encodeVringAddress,
  encodeVringState,
  type MemoryRegion,
  PROTOCOL_FEATURE,
  REQUEST,
  type VringAddress,
} from "../../src/formats/vhost-user.ts";
import { FEATURE } from "../../src/formats/virtio-blk.ts";
import { LogLimiter } from "../../src/log.ts";
import { MemoryMap } from "../../src/vhost/memory-map.ts";
import { MemoryTables } from "../../src/vhost/memory-tables.ts";
import { QueueCommand, START_FIELDS } from "../../src/vhost/queue-mailbox.ts";
import { RingEnds } from "../../src/vhost/ring-ends.ts";
import { Session } from "../../src/vhost/session.ts";
import type { RingMailbox } from "../../src/vhost/vring.ts";

export const QUEUES = 2;
export const MEMORY_BYTES = 0x10_0000;
export const USER = 0x7e00_0000_0000;
export const GUEST = 0x4000_0000;

const DISK: DiskDescription = {
  fd: -1,
  sectors: 8,
  blockBytes: 512,
  physicalBlockBytes: 4096,
  optimalIoBytes: 0,
  isDirect: true,
  memoryAlignBytes: 512,
  discardUnitBytes: 4096,
  isReadOnly: false,
  isNull: false,
  isWriteThrough: false,
  isDiscardOffered: true,
  cipherContext: 0,
  stripes: undefined,
};

/** A queue that notes its commands and answers at once. */
class FakeMailbox implements RingMailbox {
  readonly commands: { readonly command: number; readonly values: readonly number[] }[] = [];
  nextAvailable = 0;
  isStuck = false;
  /** It takes nothing from a ring that it is started with. */
  isLeavingAlone = false;
  /** It takes its time, so that whoever waits looks after it. */
  isSlow = false;
  /** Requests under way that were translated by this table; undefined for none. */
  usedTable: number | undefined;
  #table = 0;

  command(
    command: number,
    values: readonly number[],
    _timeoutMs: number,
    whileWaiting?: () => void,
  ): number {
    this.commands.push({ command, values });
    if (this.isSlow) {
      whileWaiting?.();
    }
    if (this.isStuck) {
      return -1;
    }
    if (command === QueueCommand.reloadMemory) {
      this.#table = values[0] ?? -1;
    }
    if (command === QueueCommand.start) {
      return this.isLeavingAlone ? 1 : 0;
    }
    return command === QueueCommand.stop ? this.nextAvailable : 0;
  }

  oldestTable(): number {
    return this.usedTable ?? this.#table;
  }

  isBusy(): boolean {
    return this.isStuck;
  }

  withdraw(): number {
    return -1;
  }

  last(command: number): readonly number[] | undefined {
    return this.commands.findLast((each) => each.command === command)?.values;
  }

  /** The fields of the last start. */
  started(): Readonly<Record<string, number>> | undefined {
    const values = this.last(QueueCommand.start);
    return values && Object.fromEntries(START_FIELDS.map((field, i) => [field, values[i] ?? -1]));
  }
}

/** A front end that talks to a session without a socket between them. */
export class SessionFrontEnd {
  readonly memory = new MemoryMap(new SharedArrayBuffer(MemoryTables.sharedBytes));
  readonly session: Session;
  readonly ringEnds = new RingEnds([]);
  sectors = DISK.sectors;
  syncCount = 0;
  canSync = true;
  readonly region: MemoryRegion = {
    guestAddress: GUEST,
    sizeBytes: MEMORY_BYTES,
    userAddress: USER,
    mmapOffset: 0,
  };
  readonly #mailboxes = Array.from({ length: QUEUES }, () => new FakeMailbox());

  constructor() {
    this.session = new Session({
      disk: DISK,
      sectors: () => this.sectors,
      limits: { segSizeMax: 65_536, segCountMax: 4, numQueues: QUEUES },
      memory: this.memory,
      mailboxes: this.#mailboxes,
      beginSync: () => () => {
        this.syncCount += 1;
        return this.canSync;
      },
      cache: { isWriteback: true },
      ringEnds: this.ringEnds,
      limiter: new LogLimiter(),
    });
  }

  mailbox(queue: number): FakeMailbox {
    const mailbox = this.#mailboxes[queue];
    if (mailbox === undefined) {
      throw new Error(`no queue ${queue}`);
    }
    return mailbox;
  }

  /** Sends a request with descriptors, and closes those that nobody took. */
  handle(request: number, payload: Uint8Array, descriptors: number[]): Uint8Array | undefined {
    try {
      return this.session.handle(request, payload, descriptors);
    } finally {
      for (const fd of descriptors) {
        closeSync(fd);
      }
    }
  }

  send(request: number, payload: Uint8Array = new Uint8Array(0)): void {
    expect(this.handle(request, payload, [])).toBeUndefined();
  }

  sendEvent(request: number, ring: number): void {
    expect(this.handle(request, encodeU64(BigInt(ring)), [createEvent()])).toBeUndefined();
  }

  sendWithMemory(request: number, payload: Uint8Array): void {
    const fd = createSharedMemory(MEMORY_BYTES);
    expect(this.handle(request, payload, [fd])).toBeUndefined();
  }

  ask(request: number, payload: Uint8Array = new Uint8Array(0)): Uint8Array {
    return this.handle(request, payload, []) ?? new Uint8Array(0);
  }

  ask64(request: number): bigint {
    return decodeU64(this.ask(request));
  }

  /** The message of the error that a request ends in; `files` descriptors come with it. */
  refusal(request: number, payload: Uint8Array = new Uint8Array(0), files = 0): string {
    const descriptors = Array.from({ length: files }, () => openSync("/dev/null", "r+"));
    try {
      this.handle(request, payload, descriptors);
    } catch (error) {
      if (error instanceof UbiError && error.code === "E_PROTOCOL") {
        return error.message;
      }
      throw error;
    }
    throw new Error(`request ${request} was accepted`);
  }

  config(offset: number, size: number): Uint8Array {
    const bytes = new Uint8Array(size);
    const reply = this.ask(REQUEST.GET_CONFIG, encodeConfigPart({ offset, flags: 0, bytes }));
    return decodeConfigPart(reply).bytes;
  }

  setConfig(offset: number, bytes: readonly number[]): void {
    const part = { offset, flags: 0, bytes: Uint8Array.from(bytes) };
    this.send(REQUEST.SET_CONFIG, encodeConfigPart(part));
  }

  negotiate(...features: readonly number[]): void {
    const protocol = bitMask(PROTOCOL_FEATURE.CONFIG, PROTOCOL_FEATURE.REPLY_ACK);
    this.send(REQUEST.SET_PROTOCOL_FEATURES, encodeU64(protocol));
    const { VHOST_USER_PROTOCOL_FEATURES, VERSION_1 } = FEATURE;
    const mask = bitMask(VHOST_USER_PROTOCOL_FEATURES, VERSION_1, ...features);
    this.send(REQUEST.SET_FEATURES, encodeU64(mask));
  }

  shareMemory(): void {
    this.sendWithMemory(REQUEST.SET_MEM_TABLE, encodeMemoryTable([this.region]));
  }

  /** Everything that a driver sends for a ring of 256 entries. */
  setUpRing(index: number): void {
    if (this.memory.count === 0) {
      this.shareMemory();
    }
    this.send(REQUEST.SET_VRING_NUM, encodeVringState({ index, value: 256 }));
    this.send(REQUEST.SET_VRING_BASE, encodeVringState({ index, value: 0 }));
    this.send(REQUEST.SET_VRING_ADDR, encodeVringAddress(ringAddress(index)));
    this.sendEvent(REQUEST.SET_VRING_KICK, index);
    this.send(REQUEST.SET_VRING_ENABLE, encodeVringState({ index, value: 1 }));
  }

  close(): void {
    this.session.end(1000);
  }
}

export function ringAddress(index: number): VringAddress {
  const base = USER + index * 0x8000;
  const [available, used] = [base + 0x1000, base + 0x2000];
  return { index, flags: 0, descriptors: base, available, used, log: 0 };
}
