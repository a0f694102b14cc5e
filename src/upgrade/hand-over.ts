/**
 * What two processes say to each other when one hands its disk to the next, over a pair of sockets that the old one
 * makes before it starts the new one. A message is JSON, with the descriptors that it names.
 *
 *        old                                                     new
 *         | -- offer (locked files, sockets, secrets) ----------> | reads the config, checks all that can be checked
 *         | <------------------------------------- prepared ----- |
 *    ends all requests, flushes, publishes metadata               |
 *         | -- yours (what the guest and commands set) ---------> | reads the state of the disk, starts its threads
 *         | <---------------------------------------- built ----- |
 *         | -- go --------------------------------------------->  | serves; until here it has written nothing
 *    lets go of the front end                                     |
 *         | <-------------------------------------- serving ----- |
 *    ends                                                         | tells the service manager
 *
 * Until `go` is sent the old process goes on when anything fails, and the new one ends when the old one is gone. So at
 * no time do both write, whoever dies when.
 */
import { type Static, Type } from "@sinclair/typebox";
import { Value } from "@sinclair/typebox/value";
import { UbiError } from "../errors.ts";
import { closeDescriptor, MessageChannel } from "../ffi/socket.ts";
import { LOG_LEVELS } from "../log.ts";

/** Raised when an older or newer program could misunderstand. */
export const HAND_OVER_FORMAT = 1;

const File = Type.Object({ isDirect: Type.Boolean(), isReadOnly: Type.Boolean() });
const Socket = Type.Object({ path: Type.String(), isFileOurs: Type.Boolean() });
const Limit = Type.Object({
  perSecond: Type.Optional(Type.Number()),
  burst: Type.Optional(Type.Number()),
});

const State = Type.Object({
  /** The guest has the write cache on. */
  isWriteback: Type.Boolean(),
  /** Where rings stopped with nothing under way: ring and base. */
  ringEnds: Type.Optional(Type.Array(Type.Tuple([Type.Number(), Type.Number()]))),
  // The others are there when a command changed them; else the config counts.
  limits: Type.Optional(Type.Array(Limit)),
  isFetchPaused: Type.Optional(Type.Literal(true)),
  /** Null for no limit. */
  fetchBytesPerSecond: Type.Optional(Type.Union([Type.Number(), Type.Null()])),
  logLevel: Type.Optional(Type.Union(LOG_LEVELS.map((level) => Type.Literal(level)))),
});

const MESSAGES = {
  offer: Type.Object({
    kind: Type.Literal("offer"),
    format: Type.Number(),
    version: Type.String(),
    /** What each descriptor is: a file, a claim, a key of a socket, secrets. */
    descriptors: Type.Array(Type.String()),
    data: File,
    metadata: Type.Optional(File),
    /** By key of the config. */
    sockets: Type.Record(Type.String(), Socket),
    /** What front ends were told, which the next process has to offer as well. */
    features: Type.String(),
    protocolFeatures: Type.String(),
    queues: Type.Number(),
    sectors: Type.Number(),
    /** The mark of what its bytes mean. */
    content: Type.Optional(Type.Number()),
  }),
  prepared: Type.Object({ kind: Type.Literal("prepared"), version: Type.String() }),
  yours: Type.Object({ kind: Type.Literal("yours"), state: State }),
  built: Type.Object({ kind: Type.Literal("built") }),
  go: Type.Object({ kind: Type.Literal("go") }),
  serving: Type.Object({ kind: Type.Literal("serving") }),
} as const;

const Refusal = Type.Object({ kind: Type.Literal("failed"), message: Type.String() });

type Kind = keyof typeof MESSAGES;
export type Message<K extends Kind> = Static<(typeof MESSAGES)[K]>;
export type HandedState = Static<typeof State>;

/** One end of the pair. */
export class HandOver implements Disposable {
  readonly #fd: number;
  readonly #channel = new MessageChannel(MESSAGE_BYTES_MAX);
  readonly #other: string;
  #isDisposed = false;

