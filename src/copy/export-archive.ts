/**
 * Writes the disk of an archive as a raw image. The archive is opened and authenticated before anything is written;
 * the image appears under its name when it is whole and on disk, or not at all.
 *
 *   image file     a hole where the archive has no object
 *   block device   zeros there: the device may hold anything
 *
 * The size is the disk's where the archive tells it, else that of all its stripes.
 */
import { createHash } from "node:crypto";
import { ftruncateSync, realpathSync } from "node:fs";
import { basename, dirname, join, resolve } from "node:path";
import type { ArchiveManifest } from "../archive/archive-manifest.ts";
import type { StoreDescription } from "../archive/object-store.ts";
import { openStore } from "../archive/open-store.ts";
import { errnoText, errorText, UbiError } from "../errors.ts";
import { Arena } from "../ffi/arena.ts";
import {
  allocateFile,
  FALLOC_FL_KEEP_SIZE,
  FALLOC_FL_ZERO_RANGE,
  readFileAt,
  writeFileAt,
} from "../ffi/file.ts";
import { SECTOR_BYTES } from "../formats/virtio-blk.ts";
import { openFinishedArchive } from "./finished-archive.ts";
import { nextTurn } from "./group-worker.ts";
import type { RunProgress } from "./make-archive.ts";
import { OutputFile } from "./output-file.ts";
import { readObjects } from "./read-objects.ts";
import { COUNTER } from "./stripe-board.ts";

export interface ExportOptions {
  readonly source: StoreDescription;
  readonly kek: Uint8Array | undefined;
  readonly targetPath: string;
  /** Files that the export is made from, besides the archive: never written over. */
  readonly inputPaths: readonly string[];
  /** Of the image, instead of what the archive says. */
  readonly sizeBytes: number | undefined;
  readonly mayReplace: boolean;
  /** Reads the image back and tells its SHA-256. */
  readonly isHashed: boolean;
  readonly signal: AbortSignal;
  readonly onProgress: (progress: RunProgress) => void;
}

export interface ExportSummary {
  readonly sizeBytes: number;
  readonly stripeBytes: number;
  readonly storedStripes: number;
  readonly objectBytes: number;
  readonly sha256: string | undefined;
}

/** @throws UbiError E_EXPORT, E_STORE, E_ARCHIVE*, E_DISK_LOCKED, or the reason of the signal */
export async function exportArchive(options: ExportOptions): Promise<ExportSummary> {
  const { targetPath, signal } = options;
  await using store = await openStore(options.source);
  const manifest = await openFinishedArchive(store, options.kek, signal);
  const sizeBytes = sizeOfImage(manifest, options.sizeBytes);
  checkOutside(targetPath, options.source);
  using output = OutputFile.create(targetPath, {
    inputs: options.inputPaths,
    mayReplace: options.mayReplace,
    code: "E_EXPORT",
  });
  try {
    return await writeImage(output, { manifest, sizeBytes }, options);
  } catch (error) {
    throw signal.aborted ? withTarget(error, output) : error;
  }
}

// --- internal ---

const PIECE_BYTES = 2 ** 20;
/** Of a device, zeroed in one call: short enough for a signal to be heard in between. */
const ZERO_BYTES = 64 * 2 ** 20;

async function writeImage(
  output: OutputFile,
  { manifest, sizeBytes }: { readonly manifest: ArchiveManifest; readonly sizeBytes: number },
  options: ExportOptions,
): Promise<ExportSummary> {
  const { targetPath, signal } = options;
  const isDevice = isBlockDevice(output);
  prepare(output, sizeBytes);
  const board = await readObjects(manifest, {
    source: options.source,
    use: { kind: "write", path: targetPath, fd: output.fd, sizeBytes },
    signal,
    onProgress: options.onProgress,
    mainPart: () => (isDevice ? zeroTheRest(output, manifest, sizeBytes, signal) : nextTurn()),
  });
  const sha256 = options.isHashed ? await hashOf(output, sizeBytes, signal) : undefined;
  signal.throwIfAborted();
  output.commit();
  return {
    sizeBytes,
    stripeBytes: manifest.stripeSectors * SECTOR_BYTES,
    storedStripes: board.total(COUNTER.STRIPES),
    objectBytes: board.total(COUNTER.OBJECT_BYTES),
    sha256,
  };
}

const isBlockDevice = (output: OutputFile) => output.capacityBytes !== Infinity;

/** What became of the target, for who ended the work. */
function withTarget(error: unknown, output: OutputFile): unknown {
  if (!(error instanceof UbiError)) {
    return error;
  }
  const left = isBlockDevice(output) ? "holds half an image" : "is as it was";
  const message = `${errorText(error)}; ${output.path} ${left}`;
  return new UbiError(error.code, message, { cause: error });
}

