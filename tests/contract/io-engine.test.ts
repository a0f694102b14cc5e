/** What every I/O engine promises, asked of each of them on a real file. */
import { afterAll, expect, test } from "bun:test";
import {
  closeSync,
  constants,
  fsyncSync,
  mkdtempSync,
  openSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type IoEngine, WATCH_ID } from "../../src/disk/io-engine.ts";
import { SyncEngine } from "../../src/disk/sync-engine.ts";
import { UringEngine } from "../../src/disk/uring-engine.ts";
import { Arena } from "../../src/ffi/arena.ts";
import { createEvent, drainEvent, signalEvent } from "../../src/ffi/event.ts";
import { FALLOC_FL_KEEP_SIZE, FALLOC_FL_PUNCH_HOLE } from "../../src/ffi/file.ts";
import { viewOf } from "../../src/ffi/memory.ts";
import { closeDescriptor } from "../../src/ffi/socket.ts";
import { until } from "../support/until.ts";

const REQUESTS_MAX = 16;
const FILE_BYTES = 2 ** 20;
const EBADF = -9;

const folder = mkdtempSync(join(tmpdir(), "ubiblk-engine-"));
afterAll(() => rmSync(folder, { recursive: true }));

const engines = [
  { name: "io_uring", Engine: UringEngine },
  { name: "sync", Engine: SyncEngine },
] as const;

