/** Runs of stripes that have a flag, as values and as text. Made on demand: a disk may have millions. */

/** A run of stripes that follow each other; both ends are included. */
export interface StripeRun {
  readonly first: number;
  readonly last: number;
}

export function* stripeRuns(flags: Uint8Array, flag: number): Generator<StripeRun> {
  let first = -1;
  for (let stripe = 0; stripe < flags.length; stripe += 1) {
    const isSet = ((flags[stripe] ?? 0) & flag) !== 0;
    if (isSet && first < 0) {
      first = stripe;
    } else if (!isSet && first >= 0) {
      yield { first, last: stripe - 1 };
      first = -1;
    }
  }
  if (first >= 0) {
    yield { first, last: flags.length - 1 };
  }
}

/** `0-2, 4, 5, 7`: three stripes or more in a row are written as a range, two one by one. */
export function runText({ first, last }: StripeRun): string {
  const separator = last - first === 1 ? ", " : "-";
  return first === last ? `${first}` : `${first}${separator}${last}`;
}

/** The first runs of a list, for a message. */
export function runsInShort(flags: Uint8Array, flag: number, runsMax = 8): string {
  const shown: string[] = [];
  for (const run of stripeRuns(flags, flag)) {
    if (shown.length === runsMax) {
      return `${shown.join(", ")} and others`;
    }
    shown.push(runText(run));
  }
  return shown.join(", ");
}
