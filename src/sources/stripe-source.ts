/**
 * Where stripes come from. A request names a buffer and a part of a stripe; its end is a completion that is
 * read later, in any order. One thread owns a source; nothing here blocks, and nothing throws once it is open.
 */

export interface StripeSource extends Disposable {
  /** Size in sectors, exact: the last stripe may be short. */
  readonly sectors: number;
  /** Offsets and lengths of requests are multiples of this; at least a sector, at most a stripe. */
  readonly unitBytes: number;
  /** Signalled when completions can be read; -1 when requests have ended as soon as they were submitted. */
  readonly waitFd: number;

  /** Whether the source holds the stripe. */
  has(stripe: number): boolean;

  /**
   * Begins to fill `lengthBytes` at `address`, which the source may write until the completion was read.
   * What lies behind the end of the source becomes zeros in its last stripe; a stripe that it does not hold is an
   * error, never zeros.
   * @param id comes back with the completion; under way once
   * @param isDemanded somebody waits for it: it goes before requests that nobody waits for
   */
  request(id: number, part: StripePart, address: number, isDemanded?: boolean): void;

  /** Somebody waits by now for a request that was not read as completed; without effect when it has ended. */
  raise(id: number): void;

  /** Hands over what was requested; never waits. */
  submit(): void;

  /** Completions that can be read now. */
  completions(): number;
  completedId(index: number): number;
  /** 0 when the buffer is filled, or a negative errno. */
  completedResult(index: number): number;
  /** Drops the first `count` completions. */
  release(count: number): void;

  /** For owners with an event loop, instead of `waitFd`: resolves when completions may be read. */
  nextCompletion?(): Promise<void>;
}

/** A range of bytes of a stripe. */
export interface StripePart {
  readonly stripe: number;
  readonly offsetBytes: number;
  readonly lengthBytes: number;
}
