/** Answers that never change, in memory that they are sent from: one of each, whoever asks. */
import { assert } from "../errors.ts";
import { Arena } from "../ffi/arena.ts";
import {
  encodeDigest,
  encodeFeatures,
  encodeVersion,
  FEATURE,
  OPCODE,
  STATUS,
} from "../formats/stripe-protocol.ts";

/** A piece of memory to be sent. */
export interface AnswerBytes {
  /** Its first byte. */
  readonly status: number;
  readonly address: number;
  readonly lengthBytes: number;
}

/** The answer to `metadata`, and the SHA-256 of what it holds. */
export interface MetadataAnswer extends AnswerBytes {
  readonly digest: Uint8Array;
}

const PLACE_BYTES = 64;
const STATUSES = 256;

export class FixedAnswers implements Disposable {
  readonly #arena = new Arena((STATUSES + 3) * PLACE_BYTES);
  readonly #statuses: readonly AnswerBytes[];
  readonly #byOpcode: ReadonlyMap<number, AnswerBytes>;

  constructor(metadata: MetadataAnswer) {
    const features = FEATURE.READ_SPARSE | FEATURE.METADATA_DIGEST;
    this.#byOpcode = new Map<number, AnswerBytes>([
      [OPCODE.HELLO, this.#put((bytes) => encodeVersion(bytes, 0))],
      [OPCODE.FEATURES, this.#put((bytes) => encodeFeatures(bytes, 0, features))],
      [OPCODE.METADATA_DIGEST, this.#put((bytes) => encodeDigest(bytes, 0, metadata.digest))],
      [OPCODE.METADATA, metadata],
    ]);
    this.#statuses = Array.from({ length: STATUSES }, (_, status) =>
      this.#put((bytes) => {
        bytes[0] = status;
        return 1;
      }, status),
    );
  }

  /** To a request that is no read. */
  to(opcode: number): AnswerBytes {
    return this.#byOpcode.get(opcode) ?? this.status(STATUS.UNKNOWN_OPCODE);
  }

  status(status: number): AnswerBytes {
    const answer = this.#statuses[status];
    assert(answer !== undefined, "a status is one byte");
    return answer;
  }

  [Symbol.dispose](): void {
    this.#arena[Symbol.dispose]();
  }

  // --- internal ---

  #put(encode: (bytes: Uint8Array) => number, status: number = STATUS.OK): AnswerBytes {
    const { address, view } = this.#arena.bytes(PLACE_BYTES);
    return { status, address, lengthBytes: encode(view) };
  }
}
