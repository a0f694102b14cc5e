/**
 * The metadata file on its disk: sectors are read, deciphered, enciphered and written a megabyte at a time,
 * through the page cache, so that media with larger blocks and buffers of any address will do.
 */
import { ftruncateSync } from "node:fs";
import type { XtsCipher } from "../disk/cipher.ts";
import { assert, errnoText, errorText, UbiError } from "../errors.ts";
import { Arena } from "../ffi/arena.ts";
import { probeFile, readFileAt, syncFileData, writeFileAt } from "../ffi/file.ts";
import {
  type Metadata,
  type MetadataMedium,
  metadataBytes,
  stripesOf,
} from "../formats/metadata.ts";
import { appendStripes, decodeMetadata, encodeMetadata } from "../formats/metadata-codec.ts";
import { SECTOR_BYTES } from "../formats/virtio-blk.ts";

/** An open metadata file. Whoever opened it closes it. */
export interface MetadataFile {
  /** For messages. */
  readonly path: string;
  readonly fd: number;
  readonly sizeBytes: number;
  /** The disk's cipher; undefined for a plain disk. */
  readonly cipher: XtsCipher | undefined;
}

/**
 * Reads and checks the metadata of a disk.
 * @param allocate memory for the flags, zeroed, one byte a stripe; private memory when left out
 * @throws UbiError E_METADATA, E_DISK_IO, E_CIPHER that names the file
 */
export function loadMetadata(
  file: MetadataFile,
  allocate?: (stripeCount: number) => Uint8Array,
): Metadata {
  using medium = new FileMedium(file);
  try {
    return decodeMetadata(medium, allocate);
  } catch (error) {
    if (error instanceof UbiError && error.code === "E_METADATA") {
      const message = `cannot use metadata ${file.path}: ${error.message}`;
      throw new UbiError(error.code, message, { cause: error });
    }
    throw error;
  }
}

/**
 * Checks that metadata is that of a disk of this size.
 * @param path of the metadata
 * @throws UbiError E_METADATA_SIZE
 */
export function checkStripeCount(
  path: string,
  metadata: Metadata,
  disk: { readonly path: string; readonly sectors: number },
): void {
  const { stripeCount, stripeShift } = metadata;
  const stripes = stripesOf(disk.sectors, stripeShift);
  if (stripes !== stripeCount) {
    const advice =
      stripes > stripeCount
        ? "the disk was made larger: then run init-metadata --grow"
        : "the disk was cut: then bring back its size";
    throw new UbiError(
      "E_METADATA_SIZE",
      `metadata ${path} has ${stripeCount} stripes but the disk ${disk.path} has ${stripes}; ` +
        `it belongs to another disk, or ${advice}`,
    );
  }
}

/**
 * Writes the whole file, which is as long as `sizeBytes` and long enough, and brings it to disk. After a
 * crash it is whole, or nothing that any reader accepts.
 * @throws UbiError E_DISK_IO, E_CIPHER
 */
export function storeMetadata(file: MetadataFile, metadata: Metadata): void {
  using medium = new FileMedium(file);
  encodeMetadata(metadata, medium);
}

/**
 * Appends stripes to the file, which becomes longer where it must, and brings it to disk. After a crash it has the
 * stripes of before or all of the new ones. Nothing else may be written to it meanwhile.
 * @param metadata all of it, as it is to be
 * @throws UbiError E_DISK_IO, E_CIPHER, E_METADATA_SIZE; the file may have the new stripes all the same
 */
export function appendToMetadata(
  file: Omit<MetadataFile, "sizeBytes">,
  metadata: Metadata,
  stripesBefore: number,
): void {
  const sizeBytes = lengthen(file, metadataBytes(metadata.stripeCount));
  using medium = new FileMedium({ ...file, sizeBytes });
  appendStripes(metadata, stripesBefore, medium);
}

/**
 * Writes the file once more as it is read, and brings it to disk. What a process before this one wrote may not be durable,
 * and where a sync of its failed no later sync would write it, though everybody reads it. Nothing else may be written to
 * it meanwhile.
 * @throws UbiError E_DISK_IO
 */
