/**
 * A store in memory for tests, with faults: what a real one does wrong once in a while. Durability is modelled:
 * `crash` forgets what was put or removed since the last `sync`.
 */
import { UbiError } from "../errors.ts";
import { abortableSleep } from "./abortable-wait.ts";
import { assertKeyPrefix, assertObjectKey } from "./object-key.ts";
import type {
  GetOptions,
  NewObject,
  ObjectEntry,
  ObjectStore,
  PutNewResult,
  PutOptions,
  StoreOptions,
} from "./object-store.ts";

export type FakeOperation = "get" | "put" | "putNew" | "sizeOf" | "list" | "remove" | "sync";

export class FakeStore implements ObjectStore {
  readonly name = "fake store";
  /** What is there: a test may look and damage. */
  readonly objects = new Map<string, Uint8Array>();
  /** All that was asked for so far: `put data/00ff`. */
  readonly calls: string[] = [];
  /** Each operation takes this long. */
  delayMs = 0;
  /** Of operations under way. */
  concurrencyMax = 0;
  /** Called before an operation does anything: what it throws is the operation's failure. */
  beforeOperation: (operation: FakeOperation, key: string) => void = () => {};
  /** Of `putNew`: some services refuse a condition, some do not look at it. */
  conditions: "kept" | "refused" | "ignored" = "kept";
  /** What `lock` says. */
  lockResult: "locked" | "busy" | "unsupported" = "unsupported";
  #underWay = 0;
  #durable = new Map<string, Uint8Array>();

  /** The next `count` operations of that kind fail with E_STORE. */
  failNext(operation: FakeOperation, count = 1): void {
    let left = count;
    this.beforeOperation = (each, key) => {
      if (each === operation && left > 0) {
        left -= 1;
        throw new UbiError("E_STORE", `${operation} of ${key} failed, as the test wants it`);
      }
    };
  }

  /** As after a loss of power: what was not synced is as it was before. */
  crash(): void {
    this.objects.clear();
    for (const [key, bytes] of this.#durable) {
      this.objects.set(key, bytes);
    }
  }

  async get(key: string, options: GetOptions): Promise<Uint8Array | undefined> {
    assertObjectKey(key);
    return this.#run("get", key, options, () => {
      const bytes = this.objects.get(key);
      if (bytes !== undefined && bytes.length > options.lengthMax) {
        const message = `${bytes.length} bytes, at most ${options.lengthMax} are expected there`;
        throw new UbiError("E_STORE_OBJECT", `object ${key} in ${this.name} has ${message}`);
      }
      return bytes?.slice();
    });
  }

  async put(key: string, bytes: Uint8Array, options: PutOptions = {}): Promise<void> {
    assertObjectKey(key);
    await this.#run("put", key, options, () => this.#put(key, bytes, options.isDurable === true));
  }

  async putAll(objects: readonly NewObject[], options: StoreOptions = {}): Promise<void> {
    for (const { key, bytes } of objects) {
      await this.put(key, bytes, { ...options, isDurable: true });
    }
  }

  async putNew(key: string, bytes: Uint8Array, options: StoreOptions = {}): Promise<PutNewResult> {
    assertObjectKey(key);
    return this.#run("putNew", key, options, () => {
      if (this.conditions === "refused") {
        return "unsupported";
      }
      if (this.conditions === "kept" && this.objects.has(key)) {
        return "exists";
      }
      this.#put(key, bytes, true);
      return "put";
    });
  }

  lock(): "locked" | "busy" | "unsupported" {
    return this.lockResult;
  }

  async sizeOf(key: string, options: StoreOptions = {}): Promise<number | undefined> {
    assertObjectKey(key);
    return this.#run("sizeOf", key, options, () => this.objects.get(key)?.length);
  }

  async holds(key: string, bytes: Uint8Array, options: StoreOptions = {}): Promise<boolean> {
    const stored = await this.get(key, { ...options, lengthMax: Infinity });
    return stored !== undefined && Buffer.compare(stored, bytes) === 0;
  }

  async *list(prefix: string, options: StoreOptions = {}): AsyncGenerator<ObjectEntry> {
    assertKeyPrefix(prefix);
    const entries = await this.#run("list", prefix, options, () => [...this.objects]);
    for (const [key, bytes] of entries) {
      options.signal?.throwIfAborted();
      if (key.startsWith(prefix)) {
        yield { key, sizeBytes: bytes.length };
      }
    }
  }

  async remove(key: string, options: StoreOptions = {}): Promise<void> {
    assertObjectKey(key);
    await this.#run("remove", key, options, () => void this.objects.delete(key));
  }

  async sync(): Promise<void> {
    await this.#run("sync", "", {}, () => {
      this.#durable = new Map(this.objects);
    });
  }

  async [Symbol.asyncDispose](): Promise<void> {}

  // --- internal ---

  #put(key: string, bytes: Uint8Array, isDurable: boolean): void {
    const copy = bytes.slice();
    this.objects.set(key, copy);
    if (isDurable) {
      this.#durable.set(key, copy);
    }
  }

  async #run<T>(
    operation: FakeOperation,
    key: string,
    { signal }: StoreOptions,
    work: () => T,
  ): Promise<T> {
    signal?.throwIfAborted();
    this.calls.push(`${operation} ${key}`);
    this.#underWay += 1;
    this.concurrencyMax = Math.max(this.concurrencyMax, this.#underWay);
    try {
      await abortableSleep(this.delayMs, signal);
      this.beforeOperation(operation, key);
      return work();
    } finally {
      this.#underWay -= 1;
    }
  }
}
