/** What every stripe source does, whatever it reads from. Run by each kind with contents of the same shape. */
import { expect, test } from "bun:test";
import { Arena } from "../../src/ffi/arena.ts";
import { PollSet } from "../../src/ffi/socket.ts";
import type { StripeSource } from "../../src/sources/stripe-source.ts";

export const STRIPE_SECTORS = 64;
export const STRIPE_BYTES = STRIPE_SECTORS * 512;
export const REQUESTS_MAX = 6;
/** Seven stripes: 2 and 5 are zeros, the last one is short. */
export const CONTENT = contentOf(6 * STRIPE_BYTES + 5 * 512);
const STRIPES = 7;
const WAIT_MS = 10_000;
const STALE = 0xdb;

export interface SourceUnderTest {
  readonly source: StripeSource;
  /** After the source was disposed of. */
  readonly close: () => Promise<void>;
}

/** @param open a source of `CONTENT`, for `REQUESTS_MAX` requests */
export function testSourceContract(open: () => Promise<SourceUnderTest>): void {
  testContent(open);
  testRequests(open);
}

// --- internal ---

/** A source and the memory that it fills: a stripe for each request, and one that nobody may write behind them. */
class SourceBench implements AsyncDisposable {
  readonly source: StripeSource;
  readonly memory: Uint8Array;
  readonly #opened: SourceUnderTest;
  readonly #arena = new Arena((REQUESTS_MAX + 2) * STRIPE_BYTES);
  readonly #address: number;
  #isClosed = false;

  static async open(open: () => Promise<SourceUnderTest>): Promise<SourceBench> {
    return new SourceBench(await open());
  }

  private constructor(opened: SourceUnderTest) {
    this.#opened = opened;
    this.source = opened.source;
    const { view, address } = this.#arena.bytes((REQUESTS_MAX + 1) * STRIPE_BYTES);
    this.memory = view;
    this.#address = address;
    view.fill(STALE);
  }