/** What was asked for may leave out nothing but zeros: of the last stripe who writes it sees (object-reader.ts). */
function sizeOfImage(manifest: ArchiveManifest, asked: number | undefined): number {
  if (asked === undefined) {
    return manifest.sizeBytes;
  }
  const { map } = manifest;
  const stripeBytes = manifest.stripeSectors * SECTOR_BYTES;
  for (let stripe = map.stripeEnd - 1; stripe * stripeBytes >= asked; stripe -= 1) {
    if (map.kind(stripe) === "stored") {
      throw new UbiError(
        "E_EXPORT",
        `an image of ${asked} bytes would leave out stripe ${stripe}, which has data at byte ${stripe * stripeBytes}; ` +
          `the archive's disk has ${manifest.sizeBytes} bytes`,
      );
    }
  }
  return asked;
}

/** Objects of the archive, and what will be its objects, are no place for an image; links lead there as well. */
function checkOutside(targetPath: string, source: StoreDescription): void {
  if (source.kind !== "filesystem") {
    return;
  }
  const target = realPathOf(targetPath);
  for (const folder of [source.path, join(source.path, "data")]) {
    const place = realPathOf(folder);
    if (target === place || target.startsWith(`${place}/`)) {
      throw new UbiError(
        "E_EXPORT",
        `${targetPath} lies in the archive ${source.path} itself, which would be destroyed; write elsewhere`,
      );
    }
  }
}

/** Of what is not there yet, as it will be. */
function realPathOf(path: string): string {
  try {
    return realpathSync(path);
  } catch {
    const folder = dirname(resolve(path));
    return folder === path ? path : join(realPathOf(folder), basename(path));
  }
}

function prepare(output: OutputFile, sizeBytes: number): void {
  if (sizeBytes > output.capacityBytes) {
    throw new UbiError(
      "E_EXPORT",
      `${output.path} has ${output.capacityBytes} bytes, the image needs ${sizeBytes}`,
    );
  }
  if (output.capacityBytes === Infinity) {
    try {
      ftruncateSync(output.fd, sizeBytes);
    } catch (cause) {
      const message = `cannot make ${output.path} ${sizeBytes} bytes long: ${errorText(cause)}`;
      throw new UbiError("E_EXPORT", message, { cause });
    }
  }
}

async function zeroTheRest(
  output: OutputFile,
  { map, stripeSectors }: ArchiveManifest,
  sizeBytes: number,
  signal: AbortSignal,
): Promise<void> {
  const stripeBytes = stripeSectors * SECTOR_BYTES;
  const isData = (stripe: number) => stripe < map.stripeEnd && map.kind(stripe) === "stored";
  const stripes = Math.ceil(sizeBytes / stripeBytes);
  for (let first = 0; first < stripes; first += 1) {
    let end = first;
    while (end < stripes && !isData(end)) {
      end += 1;
    }
    const endBytes = Math.min(end * stripeBytes, sizeBytes);
    for (let offset = first * stripeBytes; offset < endBytes; offset += ZERO_BYTES) {
      zero(output, offset, Math.min(ZERO_BYTES, endBytes - offset));
      await nextTurn();
      signal.throwIfAborted();
    }
    first = end;
  }
}

function zero(output: OutputFile, offset: number, lengthBytes: number): void {
  const mode = FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE;
  if (allocateFile(output.fd, mode, offset, lengthBytes) === 0) {
    return;
  }
  using arena = new Arena(PIECE_BYTES); // a device that cannot: mapped memory is zeros
  for (let done = 0; done < lengthBytes; done += PIECE_BYTES) {
    const piece = Math.min(PIECE_BYTES, lengthBytes - done);
    const result = writeFileAt(output.fd, offset + done, arena.address, piece, false);
    if (result < 0) {
      const message = `cannot zero ${output.path} at byte ${offset + done}: ${errnoText(result)}`;
      throw new UbiError("E_EXPORT", message);
    }
  }
}

/** What the file holds, not what was meant to be written. */
async function hashOf(output: OutputFile, sizeBytes: number, signal: AbortSignal): Promise<string> {
  const hash = createHash("sha256");
  using arena = new Arena(PIECE_BYTES);
  const { address, view } = arena.bytes(PIECE_BYTES);
  for (let offset = 0; offset < sizeBytes; offset += PIECE_BYTES) {
    const lengthBytes = Math.min(PIECE_BYTES, sizeBytes - offset);
    const result = readFileAt(output.fd, offset, address, lengthBytes);
    if (result < 0) {
      const message = `cannot read ${output.path} back at byte ${offset}: ${errnoText(result)}`;
      throw new UbiError("E_EXPORT", message);
    }
    hash.update(view.subarray(0, lengthBytes));
    await nextTurn();
    signal.throwIfAborted();
  }
  return hash.digest("hex");
}
