/**
 * The object `stripe-mapping`: the map of an archive, enciphered where the archive is, and authenticated
 * (formats/stripe-mapping.ts). Plaintext passes through memory piece by piece; only the file is there as a whole.
 *
 * Cost: a million stored stripes are a file of 90 MB, written or read in less than 2 s.
 */
import { createHmac, timingSafeEqual } from "node:crypto";
import { XtsCipher } from "../disk/cipher.ts";
import { assert, errnoText, UbiError } from "../errors.ts";
import { Arena, type ArenaView } from "../ffi/arena.ts";
import { decryptXtsTweak, encryptXtsTweak } from "../ffi/xts.ts";
import { MAPPING_SECTOR_HIGH, mappingHmacPrefix } from "../formats/stripe-mapping.ts";
import {
  decodeMappingFile,
  type MappingFile,
  recordedSize,
  strangePadding,
  visitMappedStripes,
} from "../formats/stripe-mapping-decode.ts";
import {
  MappingPlaintext,
  mappingFileHead,
  mappingFileTail,
  writeElements,
} from "../formats/stripe-mapping-encode.ts";
import { SECTOR_BYTES } from "../formats/virtio-blk.ts";
import type { ArchiveKeys } from "./archive-keys.ts";
import { StripeMap } from "./stripe-map.ts";

/** The bytes of `stripe-mapping`. The last stripe of the map becomes a zero stripe when it is absent. */
export function encodeMapping(options: {
  readonly map: StripeMap;
  readonly stripeSectors: number;
  /** Of the disk: the map has all its stripes. */
  readonly sizeBytes: number;
  readonly keys: ArchiveKeys;
}): Uint8Array {
  const { map, sizeBytes, keys } = options;
  const stripeBytes = options.stripeSectors * SECTOR_BYTES;
  assert(Math.ceil(sizeBytes / stripeBytes) === map.stripeEnd, "a map has the stripes of its disk");
  if (map.stripeEnd > 0 && map.kind(map.stripeEnd - 1) === "absent") {
    map.setZero(map.stripeEnd - 1);
  }
  const isWhole = sizeBytes % stripeBytes === 0;
  const plaintext = new MappingPlaintext(map, isWhole ? undefined : sizeBytes);
  const head = mappingFileHead(plaintext.paddedBytes);
  // As if all elements were long: what is not written takes no memory.
  const file = new Uint8Array(head.length + plaintext.paddedBytes * 2 + TAIL_BYTES_MAX);
  file.set(head);
  let at = head.length;
  const hmac = createHmac("sha256", keys.hmacKey).update(mappingHmacPrefix(plaintext.lengthBytes));
  using cipher = new PieceCipher(keys.xtsKey);
  for (let offset = 0; offset < plaintext.paddedBytes; offset += PIECE_BYTES) {
    const piece = cipher.piece(Math.min(PIECE_BYTES, plaintext.paddedBytes - offset));
    plaintext.fill(piece);
    cipher.encrypt(offset, piece.length);
    hmac.update(piece);
    at = writeElements(piece, file, at);
  }
  const tail = mappingFileTail(plaintext.lengthBytes, hmac.digest());
  assert(tail.length <= TAIL_BYTES_MAX, "the file has room for its end");
  file.set(tail, at);
  return file.subarray(0, at + tail.length);
}

export interface DecodedMapping {
  readonly map: StripeMap;
  readonly sizeBytes: number;
  /** What is in the file that no writer puts there and readers do not look at, such as "5 bytes behind its end". */
  readonly surplus: readonly string[];
}

/**
 * Reads what `encodeMapping` and others write. The file's memory is used for that: it is changed.
 * @throws UbiError E_ARCHIVE, E_ARCHIVE_TAMPERED that does not name the file
 */
export function decodeMapping(
  file: Uint8Array,
  options: {
    readonly stripeSectors: number;
    /** Of the disk that the archive is for; more are refused. */
    readonly stripesMax?: number;
    readonly keys: ArchiveKeys;
  },
): DecodedMapping {
  const mapping = decodeMappingFile(file);
  checkTag(mapping, options.keys.hmacKey);
  const padded = mapping.ciphertext;
  decryptPadded(padded, options.keys.xtsKey);
  const plaintext = padded.subarray(0, mapping.plaintextBytes);
  const { map, bytesBehind } = mapOf(plaintext, options.stripesMax ?? Infinity);
  const recorded = recordedSize(padded, mapping.plaintextBytes);
  const sizeBytes = sizeOf(map, options.stripeSectors * SECTOR_BYTES, recorded);
  const surplus = [
    countText(mapping.bytesBehind, "behind its end"),
    countText(mapping.bytesBetween, "more than its fields need"),
    countText(bytesBehind, "behind the map of stripes in its ciphertext"),
    countText(
      strangePadding(padded, mapping.plaintextBytes),
      "of padding that do not belong there",
    ),
  ];
  return { map, sizeBytes, surplus: surplus.filter((text) => text !== undefined) };
}