for (const { name, Engine } of engines) {
  const open = (fd: number) => new Engine(REQUESTS_MAX, file(fd));

  test(`${name}: a write and a read move all bytes`, () => {
    using bench = new Bench(open);
    bench.fill(0, 4096, 5);
    bench.engine.prepareWrite(1, 8192, bench.memory.address, 4096);
    expect(bench.results(1)).toEqual([[1, 4096]]);
    bench.engine.prepareRead(2, 8192, bench.memory.address + 4096, 4096);
    expect(bench.results(1)).toEqual([[2, 4096]]);
    expect(bench.slice(4096, 4096)).toEqual(bench.slice(0, 4096));
    expect(bench.fileBytes().subarray(8192, 12_288)).toEqual(bench.slice(0, 4096));
  });

  test(`${name}: vectors gather and scatter in order`, () => {
    using bench = new Bench(open);
    bench.fill(0, 3000, 6);
    const [a, b] = [bench.memory.address, bench.memory.address + 8192];
    bench.vector([a, 1000], [a + 2000, 500], [a + 1000, 1000]);
    bench.engine.prepareWriteVector(3, 100, bench.vectors.address, 3);
    expect(bench.results(1)).toEqual([[3, 2500]]);
    bench.vector([b, 1000], [b + 2000, 500], [b + 1000, 1000]);
    bench.engine.prepareReadVector(4, 100, bench.vectors.address, 3);
    expect(bench.results(1)).toEqual([[4, 2500]]);
    expect(bench.slice(8192, 2500)).toEqual(bench.slice(0, 2500));
  });

  test(`${name}: registered buffers move the same bytes, wherever in the buffer`, () => {
    using bench = new Bench(open);
    expect(bench.engine.registerBuffer(3, bench.memory.address, bench.memory.lengthBytes)).toBe(
      true,
    );
    bench.fill(512, 512, 7);
    bench.engine.prepareWriteFixed(1, 0, bench.memory.address + 512, 512, 3);
    bench.results(1);
    bench.engine.prepareReadFixed(2, 0, bench.memory.address + 4096, 512, 3);
    expect(bench.results(1)).toEqual([[2, 512]]);
    expect(bench.slice(4096, 512)).toEqual(bench.slice(512, 512));
  });

  test(`${name}: sync and allocate`, () => {
    using bench = new Bench(open);
    bench.fill(0, 8192, 8);
    bench.engine.prepareWrite(1, 0, bench.memory.address, 8192);
    bench.results(1);
    bench.engine.prepareSync(2);
    bench.engine.prepareAllocate(3, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 4096, 4096);
    expect(bench.results(2).toSorted()).toEqual([
      [2, 0],
      [3, 0],
    ]);
    expect(bench.fileBytes().subarray(0, 4096)).toEqual(bench.slice(0, 4096));
    expect(bench.fileBytes().subarray(4096, 8192)).toEqual(Buffer.alloc(4096));
  });

  test(`${name}: a read over the end of the file moves what is there`, () => {
    using bench = new Bench(open);
    bench.engine.prepareRead(1, FILE_BYTES - 512, bench.memory.address, 1024);
    bench.engine.prepareRead(2, FILE_BYTES, bench.memory.address, 512);
    bench.vector([bench.memory.address, 512], [bench.memory.address + 512, 512]);
    bench.engine.prepareReadVector(3, FILE_BYTES - 512, bench.vectors.address, 2);
    expect(bench.results(3).toSorted()).toEqual([
      [1, 512],
      [2, 0],
      [3, 512],
    ]);
  });

  test(`${name}: what a descriptor may not do is an error, and the engine goes on`, () => {
    using bench = new Bench(open, "r");
    bench.engine.prepareWrite(1, 0, bench.memory.address, 512);
    bench.engine.prepareAllocate(2, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, 4096);
    bench.engine.prepareRead(3, 0, bench.memory.address, 512);
    expect(bench.results(3).toSorted()).toEqual([
      [1, EBADF],
      [2, EBADF],
      [3, 512],
    ]);
  });

  test(`${name}: a bad address is an error`, () => {
    using bench = new Bench(open);
    bench.engine.prepareRead(1, 0, 4096, 512);
    expect(bench.results(1)).toEqual([[1, -14]]);
  });

  test(`${name}: write-through can be switched, and writes go on`, () => {
    using bench = new Bench(open);
    bench.fill(0, 1024, 9);
    bench.engine.setWriteThrough(true);
    bench.engine.prepareWrite(1, 0, bench.memory.address, 512);
    bench.vector([bench.memory.address + 512, 512]);
    bench.engine.prepareWriteVector(2, 512, bench.vectors.address, 1);
    expect(new Map(bench.results(2))).toEqual(
      new Map([
        [1, 512],
        [2, 512],
      ]),
    );
    bench.engine.setWriteThrough(false);
    bench.engine.prepareWrite(3, 1024, bench.memory.address, 512);
    expect(bench.results(1)).toEqual([[3, 512]]);
    expect(bench.fileBytes().subarray(0, 1024)).toEqual(bench.slice(0, 1024));
  });

  test(`${name}: there is room for all requests, and again after their end`, () => {
    using bench = new Bench(open);
    for (let round = 0; round < 3; round++) {
      expect(bench.engine.room()).toBeGreaterThanOrEqual(REQUESTS_MAX);
      for (let id = 0; id < REQUESTS_MAX; id++) {
        bench.engine.prepareRead(id, id * 512, bench.memory.address, 512);
      }
      expect(bench.results(REQUESTS_MAX).length).toBe(REQUESTS_MAX);
    }
  });

  test(`${name}: room shrinks by what is prepared`, () => {
    using bench = new Bench(open);
    const room = bench.engine.room();
    bench.engine.prepareRead(1, 0, bench.memory.address, 512);
    expect(bench.engine.room()).toBe(room - 1);
    bench.results(1);
    expect(bench.engine.room()).toBe(room);
  });

  test(`${name}: new work may be prepared while the ends of the old are read`, () => {
    using bench = new Bench(open);
    for (let id = 0; id < REQUESTS_MAX; id++) {
      bench.engine.prepareRead(id, 0, bench.memory.address, 512);
    }
    bench.wait(REQUESTS_MAX);
    for (let i = 0; i < REQUESTS_MAX; i++) {
      bench.engine.prepareRead(100 + bench.engine.completedId(i), 0, bench.memory.address, 512);
    }
    bench.engine.release(REQUESTS_MAX);
    const ids = bench.results(REQUESTS_MAX).map(([id]) => id);
    expect(ids.every((id) => id >= 100)).toBe(true);
    expect(new Set(ids).size).toBe(REQUESTS_MAX);
  });

  test(`${name}: ten thousand reads come back once each, with the right bytes`, () => {
    using bench = new Bench(open);
    let next = 0;
    const open_ = new Set<number>();
    while (next < 10_000 || open_.size > 0) {
      for (let slot = 0; slot < REQUESTS_MAX && next < 10_000; slot++) {
        if (!open_.has(slot)) {
          const offset = (next % 2048) * 512;
          bench.engine.prepareRead(slot, offset, bench.memory.address + slot * 512, 512);
          open_.add(slot);
          next += 1;
        }
      }
      bench.engine.submit(1);
      const count = bench.engine.completions();
      for (let i = 0; i < count; i++) {
        expect(bench.engine.completedResult(i)).toBe(512);
        expect(open_.delete(bench.engine.completedId(i))).toBe(true);
      }
      bench.engine.release(count);
    }
  });

  test(`${name}: submit without a minimum does not wait`, () => {
    using bench = new Bench(open);
    bench.engine.submit(0);
    expect(bench.engine.completions()).toBe(0);
  });

  test(`${name}: hasWork tells of what is prepared or ended`, () => {
    using bench = new Bench(open);
    bench.engine.submit(0);
    expect(bench.engine.hasWork()).toBe(false);
    bench.engine.prepareRead(1, 0, bench.memory.address, 512);
    expect(bench.engine.hasWork()).toBe(true);
    bench.wait(1);
    expect(bench.engine.hasWork()).toBe(true);
    bench.engine.release(1);
    expect(bench.engine.hasWork()).toBe(false);
  });

  test(`${name}: a watch completes at every signal, and at one from before the watch`, () => {
    using bench = new Bench(open);
    using event = new TestEvent();
    event.signal();
    bench.engine.watch(WATCH_ID, event.fd);
    expect(bench.signals(1)).toEqual([WATCH_ID]);
    event.signal();
    expect(bench.signals(1)).toEqual([WATCH_ID]);
  });

  test(`${name}: as many requests as a kernel has entries for, and a watch beside them`, () => {
    const count = 32_768;
    using bench = new Bench((fd) => new Engine(count, file(fd)));
    using event = new TestEvent();
    bench.engine.watch(WATCH_ID, event.fd);
    for (let id = 0; id < count; id++) {
      bench.engine.prepareRead(id, (id % 64) * 512, bench.memory.address, 512);
    }
    event.signal();
    const ids: number[] = [];
    while (ids.length <= count) {
      ids.push(...bench.results(1).map(([id]) => id));
    }
    expect(ids.toSorted((a, b) => a - b)).toEqual([
      ...Array.from({ length: count }, (_, id) => id),
      WATCH_ID,
    ]);
  });

  test(`${name}: watches and requests end in one wait`, () => {
    using bench = new Bench(open);
    using event = new TestEvent();
    bench.engine.watch(WATCH_ID + 1, event.fd);
    event.signal();
    bench.engine.prepareRead(5, 0, bench.memory.address, 512);
    const ids: number[] = [];
    while (ids.length < 2) {
      ids.push(...bench.results(1).map(([id]) => id));
    }
    expect(new Set(ids)).toEqual(new Set([5, WATCH_ID + 1]));
  });

  test(`${name}: what is not watched any more signals nothing`, () => {
    using bench = new Bench(open);
    using event = new TestEvent();
    bench.engine.watch(WATCH_ID, event.fd);
    bench.engine.submit(0);
    bench.engine.unwatch(WATCH_ID);
    bench.engine.submit(0);
    event.signal();
    expect(bench.signals(0)).toEqual([]);
  });

  test(`${name}: a watch that is taken back before it was handed over signals nothing`, () => {
    using bench = new Bench(open);
    using event = new TestEvent();
    event.signal();
    bench.engine.watch(WATCH_ID, event.fd);
    bench.engine.unwatch(WATCH_ID);
    using other = new TestEvent();
    bench.engine.watch(WATCH_ID + 1, other.fd);
    other.signal();
    expect(bench.signals(1)).toContain(WATCH_ID + 1);
  });

  test(`${name}: another descriptor is watched under another id, many times`, () => {
    using bench = new Bench(open);
    for (let i = 0; i < 200; i++) {
      using event = new TestEvent();
      bench.engine.watch(WATCH_ID + i, event.fd);
      event.signal();
      expect(bench.signals(1)).toEqual([WATCH_ID + i]);
      bench.engine.unwatch(WATCH_ID + i);
      drainEvent(event.fd);
    }
  });

  test(`${name}: closing a watched descriptor after unwatch leaves the others alone`, () => {
    using bench = new Bench(open);
    using kept = new TestEvent();
    bench.engine.watch(WATCH_ID, kept.fd);
    {
      using gone = new TestEvent();
      bench.engine.watch(WATCH_ID + 1, gone.fd);
      bench.engine.submit(0);
      bench.engine.unwatch(WATCH_ID + 1);
    }
    kept.signal();
    expect(bench.signals(1)).toEqual([WATCH_ID]);
  });

  test(`${name}: a descriptor that is asked for late tells of what has ended before`, async () => {
    using bench = new Bench(open);
    bench.sync(); // so that there is nothing left to wait for
    bench.engine.prepareSync(3);
    bench.engine.submit(0);
    await Bun.sleep(200); // by then it has ended, though its end waits for this thread
    const { waitFd } = bench.engine;
    if (waitFd >= 0) {
      await until("the end is told", () => drainEvent(waitFd) === 1);
    }
    bench.engine.submit(0);
    expect(bench.engine.completions()).toBe(1);
  });

  test(`${name}: an engine that watches another one wakes when that one has completions`, () => {
    using bench = new Bench(open);
    using other = new Bench(open);
    const { waitFd } = other.engine;
    if (waitFd >= 0) {
      bench.engine.watch(WATCH_ID, waitFd);
    }
    for (let round = 0; round < 200; round++) {
      other.engine.prepareSync(3); // ends later than it is handed over
      other.engine.submit(0);
      while (other.engine.completions() === 0) {
        bench.engine.submit(1); // hangs when nothing wakes it
        const count = bench.engine.completions();
        for (let i = 0; i < count; i++) {
          bench.engine.completedId(i);
        }
        bench.engine.release(count);
        other.engine.submit(0);
      }
      expect(other.engine.completedResult(0)).toBe(0);
      other.engine.release(1);
    }
  });

  test(`${name}: signals of the system interrupt nothing`, async () => {
    using bench = new Bench(open);
    let received = 0;
    const count = () => {
      received += 1;
    };
    process.on("SIGUSR2", count);
    const pipe = join(folder, `${name}-pipe`);
    Bun.spawnSync(["mkfifo", pipe]);
    const fd = openSync(pipe, constants.O_RDWR | constants.O_NONBLOCK);
    bench.engine.watch(WATCH_ID, fd);
    // The waits below are idle, so the signals hit them; what is written in the end ends them.
    const signals = `for i in $(seq 60); do kill -USR2 ${process.pid}; sleep 0.002; done`;
    const sender = Bun.spawn(["sh", "-c", `${signals}; printf 12345678 > ${pipe}`]);
    const ids: number[] = [];
    while (!ids.includes(WATCH_ID)) {
      bench.engine.prepareRead(1, 0, bench.memory.address, 512);
      expect(bench.results(1)).toContainEqual([1, 512]);
      bench.engine.submit(1);
      ids.push(...bench.taken().map(([id]) => id));
    }
    await sender.exited;
    process.off("SIGUSR2", count);
    closeSync(fd);
    expect(received).toBeGreaterThan(0);
  });

  test(`${name}: it can be disposed of with I/O in flight, twice`, () => {
    const bench = new Bench(open);
    for (let id = 0; id < REQUESTS_MAX; id++) {
      bench.engine.prepareRead(id, 0, bench.memory.address, 65_536);
    }
    bench.engine.submit(0);
    bench.engine[Symbol.dispose]();
    bench[Symbol.dispose]();
    using next = new Bench(open);
    next.engine.prepareRead(1, 0, next.memory.address, 512);
    expect(next.results(1)).toEqual([[1, 512]]);
  });
}

