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
  /** The whole object, or undefined when there is none. @throws UbiError E_STORE, also when it is longer */
  get(key: string, options: GetOptions): Promise<Uint8Array | undefined>;
  /** Whole or not at all; replaces. The bytes must not change until it is done. @throws UbiError E_STORE */
  put(key: string, bytes: Uint8Array, options?: StoreOptions): Promise<void>;
  /** The length of an object, or undefined when there is none. @throws UbiError E_STORE */
  sizeOf(key: string, options?: StoreOptions): Promise<number | undefined>;
  /** All objects whose key begins with `prefix`, in no particular order. @throws UbiError E_STORE */
  list(prefix: string, options?: StoreOptions): AsyncIterable<ObjectEntry>;
  /** No error when there is none. @throws UbiError E_STORE */
  remove(key: string, options?: StoreOptions): Promise<void>;
  /** Returns when everything that was put or removed so far, by any thread, is durable. @throws UbiError E_STORE */
  sync(): Promise<void>;
}

export interface StoreOptions {
  /** Ends the work at once: it then rejects with the signal's reason. */
  readonly signal?: AbortSignal | undefined;
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