// --- internal ---

const PIECE_BYTES = 256 * 1024;
const TAIL_BYTES_MAX = 128;

function checkTag(mapping: MappingFile, hmacKey: Uint8Array): void {
  const tag = createHmac("sha256", hmacKey)
    .update(mappingHmacPrefix(mapping.plaintextBytes))
    .update(mapping.ciphertext)
    .digest();
  if (!timingSafeEqual(tag, mapping.hmacTag)) {
    throw new UbiError(
      "E_ARCHIVE_TAMPERED",
      "its HMAC does not fit: it was changed, damaged, or belongs to another archive or to an unfinished run; " +
        "bring it back from a copy of the same archive",
    );
  }
}

function decryptPadded(padded: Uint8Array, xtsKey: Uint8Array | undefined): void {
  if (xtsKey === undefined) {
    return;
  }
  using cipher = new PieceCipher(xtsKey);
  for (let offset = 0; offset < padded.length; offset += PIECE_BYTES) {
    const part = padded.subarray(offset, offset + PIECE_BYTES);
    const piece = cipher.piece(part.length);
    piece.set(part);
    cipher.decrypt(offset, part.length);
    part.set(piece);
  }
}

/** Goes through the entries twice: first to learn how much memory they need. */
function mapOf(
  plaintext: Uint8Array,
  stripesMax: number,
): { readonly map: StripeMap; readonly bytesBehind: number } {
  let stripeEnd = 0;
  let storedMax = 0;
  const bytesBehind = visitMappedStripes(plaintext, {
    zero: (stripe) => {
      stripeEnd = Math.max(stripeEnd, stripe + 1);
    },
    stored: (stripe) => {
      stripeEnd = Math.max(stripeEnd, stripe + 1);
      storedMax += 1;
    },
  });
  if (stripeEnd > stripesMax) {
    throw new UbiError(
      "E_ARCHIVE",
      `it maps ${stripeEnd} stripes, the disk only has ${stripesMax}; make the disk as large as the archive's`,
    );
  }
  const map = StripeMap.create(stripeEnd, storedMax);
  visitMappedStripes(plaintext, {
    zero: (stripe) => map.setZero(stripe),
    stored: (stripe, bytes, at) => map.setStored(stripe, bytes, at),
  });
  return { map, bytesBehind };
}

function countText(count: number, where: string): string | undefined {
  return count === 0 ? undefined : `${count} bytes ${where}`;
}

function sizeOf(map: StripeMap, stripeBytes: number, recorded: number | undefined): number {
  const wholeBytes = map.stripeEnd * stripeBytes;
  if (recorded === undefined) {
    return wholeBytes;
  }
  const isInLastStripe = recorded > wholeBytes - stripeBytes && recorded < wholeBytes;
  if (!isInLastStripe || recorded % SECTOR_BYTES !== 0) {
    throw new UbiError(
      "E_ARCHIVE",
      `it gives the disk ${recorded} bytes, which do not end in its last stripe ${map.stripeEnd - 1}`,
    );
  }
  return recorded;
}

/** A piece of plaintext and the cipher for it; without a key nothing is enciphered. */
class PieceCipher implements Disposable {
  readonly #arena = new Arena(PIECE_BYTES + 64);
  readonly #piece: ArenaView<Uint8Array>;
  readonly #tweak: ArenaView<Uint32Array>;
  readonly #cipher: XtsCipher | undefined;

  constructor(xtsKey: Uint8Array | undefined) {
    this.#piece = this.#arena.bytes(PIECE_BYTES);
    this.#tweak = this.#arena.words(4);
    this.#cipher = xtsKey === undefined ? undefined : XtsCipher.create(xtsKey);
  }

  piece(lengthBytes: number): Uint8Array {
    return this.#piece.view.subarray(0, lengthBytes);
  }

  encrypt(offset: number, lengthBytes: number): void {
    this.#run(encryptXtsTweak, offset, lengthBytes);
  }

  decrypt(offset: number, lengthBytes: number): void {
    this.#run(decryptXtsTweak, offset, lengthBytes);
  }

  [Symbol.dispose](): void {
    this.#piece.view.fill(0);
    this.#cipher?.[Symbol.dispose]();
    this.#arena[Symbol.dispose]();
  }

  /** @param offset of the piece in the plaintext */
  #run(work: typeof encryptXtsTweak, offset: number, lengthBytes: number): void {
    if (this.#cipher === undefined) {
      return;
    }
    const { address } = this.#piece;
    this.#tweak.view.set([0, 0, offset / SECTOR_BYTES, MAPPING_SECTOR_HIGH]);
    const count = lengthBytes / SECTOR_BYTES;
    const result = work(this.#cipher.contextAddress, this.#tweak.address, count, address, address);
    if (result < 0) {
      throw new UbiError(
        "E_CIPHER",
        `the cipher fails at the map of stripes: ${errnoText(result)}`,
      );
    }
  }
}
