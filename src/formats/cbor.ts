/**
 * CBOR (RFC 8949) item by item, on the library cborg. What is large (arrays and maps of millions of items) its
 * users read and write themselves: `position` says where.
 */
import { encode, Tokenizer } from "cborg";
import { assert, errorText, UbiError } from "../errors.ts";

/** The shortest encoding of one item. */
export function encodeCborItem(
  value: number | string | Uint8Array | readonly number[],
): Uint8Array {
  return encode(value);
}

/** The head of an array or map: major type 4 or 5 and a count. */
export function encodeCborHead(kind: "array" | "map", count: number): Uint8Array {
  const head = encode(count).slice();
  head[0] = (head[0] ?? 0) | ((kind === "array" ? MAJOR.ARRAY : MAJOR.MAP) << 5);
  return head;
}

export type CborItem =
  | { readonly kind: "uint"; readonly value: number | bigint }
  | { readonly kind: "text"; readonly value: string }
  | { readonly kind: "bytes"; readonly value: Uint8Array }
  /** The items follow: `count` of them, or pairs; when it is Infinity a break ends them. */
  | { readonly kind: "array" | "map"; readonly count: number }
  /** An item follows, to which the tag belongs. */
  | { readonly kind: "tag" }
  | { readonly kind: "break" | "other" };

/** Reads items one after the other. All errors are UbiError E_ARCHIVE without the name of what is read. */
export class CborReader {
  readonly #bytes: Uint8Array;
  readonly #tokens: Tokenizer;

  constructor(bytes: Uint8Array) {
    this.#bytes = bytes;
    this.#tokens = new Tokenizer(bytes, { allowBigInt: true });
  }

  /** Where the next item begins. */
  get position(): number {
    return this.#tokens._pos;
  }

  /** Goes on behind what somebody else has read. */
  set position(value: number) {
    assert(value >= this.#tokens._pos, "a reader goes forward");
    assert(value <= this.#bytes.length, "a reader stays in its bytes");
    this.#tokens._pos = value;
  }

  /** The next item; of an array or a map only its head. */
  next(): CborItem {
    if (this.#tokens.done()) {
      throw cborError(this.position, "it ends early");
    }
    const at = this.position;
    try {
      return itemOf(this.#tokens.next());
    } catch (error) {
      throw cborError(at, errorText(error));
    }
  }

  /** As `next`, without the tags in front of it. */
  nextUntagged(): CborItem {
    for (;;) {
      const item = this.next();
      if (item.kind !== "tag") {
        return item;
      }
    }
  }

  /** Passes over a whole value with all that is in it. */
  skip(): void {
    const open: number[] = []; // items that are still to come, of each array and map around
    do {
      const item = this.nextUntagged();
      if (item.kind === "break") {
        if (open.pop() !== Infinity) {
          throw cborError(this.position, "a break stands where nothing is open");
        }
      } else {
        if (open.length > 0) {
          open[open.length - 1] = (open.at(-1) ?? 0) - 1;
        }
        if (item.kind === "array" || item.kind === "map") {
          open.push(item.kind === "map" ? item.count * 2 : item.count);
        }
      }
      while (open.at(-1) === 0) {
        open.pop();
      }
      if (open.length > DEPTH_MAX) {
        throw cborError(this.position, `more than ${DEPTH_MAX} values are nested`);
      }
    } while (open.length > 0);
  }
}

export function cborError(position: number, why: string): UbiError {
  return new UbiError(
    "E_ARCHIVE",
    `it is not the CBOR that was expected, at byte ${position}: ${why}`,
  );
}

export const MAJOR = { UINT: 0, BYTES: 2, TEXT: 3, ARRAY: 4, MAP: 5, TAG: 6 } as const;

// --- internal ---

const DEPTH_MAX = 64;

function itemOf(token: ReturnType<Tokenizer["next"]>): CborItem {
  const { value } = token;
  switch (token.type.major) {
    case MAJOR.UINT:
      return { kind: "uint", value };
    case MAJOR.BYTES:
      return { kind: "bytes", value };
    case MAJOR.TEXT:
      return { kind: "text", value };
    case MAJOR.ARRAY:
      return { kind: "array", count: value };
    case MAJOR.MAP:
      return { kind: "map", count: value };
    case MAJOR.TAG:
      return { kind: "tag" };
    default:
      return { kind: token.type.name === "break" ? "break" : "other" };
  }
}
