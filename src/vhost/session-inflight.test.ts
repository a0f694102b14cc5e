import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import {
  closeSync,
  fstatSync,
  mkdtempSync,
  openSync,
  readSync,
  rmSync,
  truncateSync,
  writeSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { QUEUES, SessionFrontEnd } from "../../tests/support/session-front-end.ts";
import {
  createSharedMemory,
  F_SEAL_SHRINK,
  mapFile,
  sealsOf,
  unmap,
  viewOf,
} from "../ffi/memory.ts";
import {
  bitMask,
  decodeInflight,
  encodeInflight,
  encodeU64,
  encodeVringState,
  type Inflight,
  PROTOCOL_FEATURE,
  REQUEST,
} from "../formats/vhost-user.ts";
import { CONFIG_WRITEBACK_OFFSET, FEATURE } from "../formats/virtio-blk.ts";

/** Of a queue of 256 entries: 16 bytes of header and 16 an entry, to the next multiple of 64. */
const REGION_BYTES = 4160;
const WHOLE: Inflight = {
  mmapSizeBytes: QUEUES * REGION_BYTES,
  mmapOffset: 0,
  queueCount: QUEUES,
  queueSize: 256,
};

let frontEnd: SessionFrontEnd;

beforeEach(() => {
  frontEnd = new SessionFrontEnd();
  negotiate();
});

function negotiate(...features: readonly number[]): void {
  frontEnd.negotiate(...features);
  const mask = bitMask(PROTOCOL_FEATURE.CONFIG, PROTOCOL_FEATURE.INFLIGHT_SHMFD);
  frontEnd.send(REQUEST.SET_PROTOCOL_FEATURES, encodeU64(mask));
}

afterEach(() => frontEnd.close());

function get(asked: Partial<Inflight>): { readonly inflight: Inflight; readonly fd: number } {
  const payload = encodeInflight({ ...WHOLE, mmapSizeBytes: 0, ...asked });
  const inflight = decodeInflight(frontEnd.ask(REQUEST.GET_INFLIGHT_FD, payload));
  const [fd = -1, ...others] = frontEnd.session.inflight.takeReplyDescriptors();
  expect(others).toEqual([]);
  return { inflight, fd };
}

function set(inflight: Partial<Inflight>, fd: number): void {
  const payload = encodeInflight({ ...WHOLE, ...inflight });
  expect(frontEnd.handle(REQUEST.SET_INFLIGHT_FD, payload, [fd])).toBeUndefined();
}

/** The message of the error that the memory is refused with. */
function refusal(inflight: Partial<Inflight>, fd: number): string {
  try {
    set(inflight, fd);
  } catch (error) {
    return error instanceof Error ? error.message : String(error);
  }
  return "accepted";
}

describe("GET_INFLIGHT_FD", () => {
  test("gives zeroed memory of the right size that cannot shrink", () => {
    const { inflight, fd } = get({});
    expect(inflight).toEqual(WHOLE);
    expect(fstatSync(fd).size).toBe(WHOLE.mmapSizeBytes);
    expect(sealsOf(fd) & F_SEAL_SHRINK).toBe(F_SEAL_SHRINK);
    closeSync(fd);
  });

  test.each([
    [{ queueCount: 0 }, "0 queues"],
    [{ queueCount: QUEUES + 1 }, `${QUEUES + 1} queues`],
    [{ queueSize: 0 }, "0 entries"],
    [{ queueSize: 32_769 }, "32769 entries"],
  ])("refuses %j", (asked, message) => {
    const payload = encodeInflight({ ...WHOLE, ...asked });
    expect(frontEnd.refusal(REQUEST.GET_INFLIGHT_FD, payload)).toContain(message);
  });

  test("is refused when it was not negotiated", () => {
    frontEnd.negotiate();
    const payload = encodeInflight(WHOLE);
    expect(frontEnd.refusal(REQUEST.GET_INFLIGHT_FD, payload)).toContain("not negotiated");
    expect(frontEnd.refusal(REQUEST.SET_INFLIGHT_FD, payload, 1)).toContain("not negotiated");
  });
});

describe("SET_INFLIGHT_FD", () => {
  test("each ring notes its requests in a region of its own", () => {
    set({}, createSharedMemory(WHOLE.mmapSizeBytes));
    expect(frontEnd.session.inflight.isTracking).toBe(true);
    frontEnd.setUpRing(0);
    frontEnd.setUpRing(1);
    const [first, second] = [0, 1].map((queue) => frontEnd.mailbox(queue).started());
    expect(first?.notesEntries).toBe(256);
    expect((second?.notesAddress ?? 0) - (first?.notesAddress ?? 0)).toBe(REGION_BYTES);
  });

  test("a ring that runs goes on with it", () => {
    frontEnd.setUpRing(0);
    expect(frontEnd.mailbox(0).started()?.notesAddress).toBe(0);
    set({}, createSharedMemory(WHOLE.mmapSizeBytes));
    expect(frontEnd.mailbox(0).started()?.notesAddress).toBeGreaterThan(0);
  });

  test("a ring without a region is not tracked", () => {
    set({ queueCount: 1 }, createSharedMemory(REGION_BYTES));
    frontEnd.setUpRing(1);
    expect(frontEnd.mailbox(1).started()?.notesAddress).toBe(0);
  });

  test("a ring that is larger than its region is refused", () => {
    set({ queueSize: 128 }, createSharedMemory(WHOLE.mmapSizeBytes));
    expect(() => frontEnd.setUpRing(0)).toThrow("256 entries, its in-flight region is for 128");
  });

  test("less than the queues need is refused", () => {
    const fd = createSharedMemory(WHOLE.mmapSizeBytes);
    expect(refusal({ mmapSizeBytes: WHOLE.mmapSizeBytes - 1 }, fd)).toContain("need 8320");
  });

  test("a file that ends before the memory does is refused", () => {
    const fd = createSharedMemory(REGION_BYTES);
    expect(refusal({}, fd)).toContain("it ends at byte 8320, its memory at 4160");
    const other = createSharedMemory(WHOLE.mmapSizeBytes);
    expect(refusal({ mmapOffset: 4096 }, other)).toContain("it ends at byte 12416");
  });

  test("what is no shared memory is refused: a file of a disk, a device", () => {
    const folder = mkdtempSync(join(tmpdir(), "ubiblk-inflight-"));
    const path = join(folder, "file");
    const fd = openSync(path, "w+");
    truncateSync(path, WHOLE.mmapSizeBytes);
    const isMemory = sealsOf(fd) >= 0; // where the folder is a tmpfs it is
    expect(refusal({}, fd)).toContain(isMemory ? "accepted" : "no shared memory");
    expect(refusal({}, openSync("/dev/null", "r+"))).toContain("no shared memory");
    rmSync(folder, { recursive: true });
  });

  test("memory that cannot be written is refused", () => {
    const fd = createSharedMemory(WHOLE.mmapSizeBytes);
    const readable = openSync(`/proc/self/fd/${fd}`, "r");
    closeSync(fd);
    expect(refusal({}, readable)).toContain("EACCES");
  });

  test("an offset that splits the fields is refused", () => {
    const fd = createSharedMemory(2 * WHOLE.mmapSizeBytes);
    expect(refusal({ mmapOffset: 4 }, fd)).toContain("multiple of 8");
  });
});

describe("packed rings", () => {
  /** 32 bytes of header and 32 an entry, which is a copy of a descriptor. */
  const PACKED_BYTES = 8256;
  const PACKED: Inflight = { ...WHOLE, mmapSizeBytes: QUEUES * PACKED_BYTES };

  test("get memory of their own size, and less is refused", () => {
    negotiate(FEATURE.RING_PACKED);
    const { inflight, fd } = get({});
    expect(inflight).toEqual(PACKED);
    set(inflight, fd);
    const small = createSharedMemory(PACKED.mmapSizeBytes);
    expect(refusal({ mmapSizeBytes: WHOLE.mmapSizeBytes }, small)).toContain("need 16512");
    frontEnd.setUpRing(0);
    frontEnd.setUpRing(1);
    const [first, second] = [0, 1].map((queue) => frontEnd.mailbox(queue).started());
    expect((second?.notesAddress ?? 0) - (first?.notesAddress ?? 0)).toBe(PACKED_BYTES);
  });

  test("do not go on with memory of split rings, nor the other way round", () => {
    set({}, createSharedMemory(WHOLE.mmapSizeBytes));
    frontEnd.setUpRing(0);
    negotiate(FEATURE.RING_PACKED);
    expect(frontEnd.session.inflight.isTracking).toBe(false);
    set(PACKED, createSharedMemory(PACKED.mmapSizeBytes));
    expect(frontEnd.session.inflight.isTracking).toBe(true);
    negotiate();
    expect(frontEnd.session.inflight.isTracking).toBe(false);
  });

  test.each([
    { name: "GET_VRING_BASE", request: REQUEST.GET_VRING_BASE, isForgotten: true },
    { name: "RESET_DEVICE", request: REQUEST.RESET_DEVICE, isForgotten: true },
    { name: "SET_VRING_ENABLE", request: REQUEST.SET_VRING_ENABLE, isForgotten: false },
    // A guest is paused and goes on: what did not fit before does not fit then.
    { name: "GET_VRING_BASE", request: REQUEST.GET_VRING_BASE, isShy: true, isForgotten: false },
    { name: "RESET_DEVICE", request: REQUEST.RESET_DEVICE, isShy: true, isForgotten: true },
  ])("after $name the notes of a ring (left alone: $isShy) say nothing: $isForgotten", (row) => {
    const { request, isForgotten, isShy = false } = row;
    frontEnd.mailbox(0).isLeavingAlone = isShy;
    negotiate(FEATURE.RING_PACKED);
    const { inflight, fd } = get({});
    const lengthBytes = Math.ceil(PACKED.mmapSizeBytes / 4096) * 4096;
    const address = mapFile({ fd, offsetBytes: 0, lengthBytes, writable: true });
    const versions = new Uint16Array(viewOf(address + 8, 2));
    versions[0] = 1;
    set(inflight, fd);
    frontEnd.setUpRing(0);
    frontEnd.handle(request, encodeVringState({ index: 0, value: 0 }), []);
    expect(versions[0]).toBe(isForgotten ? 0 : 1);
    unmap(address, lengthBytes);
  });
});

describe("the write cache that a guest turned off", () => {
  const CACHE_OFF = 1;
  const CACHED = [FEATURE.BLK_FLUSH, FEATURE.BLK_CONFIG_WCE];

  /** The bit in the first region, as one that keeps the memory could see it. */
  function features(fd: number): number {
    const bytes = new Uint8Array(1);
    readSync(fd, bytes, 0, 1, 0);
    return bytes[0] ?? -1;
  }

  function setWriteback(isWriteback: boolean): void {
    frontEnd.setConfig(CONFIG_WRITEBACK_OFFSET, [isWriteback ? 1 : 0]);
  }

  /** Memory as a backend left it that ran with the cache off. */
  function left(): number {
    const fd = createSharedMemory(WHOLE.mmapSizeBytes);
    writeSync(fd, Uint8Array.of(CACHE_OFF), 0, 1, 0);
    return fd;
  }

  test("is noted in the memory, and taken out when it is turned on again", () => {
    negotiate(...CACHED);
    const { fd } = get({});
    const kept = openSync(`/proc/self/fd/${fd}`, "r");
    set({}, fd);
    const noted = [false, true, false].map((isWriteback) => {
      setWriteback(isWriteback);
      return features(kept);
    });
    expect(noted).toEqual([CACHE_OFF, 0, CACHE_OFF]);
    closeSync(kept);
  });

  test("is noted before rings drain, in which the backend may die, and taken out behind that", () => {
    negotiate(...CACHED);
    const { fd } = get({});
    const kept = openSync(`/proc/self/fd/${fd}`, "r");
    set({}, fd);
    frontEnd.setUpRing(0);
    frontEnd.mailbox(0).isStuck = true;
    expect(() => setWriteback(false)).toThrow();
    expect(features(kept)).toBe(CACHE_OFF);
    expect(() => setWriteback(true)).toThrow();
    expect(features(kept)).toBe(CACHE_OFF);
    frontEnd.mailbox(0).isStuck = false;
    closeSync(kept);
  });

  test("is noted in memory that is made or comes later", () => {
    negotiate(...CACHED);
    setWriteback(false);
    const { fd } = get({});
    expect(features(fd)).toBe(CACHE_OFF);
    closeSync(fd);
    const other = createSharedMemory(WHOLE.mmapSizeBytes);
    const kept = openSync(`/proc/self/fd/${other}`, "r");
    set({}, other);
    expect(features(kept)).toBe(CACHE_OFF);
    closeSync(kept);
  });

  test("is off in the next backend, for all rings, also for one that runs", () => {
    negotiate(...CACHED);
    frontEnd.setUpRing(0);
    expect(frontEnd.mailbox(0).started()?.isWriteThrough).toBe(0);
    set({}, left());
    frontEnd.setUpRing(1);
    const started = [0, 1].map((queue) => frontEnd.mailbox(queue).started()?.isWriteThrough);
    expect(started).toEqual([1, 1]);
    expect(frontEnd.config(CONFIG_WRITEBACK_OFFSET, 1)).toEqual(Uint8Array.of(0));
  });

  test("memory that does not say so does not turn it on", () => {
    negotiate(...CACHED);
    setWriteback(false);
    set({}, createSharedMemory(WHOLE.mmapSizeBytes));
    expect(frontEnd.config(CONFIG_WRITEBACK_OFFSET, 1)).toEqual(Uint8Array.of(0));
  });

  test("outlives the other kind of rings", () => {
    negotiate(...CACHED);
    set({}, left());
    negotiate(...CACHED, FEATURE.RING_PACKED);
    const { inflight, fd } = get({});
    expect(features(fd)).toBe(CACHE_OFF);
    set(inflight, fd);
    frontEnd.setUpRing(0);
    expect(frontEnd.mailbox(0).started()?.isWriteThrough).toBe(1);
  });

  test("is found in memory whose first region does not begin a page", () => {
    negotiate(...CACHED);
    const fd = createSharedMemory(WHOLE.mmapSizeBytes + 4096 + 64);
    writeSync(fd, Uint8Array.of(CACHE_OFF), 0, 1, 4096 + 64);
    set({ mmapOffset: 4096 + 64 }, fd);
    expect(frontEnd.config(CONFIG_WRITEBACK_OFFSET, 1)).toEqual(Uint8Array.of(0));
  });
});
