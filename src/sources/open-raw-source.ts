/**
 * Opens the image of a raw source: directly where the file system can, through the page cache elsewhere, and
 * where the image ends inside a block of the medium. One thread opens and locks it, another one reads.
 */
import { DataFile } from "../disk/data-file.ts";
import { openEngine } from "../disk/open-engine.ts";
import { RawSource } from "./raw-source.ts";

export interface RawSourceFile {
  readonly fd: number;
  readonly sizeBytes: number;
  readonly blockBytes: number;
}

export interface RawReadOptions {
  readonly stripeBytes: number;
  readonly requestsMax: number;
  readonly ioEngine: "io_uring" | "sync";
}

/**
 * Opens an image of any size for reading. It is locked, shared: nobody makes a disk of it meanwhile.
 * @param options `isUnlocked` for a look at it only
 * @throws UbiError E_DISK_OPEN, E_DISK_SIZE, E_DISK_LOCKED
 */
export function openImage(path: string, options: { readonly isUnlocked?: boolean } = {}): DataFile {
  return DataFile.open({ ...options, path, what: "image", isReadOnly: true, isAnySize: true });
}

/**
 * A source that reads from an open image, which outlives it. Call in the thread that is going to use the source:
 * a ring belongs to its thread.
 */
export function openRawSource(image: RawSourceFile, options: RawReadOptions): RawSource {
  const { stripeBytes, requestsMax, ioEngine } = options;
  const { fd, sizeBytes, blockBytes } = image;
  const engine = openEngine(ioEngine, requestsMax, { fd, isWriteThrough: false });
  return new RawSource({ engine, sizeBytes, blockBytes, stripeBytes, requestsMax });
}
