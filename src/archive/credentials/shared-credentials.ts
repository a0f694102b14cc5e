/**
 * The credentials of a store, in memory that all threads share: one of them, the keeper, reads them and replaces them
 * (credential-keeper.ts), all others use them, and tell when they are no longer good.
 *
 *   user:    request with generation N --> refused: WISH = N, wait for ANSWERS --> generation N + 1, or why not
 *   keeper:  sleeps until WISH is the present generation --> reads --> publishes, ANSWERS += 1
 *
 * However many threads are refused at once, the credentials are read once.
 */
import { UbiError } from "../../errors.ts";
import { abortableWait } from "../abortable-wait.ts";
import { type Credentials, decodeCredentials } from "./credentials.ts";
import { PublishedBytes } from "./published-bytes.ts";

/** Plain data for all threads. Secrets included: never log it. */
export interface SharedCredentials {
  readonly control: SharedArrayBuffer;
  readonly current: SharedArrayBuffer;
  /** Why the last renewal failed. */
  readonly failure: SharedArrayBuffer;
  /** How long a renewal can take; undefined: where they come from, they cannot change. */
  readonly renewalMsMax: number | undefined;
}

export interface CurrentCredentials {
  readonly generation: number;
  readonly credentials: Credentials;
}

export const CONTROL = {
  /** The generation that is no longer good; 0: none; CLOSED: there will be no other. */
  WISH: 0,
  /** Renewals that have ended, well or not. */
  ANSWERS: 1,
  /** Not 0 once a service took any of these credentials. */
  ACCEPTED: 2,
  WORDS: 3,
} as const;

export const CLOSED = -1;

/** Credentials that have an end are renewed this long before it. */
const EARLY_MS = 5 * 60_000;
/** A thread whom such a renewal brought nothing asks for it again after this long. */
const EARLY_PAUSE_MS = 20_000;
/** A thread that waits looks again after this long, should a wish have been overwritten by another thread's. */
const RECHECK_MS = 500;
/** What the keeper may need beside reading. */
const SLACK_MS = 5_000;

/** What was published last; undefined once it was wiped. */
export function readCredentials(published: PublishedBytes): CurrentCredentials | undefined {
  const publication = published.read();
  if (publication === undefined) {
    return undefined;
  }
  const { version, bytes } = publication;
  const credentials = decodeCredentials(bytes);
  bytes.fill(0);
  return { generation: version, credentials };
}

export class CredentialUser {
  readonly #shared: SharedCredentials;
  readonly #control: Int32Array<SharedArrayBuffer>;
  readonly #published: PublishedBytes;
  #current: CurrentCredentials | undefined;
  #nextWishMs = Number.NEGATIVE_INFINITY;

  constructor(shared: SharedCredentials) {
    this.#shared = shared;
    this.#control = new Int32Array(shared.control);
    this.#published = PublishedBytes.attach(shared.current);
  }

  /** Of the credentials that were published last. */
  get generation(): number {
    return this.#published.version;
  }

  get canRenew(): boolean {
    return this.#shared.renewalMsMax !== undefined;
  }

  /** Whether a service took these credentials, or some before them: a refusal is news then, and no wrong setting. */
  get wereAccepted(): boolean {
    return Atomics.load(this.#control, CONTROL.ACCEPTED) !== 0;
  }

  accepted(): void {
    if (!this.wereAccepted) {
      Atomics.store(this.#control, CONTROL.ACCEPTED, 1);
    }
  }

  /**
   * The credentials to use now. Near their end new ones are asked for, behind their end also waited for. Where there
   * are none, the old ones are used, and the service decides.
   * @throws UbiError E_STORE when the keeper has ended; the signal's reason
   */
  async usable(nowMs: number, signal: AbortSignal | undefined): Promise<CurrentCredentials> {
    const current = this.#read();
    const { expiresAtMs = Number.POSITIVE_INFINITY } = current.credentials;
    const isDue = nowMs >= expiresAtMs - EARLY_MS && performance.now() >= this.#nextWishMs;
    if (!this.canRenew || !isDue) {
      return current;
    }
    if (nowMs < expiresAtMs) {
      this.#pause();
      this.#wish(current.generation);
    } else if ((await this.renew(current.generation, signal)) !== undefined) {
      this.#pause();
    }
    return this.#read();
  }

  /**
   * Waits for others than those of `generation`. Returns undefined when there are, else why not.
   * @throws the signal's reason
   */
  async renew(generation: number, signal: AbortSignal | undefined): Promise<string | undefined> {
    const { renewalMsMax } = this.#shared;
    const answers = Atomics.load(this.#control, CONTROL.ANSWERS);
    if (this.#published.version !== generation) {
      return undefined;
    }
    if (renewalMsMax === undefined) {
      return CANNOT_CHANGE;
    }
    const deadlineMs = performance.now() + renewalMsMax + SLACK_MS;
    while (performance.now() < deadlineMs) {
      if (!this.#wish(generation)) {
        return STORE_CLOSED;
      }
      await this.#answer(answers, signal);
      if (this.#published.version !== generation) {
        return undefined;
      }
      if (Atomics.load(this.#control, CONTROL.ANSWERS) !== answers) {
        return this.#failureText();
      }
    }
    return `no answer within ${renewalMsMax + SLACK_MS} ms`;
  }

  // --- internal ---

  #read(): CurrentCredentials {
    if (this.#current?.generation !== this.#published.version || this.#current === undefined) {
      const current = readCredentials(this.#published);
      if (current === undefined) {
        throw new UbiError("E_STORE", STORE_CLOSED);
      }
      this.#current = current;
    }
    return this.#current;
  }

  /** Returns false when nobody grants wishes any more. */
  #wish(generation: number): boolean {
    const seen = Atomics.load(this.#control, CONTROL.WISH);
    if (seen !== generation && seen !== CLOSED) {
      Atomics.compareExchange(this.#control, CONTROL.WISH, seen, generation);
      Atomics.notify(this.#control, CONTROL.WISH);
    }
    return seen !== CLOSED;
  }

  #pause(): void {
    this.#nextWishMs = performance.now() + EARLY_PAUSE_MS;
  }

  /** Until the keeper has answered once more, or it is time to look. @throws the signal's reason */
  async #answer(seen: number, signal: AbortSignal | undefined): Promise<void> {
    const wait = Atomics.waitAsync(this.#control, CONTROL.ANSWERS, seen, RECHECK_MS);
    if (wait.async) {
      await abortableWait(signal, (done) => {
        void wait.value.then(done);
        return () => {};
      });
    }
  }

  #failureText(): string {
    const failure = PublishedBytes.attach(this.#shared.failure).read();
    return failure === undefined ? "no reason was told" : new TextDecoder().decode(failure.bytes);
  }
}

// --- internal ---

const STORE_CLOSED = "the store was closed: its credentials are gone";
const CANNOT_CHANGE =
  "they stand in the document or in the environment and cannot change: start again with new ones";
