/** Stripe objects. */
import { UbiError } from "../errors.ts";
import type { Compression } from "../formats/archive-metadata.ts";

export interface EncodedStripe {
  /** SHA-256 of `bytes`: 32 bytes. */
  readonly hash: Uint8Array;
  /** What to store. Memory of the encoder, or the very `data`: until the encoder's next stripe. */
  readonly bytes: Uint8Array;
  /** Longer than the stripe: where stripes are enciphered, its end shares tweaks with the next stripe. */
  readonly isOverlong: boolean;
}

/** One stripe at a time; for several in flight, several encoders. */
export class StripeEncoder implements Disposable {
  constructor(options: {
    readonly compression: Compression;
    readonly xtsKey: Uint8Array | undefined;
    readonly stripeSectors: number;
  }) {
    throw new UbiError("E_ARCHIVE", `${options.stripeSectors}`);
  }

  /** @param data a whole stripe */
  encode(stripe: number, data: Uint8Array): EncodedStripe | "zero" {
    throw new UbiError("E_ARCHIVE", `${stripe} ${data}`);
  }

  [Symbol.dispose](): void {}
}

export class StripeDecoder implements Disposable {
  constructor(options: {
    readonly compression: Compression["kind"];
    readonly xtsKey: Uint8Array | undefined;
    readonly stripeSectors: number;
  }) {
    throw new UbiError("E_ARCHIVE", `${options.stripeSectors}`);
  }

  /**
   * Fills `into`, zeros behind what the object holds.
   * @throws UbiError E_ARCHIVE_DATA that names the object
   */
  decode(stripe: number, expectedHash: Uint8Array, object: Uint8Array, into: Uint8Array): void {
    throw new UbiError("E_ARCHIVE_DATA", `${stripe} ${expectedHash} ${object} ${into}`);
  }

  [Symbol.dispose](): void {}
}

/** The name of a stripe's object. */
export function stripeObjectKey(hashHex: string): string {
  return `data/${hashHex}`;
}

/** The longest object that a stripe can have: the limit when one is read. */
export function stripeObjectBytesMax(
  compression: Compression["kind"],
  stripeSectors: number,
): number {
  throw new UbiError("E_ARCHIVE", `${compression} ${stripeSectors}`);
}
