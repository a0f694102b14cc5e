/** What the main thread can tell of the front end that is connected: words that the control worker writes. */

const CONNECTED = 0;
const TRACKING = 1;
const WORDS = 2;

export class FrontEndState {
  readonly #words: Int32Array;

  constructor(shared: SharedArrayBuffer = new SharedArrayBuffer(WORDS * 4)) {
    this.#words = new Int32Array(shared);
  }

  get shared(): SharedArrayBuffer {
    return this.#words.buffer as SharedArrayBuffer;
  }

  get isConnected(): boolean {
    return Atomics.load(this.#words, CONNECTED) === 1;
  }

  /** The front end keeps a note of the requests under way: the disk outlives the end of this process. */
  get isTracking(): boolean {
    return Atomics.load(this.#words, TRACKING) === 1;
  }

  connected(): void {
    Atomics.store(this.#words, CONNECTED, 1);
  }

  track(isTracking: boolean): void {
    Atomics.store(this.#words, TRACKING, isTracking ? 1 : 0);
  }

  left(): void {
    Atomics.store(this.#words, CONNECTED, 0);
    Atomics.store(this.#words, TRACKING, 0);
  }
}
