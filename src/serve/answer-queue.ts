/** Answers of one client that are under way, in the order of its requests, and the buffers that they hold. */
import { assert } from "../errors.ts";
import type { AnswerBytes } from "./fixed-answers.ts";
import type { ReadOwner, StripeReads } from "./stripe-reads.ts";

/** An answer under way. */
export interface Answer {
  /** Undefined: it holds a stripe, which is still to be read. */
  bytes: AnswerBytes | undefined;
  readonly stripe: number;
  readonly place: "disk" | "source";
  readonly isSparse: boolean;
  /** -1 for none, or none yet. */
  buffer: number;
  /** The session ends behind it. */
  isLast: boolean;
}

export class AnswerQueue {
  readonly #reads: StripeReads;
  readonly #owner: ReadOwner;
  readonly #answers: Answer[] = [];

  /** @param owner of the reads */
  constructor(reads: StripeReads, owner: ReadOwner) {
    this.#reads = reads;
    this.#owner = owner;
  }

  get count(): number {
    return this.#answers.length;
  }

  /** The one that is sent next. */
  get head(): Answer | undefined {
    return this.#answers[0];
  }

  /** Nothing may follow. */
  get isClosed(): boolean {
    return this.#answers.at(-1)?.isLast === true;
  }

  get buffersHeld(): number {
    return this.#answers.filter((answer) => answer.buffer >= 0).length;
  }

  /** The first one that needs a buffer. */
  get unread(): Answer | undefined {
    return this.#answers.find((answer) => answer.bytes === undefined && answer.buffer < 0);
  }

  /** An answer that is there, or the stripe that is to be read for it. */
  add(what: { readonly bytes: AnswerBytes; readonly isLast: boolean } | StripeAsked): void {
    const isThere = "bytes" in what;
    this.#answers.push({
      bytes: isThere ? what.bytes : undefined,
      stripe: isThere ? -1 : what.stripe,
      place: isThere ? "disk" : what.place,
      isSparse: isThere ? false : what.isSparse,
      buffer: -1,
      isLast: isThere && what.isLast,
    });
  }

  /** The first one that waits for the read of a buffer; several may, for the same stripe. */
  waitingFor(buffer: number): Answer | undefined {
    return this.#answers.find((answer) => answer.buffer === buffer && answer.bytes === undefined);
  }

  indexOf(answer: Answer): number {
    return this.#answers.indexOf(answer);
  }

  freeBuffer(answer: Answer): void {
    if (answer.buffer >= 0) {
      this.#reads.free(answer.buffer, this.#owner);
      answer.buffer = -1;
    }
  }

  /** The head was sent. */
  shift(): void {
    const head = this.#answers.shift();
    assert(head !== undefined, "what was sent was there");
    this.freeBuffer(head);
  }

  /** All from `first` on. */
  drop(first: number): void {
    for (const answer of this.#answers.splice(first)) {
      this.freeBuffer(answer);
    }
  }
}

// --- internal ---

interface StripeAsked {
  readonly stripe: number;
  readonly place: "disk" | "source";
  readonly isSparse: boolean;
}
