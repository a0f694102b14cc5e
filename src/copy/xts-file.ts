/**
 * Enciphers or deciphers a whole image, or a run of its sectors, as the disk's cipher would. A megabyte at
 * a time: memory does not grow with the image.
 *
 *   decode   input sector start + i  ->  output sector offset + i    offset: 0 when not given
 *   encode   input sector start + i  ->  output sector offset + i    offset: start when not given
 *
 * The tweak is always the input's sector number, start + i.
 */
import { ftruncateSync } from "node:fs";
import type { XtsCipher } from "../disk/cipher.ts";
import { seenLockHolder } from "../disk/disk-lock.ts";
import { errnoText, errorText, UbiError } from "../errors.ts";
import { Arena } from "../ffi/arena.ts";
import { readFileAt, writeFileAt } from "../ffi/file.ts";
import { SECTOR_BYTES } from "../formats/virtio-blk.ts";
import { log } from "../log.ts";
import { InputFile } from "./input-file.ts";
import { OutputFile } from "./output-file.ts";

export interface XtsFileOptions {
  readonly action: "encode" | "decode";
  readonly inputPath: string;
  readonly outputPath: string;
  readonly startSector: number;
  /** To the end of the input when undefined. */
  readonly sectorCount: number | undefined;
  /** Where the first sector goes in the output, in sectors. */
  readonly outputSector: number | undefined;
  /** Ends the work between two pieces; nothing is left of the output then. */
  readonly signal?: AbortSignal;
  readonly onProgress?: (done: XtsProgress) => void;
}

export interface XtsProgress {
  readonly doneBytes: number;
  readonly totalBytes: number;
}

/**
 * Writes the output, which appears only when it is whole and on disk. `openCipher` is called when all else
 * is found right: its key may come from a pipe that can be read only once.
 * @throws UbiError E_XTS_RANGE, E_XTS_OUTPUT, E_DISK_OPEN, E_DISK_IO, E_CIPHER; the signal's reason
 */
export async function convertXtsFile(
  openCipher: () => Promise<XtsCipher>,
  options: XtsFileOptions,
): Promise<void> {
  using input = new InputFile(options.inputPath);
  warnInUse(input.fd, options.inputPath);
  const range = rangeOf(options, input.sizeBytes);
  using output = OutputFile.create(options.outputPath, {
    inputs: [options.inputPath],
    mayReplace: true,
    code: "E_XTS_OUTPUT",
  });
  const endBytes = range.count === 0 ? 0 : (range.outputSector + range.count) * SECTOR_BYTES;
  checkRoom(output, endBytes);
  using cipher = await openCipher();
  using arena = new Arena(PIECE_SECTORS * SECTOR_BYTES);
  const conversion = { cipher, action: options.action, input, output, address: arena.address };
  for (let done = 0; done < range.count; done += PIECE_SECTORS) {
    convertPiece(conversion, range, done);
    const totalBytes = range.count * SECTOR_BYTES;
    const doneBytes = Math.min(totalBytes, (done + PIECE_SECTORS) * SECTOR_BYTES);
    options.onProgress?.({ doneBytes, totalBytes });
    await breathe(done / PIECE_SECTORS, options.signal);
  }
  output.commit();
}

// --- internal ---

const PIECE_SECTORS = 2048;
/** Signals are noticed this often, in pieces: about every 30 ms. */
const BREATH_PIECES = 32;

/** Who only looks takes no lock, not even for a moment: a backend that starts would be refused. */
function warnInUse(fd: number, path: string): void {
  const user = seenLockHolder(fd);
  if (user !== undefined) {
    log.warn(`${path} is in use by ${user}: what is written meanwhile may be half in the output`);
  }
}

interface SectorRange {
  readonly start: number;
  readonly count: number;
  readonly outputSector: number;
}

function rangeOf(options: XtsFileOptions, inputBytes: number): SectorRange {
  const { inputPath, startSector: start } = options;
  if (inputBytes % SECTOR_BYTES !== 0) {
    throw rangeError(`${inputPath} has ${inputBytes} bytes, not a multiple of ${SECTOR_BYTES}`);
  }
  const sectors = inputBytes / SECTOR_BYTES;
  if (start >= sectors) {
    throw rangeError(`${inputPath} has ${sectors} sectors; a start at ${start} is beyond them`);
  }
  const count = options.sectorCount ?? sectors - start;
  if (count > sectors - start) {
    throw rangeError(
      `${inputPath} has ${sectors - start} sectors from ${start} on, not ${count}; give a smaller length`,
    );
  }
  const outputSector = options.outputSector ?? (options.action === "encode" ? start : 0);
  if (!Number.isSafeInteger((outputSector + count) * SECTOR_BYTES)) {
    throw rangeError(`an output offset of ${outputSector} sectors is beyond any file`);
  }
  return { start, count, outputSector };
}

function checkRoom(output: OutputFile, endBytes: number): void {
  if (endBytes > output.capacityBytes) {
    throw rangeError(`${output.path} has ${output.capacityBytes} bytes, ${endBytes} are needed`);
  }
  if (output.capacityBytes === Infinity) {
    try {
      ftruncateSync(output.fd, endBytes); // a leading hole, or nothing at all, is there as well
    } catch (error) {
      throw new UbiError(
        "E_XTS_OUTPUT",
        `cannot make ${output.path} ${endBytes} bytes long: ${errorText(error)}`,
        { cause: error },
      );
    }
  }
}

interface Conversion {
  readonly cipher: XtsCipher;
  readonly action: "encode" | "decode";
  readonly input: InputFile;
  readonly output: OutputFile;
  /** Of the one piece in memory. */
  readonly address: number;
}

function convertPiece(conversion: Conversion, range: SectorRange, done: number): void {
  const { cipher, action, input, output, address } = conversion;
  const count = Math.min(PIECE_SECTORS, range.count - done);
  const sector = range.start + done;
  const bytes = count * SECTOR_BYTES;
  const read = readFileAt(input.fd, sector * SECTOR_BYTES, address, bytes);
  if (read < 0) {
    throw new UbiError(
      "E_DISK_IO",
      `cannot read ${input.path} at sector ${sector}: ${errnoText(read)}`,
    );
  }
  const ciphered =
    action === "encode"
      ? cipher.encrypt(sector, count, address, address)
      : cipher.decrypt(sector, count, address, address);
  if (ciphered < 0) {
    throw new UbiError("E_CIPHER", `the cipher fails at sector ${sector}: ${errnoText(ciphered)}`);
  }
  const offset = (range.outputSector + done) * SECTOR_BYTES;
  const written = writeFileAt(output.fd, offset, address, bytes, false);
  if (written < 0) {
    throw new UbiError(
      "E_DISK_IO",
      `cannot write ${output.path} at byte ${offset}: ${errnoText(written)}`,
    );
  }
}

/** Lets signals in now and then: all else here is synchronous. */
async function breathe(piece: number, signal: AbortSignal | undefined): Promise<void> {
  if (piece % BREATH_PIECES === 0) {
    await Bun.sleep(0);
  }
  signal?.throwIfAborted();
}

function rangeError(message: string): UbiError {
  return new UbiError("E_XTS_RANGE", message);
}
