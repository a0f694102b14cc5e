/**
 * Keeps the credentials of a store in the main thread: reads them anew when a thread finds that they are no longer
 * good, and publishes them to all (shared-credentials.ts). It reads one at a time, and sleeps in between.
 */
import { errorText, UbiError, UbiErrors } from "../../errors.ts";
import { LogLimiter, log } from "../../log.ts";
import type { CredentialSource, FoundCredentials } from "./credential-source.ts";
import {
  areSame,
  CREDENTIALS_BYTES_MAX,
  type Credentials,
  encodeCredentials,
} from "./credentials.ts";
import { PublishedBytes } from "./published-bytes.ts";
import { CLOSED, CONTROL, readCredentials, type SharedCredentials } from "./shared-credentials.ts";

export class CredentialKeeper implements Disposable {
  readonly shared: SharedCredentials;
  readonly #store: string;
  readonly #source: CredentialSource | undefined;
  readonly #control: Int32Array<SharedArrayBuffer>;
  readonly #current: PublishedBytes;
  readonly #failure: PublishedBytes;
  readonly #end = new AbortController();
  readonly #limiter = new LogLimiter(3, 60_000);
  #heldUntilMs = Number.NEGATIVE_INFINITY;

  /**
   * @param store for the log
   * @param source where they can be read again; undefined: nowhere
   */
  constructor(store: string, found: FoundCredentials, source: CredentialSource | undefined) {
    this.#store = store;
    this.#source = found.canChange ? source : undefined;
    this.#current = PublishedBytes.create(CREDENTIALS_BYTES_MAX);
    this.#failure = PublishedBytes.create(FAILURE_BYTES_MAX);
    this.shared = {
      control: new SharedArrayBuffer(CONTROL.WORDS * 4),
      current: this.#current.shared,
      failure: this.#failure.shared,
      renewalMsMax: this.#source?.readMsMax,
    };
    this.#control = new Int32Array(this.shared.control);
    this.#publish(found.credentials);
    if (this.#source !== undefined) {
      void this.#run(this.#source);
    }
  }

  /** Wipes them. Threads that still have a request under way end it with those they know. */
  [Symbol.dispose](): void {
    this.#end.abort(new UbiError("E_STORE", "the store was closed"));
    this.#current.wipe();
    Atomics.store(this.#control, CONTROL.WISH, CLOSED);
    Atomics.notify(this.#control, CONTROL.WISH);
    Atomics.add(this.#control, CONTROL.ANSWERS, 1);
    Atomics.notify(this.#control, CONTROL.ANSWERS);
  }

  // --- internal ---

  async #run(source: CredentialSource): Promise<void> {
    const { signal } = this.#end;
    while (!signal.aborted) {
      const wish = Atomics.load(this.#control, CONTROL.WISH);
      if (wish !== 0 && wish === this.#current.version) {
        await this.#renew(source);
        Atomics.add(this.#control, CONTROL.ANSWERS, 1);
        Atomics.notify(this.#control, CONTROL.ANSWERS);
      }
      if (signal.aborted) {
        return;
      }
      // Also a wish of a thread that had not seen yet that it was granted.
      Atomics.compareExchange(this.#control, CONTROL.WISH, wish, 0);
      await Atomics.waitAsync(this.#control, CONTROL.WISH, 0).value;
    }
  }

  async #renew(source: CredentialSource): Promise<void> {
    const { signal } = this.#end;
    if (performance.now() < this.#heldUntilMs) {
      return; // what was found out a moment ago still holds, and its text is still there
    }
    try {
      const { credentials } = await source.read(signal);
      if (signal.aborted) {
        return;
      }
      const known = readCredentials(this.#current);
      if (known !== undefined && areSame(credentials, known.credentials)) {
        this.#fail("they were read again and are the same as before", false);
      } else {
        this.#publish(credentials);
        this.#hold("they were read again a moment ago, and are refused");
        log.info("credentials were renewed", { store: this.#store });
      }
    } catch (error) {
      if (signal.aborted) {
        return;
      }
      if (!(error instanceof UbiError || error instanceof UbiErrors)) {
        throw error;
      }
      this.#fail(errorText(error).replaceAll("\n", "; "), true);
    }
  }

  #publish(credentials: Credentials): void {
    const bytes = encodeCredentials(credentials);
    this.#current.publish(bytes);
    bytes.fill(0);
  }

  #fail(text: string, isLogged: boolean): void {
    this.#hold(text);
    if (isLogged) {
      this.#limiter.warn("cannot renew the credentials", { store: this.#store, why: text });
    }
  }

  /** What those hear that ask again too soon. */
  #hold(text: string): void {
    this.#heldUntilMs = performance.now() + HOLD_MS;
    const bytes = new TextEncoder().encode(text).subarray(0, FAILURE_BYTES_MAX);
    this.#failure.publish(bytes);
  }
}

// --- internal ---

const FAILURE_BYTES_MAX = 4096;
/** So soon after a reading nothing is read again, however many ask, and whatever a service makes of it. */
const HOLD_MS = 1000;
