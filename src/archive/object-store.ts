/**
 * Where the objects of an archive lie: whole objects under short keys. Two kinds, a folder and a bucket of an
 * S3-compatible service, behave alike (tests/contract/object-store.test.ts); so does the fake of the tests.
 *
 * A store belongs to one thread. Other threads open their own from the same description.
 */
import type { FilesystemStoreDescription } from "./filesystem-store.ts";
import type { S3StoreDescription } from "./s3-description.ts";

export interface ObjectStore extends AsyncDisposable {
  /** As messages name it: the folder, or `s3://bucket/prefix`. */
  readonly name: string;
  /**
   * The whole object, or undefined when there is none.
   * @throws UbiError E_STORE; E_STORE_OBJECT when it is longer, or no object but something else in its place
   */
  get(key: string, options: GetOptions): Promise<Uint8Array | undefined>;
  /** Whole or not at all; replaces. The bytes must not change until it is done. @throws UbiError E_STORE */
  put(key: string, bytes: Uint8Array, options?: PutOptions): Promise<void>;
  /**
   * Durable puts that belong together, in their order. A folder has the content of all on disk before the first
   * gets its name: what then fails is hardly ever between them. @throws UbiError E_STORE
   */
  putAll(objects: readonly NewObject[], options?: StoreOptions): Promise<void>;
  /** A durable put that never replaces: of several at a time one succeeds. @throws UbiError E_STORE */
  putNew(key: string, bytes: Uint8Array, options?: StoreOptions): Promise<PutNewResult>;
  /** The length of an object, or undefined when there is none. @throws UbiError E_STORE */
  sizeOf(key: string, options?: StoreOptions): Promise<number | undefined>;
  /**
   * Whether the object has exactly these bytes. False where that cannot be told: a put of them is right then.
   * @throws UbiError E_STORE
   */
  holds(key: string, bytes: Uint8Array, options?: StoreOptions): Promise<boolean>;
  /** All objects whose key begins with `prefix`, in no particular order. @throws UbiError E_STORE */
  list(prefix: string, options?: StoreOptions): AsyncIterable<ObjectEntry>;
  /** No error when there is none. @throws UbiError E_STORE */
  remove(key: string, options?: StoreOptions): Promise<void>;
  /** Returns when everything that was put or removed so far, by any thread, is durable. @throws UbiError E_STORE */
  sync(): Promise<void>;
  /**
   * Keeps other processes out, as long as the store is open, as far as they ask, too. `unsupported`: here only
   * objects can tell who is at work.
   */
  lock(): "locked" | "busy" | "unsupported";
}

/** `unsupported`: nothing was put, or without looking whether there is one. */
export type PutNewResult = "put" | "exists" | "unsupported";

export interface NewObject {
  readonly key: string;
  readonly bytes: Uint8Array;
}

export interface StoreOptions {
  /** Ends the work at once: it then rejects with the signal's reason. */
  readonly signal?: AbortSignal | undefined;
}

export interface PutOptions extends StoreOptions {
  /** Durable when it is done, without a `sync`; what was there before is there until then. */
  readonly isDurable?: boolean;
}

export interface GetOptions extends StoreOptions {
  /** A longer object is an error: what a stranger stores never decides how much memory is used. */
  readonly lengthMax: number;
}

export interface ObjectEntry {
  readonly key: string;
  readonly sizeBytes: number;
}

/** A reader never creates or changes anything. */
export type StoreRole = "read" | "write";

/** All that is needed to open a store, secrets included: plain data that another thread can get. */
export type StoreDescription = FilesystemStoreDescription | S3StoreDescription;