export function renewMetadata(
  { path, fd, sizeBytes }: Omit<MetadataFile, "cipher">,
  { stripeCount }: Pick<Metadata, "stripeCount">,
): void {
  using medium = new FileMedium({ path, fd, sizeBytes, cipher: undefined }); // moved as it is
  const sectors = metadataBytes(stripeCount) / SECTOR_BYTES;
  const stride = BUFFER_BYTES / SECTOR_BYTES;
  for (let first = 0; first < sectors; first += stride) {
    const count = Math.min(stride, sectors - first);
    medium.read(first, count);
    medium.write(first, count);
  }
  medium.sync();
}

export class FileMedium implements MetadataMedium, Disposable {
  readonly sizeBytes: number;
  readonly buffer: Uint8Array;
  readonly #file: MetadataFile;
  readonly #arena: Arena;
  readonly #address: number;

  constructor(file: MetadataFile) {
    this.#file = file;
    this.sizeBytes = file.sizeBytes;
    this.#arena = new Arena(BUFFER_BYTES);
    const { address, view } = this.#arena.bytes(BUFFER_BYTES);
    this.#address = address;
    this.buffer = view;
  }

  read(sector: number, sectorCount: number): void {
    const { fd, cipher } = this.#file;
    const lengthBytes = this.#lengthOf(sectorCount);
    const result = readFileAt(fd, sector * SECTOR_BYTES, this.#address, lengthBytes);
    this.#check("E_DISK_IO", "read", result);
    if (cipher !== undefined) {
      const deciphered = cipher.decrypt(sector, sectorCount, this.#address, this.#address);
      this.#check("E_CIPHER", "decipher", deciphered);
    }
  }

  write(sector: number, sectorCount: number): void {
    const { fd, cipher } = this.#file;
    const lengthBytes = this.#lengthOf(sectorCount);
    if (cipher !== undefined) {
      const enciphered = cipher.encrypt(sector, sectorCount, this.#address, this.#address);
      this.#check("E_CIPHER", "encipher", enciphered);
    }
    const result = writeFileAt(fd, sector * SECTOR_BYTES, this.#address, lengthBytes, false);
    this.#check("E_DISK_IO", "write", result);
  }

  sync(): void {
    this.#check("E_DISK_IO", "bring to disk", syncFileData(this.#file.fd));
  }

  [Symbol.dispose](): void {
    this.#arena[Symbol.dispose]();
  }

  // --- internal ---

  #lengthOf(sectorCount: number): number {
    const lengthBytes = sectorCount * SECTOR_BYTES;
    assert(lengthBytes <= BUFFER_BYTES, "metadata moves through its buffer");
    return lengthBytes;
  }

  #check(code: "E_DISK_IO" | "E_CIPHER", verb: string, result: number): void {
    if (result < 0) {
      throw new UbiError(code, `cannot ${verb} metadata ${this.#file.path}: ${errnoText(result)}`);
    }
  }
}

// --- internal ---

const BUFFER_BYTES = 2 ** 20;

/** How long the file is then. */
function lengthen({ path, fd }: Omit<MetadataFile, "sizeBytes">, neededBytes: number): number {
  const geometry = probeFile(fd);
  if (typeof geometry === "number") {
    throw new UbiError("E_DISK_IO", `cannot look at metadata ${path}: ${errnoText(geometry)}`);
  }
  const { sizeBytes, isBlockDevice } = geometry;
  if (sizeBytes >= neededBytes) {
    return sizeBytes;
  }
  if (isBlockDevice) {
    throw new UbiError(
      "E_METADATA_SIZE",
      `metadata ${path} is a device of ${sizeBytes} bytes, and the disk's stripes need ${neededBytes}; make it larger`,
    );
  }
  try {
    ftruncateSync(fd, neededBytes);
  } catch (error) {
    throw new UbiError("E_DISK_IO", `cannot make metadata ${path} longer: ${errorText(error)}`, {
      cause: error,
    });
  }
  return neededBytes;
}