  request(id: number, stripe: number, isDemanded = false): void {
    const part = { stripe, offsetBytes: 0, lengthBytes: STRIPE_BYTES };
    this.source.request(id, part, this.#address + id * STRIPE_BYTES, isDemanded);
  }

  bufferOf(id: number): Uint8Array {
    return this.memory.subarray(id * STRIPE_BYTES, (id + 1) * STRIPE_BYTES);
  }

  /** The ends of `count` requests, id and result, by id; fewer when they do not come. */
  async ends(count: number): Promise<readonly (readonly [number, number])[]> {
    const { source } = this;
    const list: (readonly [number, number])[] = [];
    const deadline = performance.now() + WAIT_MS;
    while (list.length < count && performance.now() < deadline) {
      source.submit();
      const ready = source.completions();
      for (let i = 0; i < ready; i++) {
        list.push([source.completedId(i), source.completedResult(i)]);
      }
      source.release(ready);
      await Bun.sleep(1); // the other end of a source may live in this thread
    }
    return list.sort(([a], [b]) => a - b);
  }

  async close(): Promise<void> {
    if (!this.#isClosed) {
      this.#isClosed = true;
      this.source[Symbol.dispose]();
      await this.#opened.close();
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
    this.#arena[Symbol.dispose]();
  }
}

function testContent(open: () => Promise<SourceUnderTest>): void {
  test("has the stripes that begin inside its content, and no others", async () => {
    await using bench = await SourceBench.open(open);
    const held = Array.from({ length: STRIPES + 2 }, (_, stripe) => bench.source.has(stripe));
    expect(held).toEqual([...new Array<boolean>(STRIPES).fill(true), false, false]);
  });

  test("its unit is whole sectors and divides a stripe", async () => {
    await using bench = await SourceBench.open(open);
    expect(bench.source.unitBytes % 512).toBe(0);
    expect(STRIPE_BYTES % bench.source.unitBytes).toBe(0);
  });

  test("every stripe is what was put there, with zeros behind the end", async () => {
    await using bench = await SourceBench.open(open);
    for (let stripe = 0; stripe < STRIPES; stripe++) {
      bench.memory.fill(STALE);
      bench.request(0, stripe);
      expect(await bench.ends(1)).toEqual([[0, 0]]);
      expectStripe(bench.bufferOf(0), stripe);
    }
  });

  test("a stripe that it does not hold is an error, never zeros", async () => {
    await using bench = await SourceBench.open(open);
    bench.request(0, STRIPES);
    const [[id, result] = [-1, 0]] = await bench.ends(1);
    expect(id).toBe(0);
    expect(result).toBeLessThan(0);
    bench.request(0, 1);
    expect(await bench.ends(1)).toEqual([[0, 0]]);
  });

  test("requests under way together all end, each in its own memory", async () => {
    await using bench = await SourceBench.open(open);
    const stripes = [6, 1, 5, 0, 2, 4];
    for (const [id, stripe] of stripes.entries()) {
      bench.request(id, stripe, id % 2 === 0);
    }
    expect(await bench.ends(REQUESTS_MAX)).toEqual(stripes.map((_, id) => [id, 0] as const));
    for (const [id, stripe] of stripes.entries()) {
      expectStripe(bench.bufferOf(id), stripe);
    }
    expect(bench.bufferOf(REQUESTS_MAX).every((byte) => byte === STALE)).toBe(true);
  });

  test("one stripe may be asked for several times at once", async () => {
    await using bench = await SourceBench.open(open);
    for (let id = 0; id < REQUESTS_MAX; id++) {
      bench.request(id, 3);
    }
    expect((await bench.ends(REQUESTS_MAX)).length).toBe(REQUESTS_MAX);
    for (let id = 0; id < REQUESTS_MAX; id++) {
      expectStripe(bench.bufferOf(id), 3);
    }
  });
}

function testRequests(open: () => Promise<SourceUnderTest>): void {
  test("ids are used again and again", async () => {
    await using bench = await SourceBench.open(open);
    for (let round = 0; round < 20; round++) {
      const id = round % REQUESTS_MAX;
      bench.request(id, round % STRIPES);
      expect(await bench.ends(1)).toEqual([[id, 0]]);
      expectStripe(bench.bufferOf(id), round % STRIPES);
    }
  });

  test("a request that is raised, before or after its end, ends once", async () => {
    await using bench = await SourceBench.open(open);
    bench.request(0, 0);
    bench.request(1, 1);
    bench.source.raise(1);
    bench.source.submit();
    expect((await bench.ends(2)).map(([id]) => id)).toEqual([0, 1]);
    bench.source.raise(0);
    bench.request(2, 2);
    expect(await bench.ends(1)).toEqual([[2, 0]]);
    expect(bench.source.completions()).toBe(0);
  });

  test("whoever waits for its descriptor is woken by an end", async () => {
    await using bench = await SourceBench.open(open);
    const { source } = bench;
    bench.request(0, 4);
    source.submit();
    if (source.waitFd < 0) {
      expect(source.completions()).toBe(1);
      return;
    }
    using poll = new PollSet(1);
    poll.watch(0, source.waitFd);
    const deadline = performance.now() + WAIT_MS;
    while (poll.wait(0) === 0 && performance.now() < deadline) {
      await Bun.sleep(1);
    }
    expect(poll.events(0)).toBe(1);
    expect(await bench.ends(1)).toEqual([[0, 0]]);
    source.submit();
    expect(poll.wait(0)).toBe(0);
  });

  test("it can be disposed of while requests are under way", async () => {
    await using bench = await SourceBench.open(open);
    for (let id = 0; id < REQUESTS_MAX; id++) {
      bench.request(id, id);
    }
    bench.source.submit();
    const begunMs = performance.now();
    await bench.close();
    expect(performance.now() - begunMs).toBeLessThan(WAIT_MS / 2);
  });
}

function contentOf(lengthBytes: number): Uint8Array {
  const content = Uint8Array.from({ length: lengthBytes }, (_, i) => ((i * 29) ^ (i >> 8)) | 1);
  content.fill(0, 2 * STRIPE_BYTES, 3 * STRIPE_BYTES);
  content.fill(0, 5 * STRIPE_BYTES, 6 * STRIPE_BYTES);
  return content;
}

function expectStripe(actual: Uint8Array, stripe: number): void {
  const expected = new Uint8Array(STRIPE_BYTES);
  expected.set(CONTENT.subarray(stripe * STRIPE_BYTES, (stripe + 1) * STRIPE_BYTES));
  expect(Buffer.compare(actual, expected)).toBe(0);
}
