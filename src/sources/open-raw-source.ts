/** Opens the image of a raw source: directly where the file system can, through the page cache elsewhere. */
import { DataFile } from "../disk/data-file.ts";
import { openEngine } from "../disk/open-engine.ts";
import { RawSource } from "./raw-source.ts";

export interface RawImageOptions {
  readonly path: string;
  readonly stripeBytes: number;
  readonly requestsMax: number;
  readonly ioEngine: "io_uring" | "sync";
}

/** An open image. Dispose of the source first, by the thread that reads from it. */
export interface RawImage {
  readonly source: RawSource;
  /** Locked, shared: nobody makes a disk of it meanwhile. */
  readonly file: DataFile;
}

/**
 * Call in the thread that is going to use the source: a ring belongs to its thread.
 * @throws UbiError E_DISK_OPEN, E_DISK_SIZE, E_DISK_LOCKED, E_URING
 */
export function openRawSource(options: RawImageOptions): RawImage {
  const { path, stripeBytes, requestsMax } = options;
  const file = DataFile.open({ path, what: "image", isReadOnly: true });
  try {
    const engine = openEngine(options.ioEngine, requestsMax, {
      fd: file.fd,
      isWriteThrough: false,
    });
    const { blockBytes } = file;
    const { sizeBytes } = file.geometry;
    const source = new RawSource({ engine, sizeBytes, blockBytes, stripeBytes, requestsMax });
    return { source, file };
  } catch (error) {
    file[Symbol.dispose]();
    throw error;
  }
}
