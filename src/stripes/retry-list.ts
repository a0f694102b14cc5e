/** Stripes whose fetch failed, each until its pause is over. They are few: no more than fetch buffers, or asked for. */

interface Retry {
  readonly stripe: number;
  readonly dueMs: number;
  /** Somebody has asked for the stripe, before it failed or since. */
  isAwaited: boolean;
}

export class RetryList {
  #retries: Retry[] = [];
  /**
   * Stripes that were asked for and did not come yet. Whoever waits need not see that one was on its way and failed: it
   * looks the same as before, so nobody asks again.
   */
  readonly #wanted = new Set<number>();

  get count(): number {
    return this.#retries.length;
  }

  /** When the first pause is over; Infinity without any. */
  get dueMs(): number {
    return this.#retries.reduce((due, { dueMs }) => Math.min(due, dueMs), Infinity);
  }

  add(stripe: number, dueMs: number): void {
    this.#retries.push({ stripe, dueMs, isAwaited: this.#wanted.has(stripe) });
  }

  has(stripe: number): boolean {
    return this.#retries.some((retry) => retry.stripe === stripe);
  }

  /** Somebody waits for the stripe; false when it is not in the list. */
  await(stripe: number): boolean {
    this.#wanted.add(stripe);
    const retry = this.#retries.find((other) => other.stripe === stripe);
    if (retry !== undefined) {
      retry.isAwaited = true;
    }
    return retry !== undefined;
  }

  /** The stripe came, or was given up: nobody waits for it any more. */
  forget(stripe: number): void {
    this.#wanted.delete(stripe);
  }

  /** Takes out what is due. */
  takeDue(nowMs: number): readonly Readonly<Retry>[] {
    if (this.#retries.length === 0) {
      return this.#retries;
    }
    const due = this.#retries.filter(({ dueMs }) => dueMs <= nowMs);
    this.#retries = this.#retries.filter(({ dueMs }) => dueMs > nowMs);
    return due;
  }

  clear(): void {
    this.#retries = [];
    this.#wanted.clear();
  }
}