  /**
   * Takes the descriptor over.
   * @param other for messages: "the new process"
   */
  constructor(fd: number, other: string) {
    this.#fd = fd;
    this.#other = other;
  }

  /** @throws UbiError E_UPGRADE when the other side is gone */
  send<K extends Kind>(message: Message<K>, descriptors: readonly number[] = []): void {
    const result = this.#write(message, descriptors);
    if (result < 0) {
      throw this.#gone();
    }
  }

  /** Tells why this side gives up, to whoever is still there. */
  refuse(message: string): void {
    this.#write({ kind: "failed", message: message.slice(0, REFUSAL_MAX) }, []);
  }

  /**
   * The next message, which has to be of that kind.
   * @throws UbiError E_UPGRADE when the other side refuses, is gone, or is silent for `timeoutMs`; the signal's reason
   */
  async expect<K extends Kind>(
    kind: K,
    { timeoutMs, signal }: { readonly timeoutMs: number; readonly signal?: AbortSignal },
  ): Promise<{ readonly message: Message<K>; readonly descriptors: readonly number[] }> {
    const deadlineMs = performance.now() + timeoutMs;
    const descriptors: number[] = [];
    for (;;) {
      signal?.throwIfAborted();
      const length = this.#channel.receive(this.#fd, 0, MESSAGE_BYTES_MAX, descriptors);
      if (length > 0) {
        return { message: this.#parse(kind, length, descriptors), descriptors };
      }
      if (length !== EAGAIN) {
        throw this.#gone();
      }
      if (performance.now() > deadlineMs) {
        const message = `${this.#other} was waited for in vain for ${timeoutMs / 1000} s (for: ${kind})`;
        throw new UbiError("E_UPGRADE", message);
      }
      await Bun.sleep(LOOK_MS);
    }
  }

  /** Until the other side has closed, `timeoutMs` at most. */
  async closed(timeoutMs: number): Promise<void> {
    const deadlineMs = performance.now() + timeoutMs;
    const strays: number[] = [];
    while (
      this.#channel.receive(this.#fd, 0, MESSAGE_BYTES_MAX, strays) === EAGAIN &&
      performance.now() < deadlineMs
    ) {
      await Bun.sleep(LOOK_MS);
    }
    strays.forEach(closeDescriptor);
  }

  [Symbol.dispose](): void {
    if (!this.#isDisposed) {
      this.#isDisposed = true;
      closeDescriptor(this.#fd);
      this.#channel[Symbol.dispose]();
    }
  }

  // --- internal ---

  #write(message: object, descriptors: readonly number[]): number {
    const { written } = new TextEncoder().encodeInto(JSON.stringify(message), this.#channel.bytes);
    return this.#channel.send(this.#fd, 0, written, descriptors);
  }

  #parse<K extends Kind>(kind: K, length: number, descriptors: readonly number[]): Message<K> {
    try {
      const text = new TextDecoder().decode(this.#channel.bytes.slice(0, length));
      const value: unknown = JSON.parse(text);
      if (Value.Check(MESSAGES[kind], value)) {
        return value;
      }
      if (Value.Check(Refusal, value)) {
        throw new UbiError("E_UPGRADE", value.message);
      }
      throw this.#strange(kind);
    } catch (error) {
      descriptors.forEach(closeDescriptor);
      throw error instanceof UbiError ? error : this.#strange(kind);
    }
  }

  #strange(kind: Kind): UbiError {
    return new UbiError("E_UPGRADE", `${this.#other} does not say what was expected: ${kind}`);
  }

  #gone(): UbiError {
    return new UbiError("E_UPGRADE", `${this.#other} has ended`);
  }
}

// --- internal ---

/** An offer with the longest paths is some kilobytes. */
const MESSAGE_BYTES_MAX = 32_768;
const REFUSAL_MAX = 4_000;
const LOOK_MS = 1;
const EAGAIN = -11;