// --- internal ---

function file(fd: number) {
  return { fd, isWriteThrough: false };
}

class TestEvent implements Disposable {
  readonly fd = createEvent();

  signal(): void {
    signalEvent(this.fd);
  }

  [Symbol.dispose](): void {
    closeDescriptor(this.fd);
  }
}

/** An engine on a file of its own, and memory for its I/O. */
class Bench implements Disposable {
  readonly engine: IoEngine;
  readonly memory = new Arena(2 ** 20);
  readonly vectors = new Arena(4096);
  readonly #path = join(folder, crypto.randomUUID());
  readonly #fd: number;
  readonly #bytes = new Uint8Array(viewOf(this.memory.address, this.memory.lengthBytes));

  constructor(open: (fd: number) => IoEngine, mode = "r+") {
    writeFileSync(this.#path, Buffer.alloc(FILE_BYTES, 0x33));
    this.#fd = openSync(this.#path, mode);
    this.engine = open(this.#fd);
  }

  fill(start: number, length: number, seed: number): void {
    for (let i = 0; i < length; i++) {
      this.#bytes[start + i] = (i * 7 + seed) & 0xff;
    }
  }

  /** Leaves nothing of the file to be made durable. */
  sync(): void {
    fsyncSync(this.#fd);
  }

  slice(start: number, length: number): Buffer {
    return Buffer.from(this.#bytes.slice(start, start + length));
  }

  fileBytes(): Buffer {
    return readFileSync(this.#path);
  }

  vector(...parts: readonly (readonly [number, number])[]): void {
    const view = new DataView(viewOf(this.vectors.address, 4096));
    parts.forEach(([address, length], i) => {
      view.setBigUint64(i * 16, BigInt(address), true);
      view.setBigUint64(i * 16 + 8, BigInt(length), true);
    });
  }

  /** Hands over and waits until `count` completions are there. */
  wait(count: number): void {
    const deadlineMs = performance.now() + 5000;
    do {
      this.engine.submit(0);
    } while (this.engine.completions() < count && performance.now() < deadlineMs);
  }

  /** The same, and reads all completions: id and result. */
  results(count: number): [number, number][] {
    this.wait(count);
    return this.taken();
  }

  /** Reads what completions there are: id and result. */
  taken(): [number, number][] {
    const all = Array.from({ length: this.engine.completions() }, (_, i): [number, number] => [
      this.engine.completedId(i),
      this.engine.completedResult(i),
    ]);
    this.engine.release(all.length);
    return all;
  }

  /** Waits until `count` watches were signalled, and a little longer: their ids. */
  signals(count: number): readonly number[] {
    const all = count > 0 ? this.results(count) : [];
    for (let i = 0; i < 5; i++) {
      Bun.sleepSync(1);
      this.engine.submit(0);
      all.push(...this.taken());
    }
    return all.filter(([, result]) => result > 0).map(([id]) => id);
  }

  [Symbol.dispose](): void {
    this.engine[Symbol.dispose]();
    closeSync(this.#fd);
    this.memory[Symbol.dispose]();
    this.vectors[Symbol.dispose]();
  }
}
