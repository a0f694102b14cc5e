/**
 * What a stripe server did and does, in memory shared by its thread (the only writer) and whoever asks.
 *
 *   doubles | COUNTERS | answers of one byte: 256 by status | fields of each place |
 *   words   | by place: odd while somebody has it                                  |
 *   bytes   | by place: length, name of its client                                 |
 *
 * A place's word changes before its fields are written anew, so that a reader who finds the same odd word before and
 * after has read of one client. Counters of a server at work are read one after another.
 *
 * Cost: a store or two a request, a write, and a turn.
 */
import { assert } from "../errors.ts";
import { f64 } from "../ffi/view.ts";
import { OPCODE, STATUS } from "../formats/stripe-protocol.ts";

/** Places of the counters; all but the last two count from the start of the process. */
export const ServerCounter = {
  accepted: 0,
  refused: 1,
  handshakeFailures: 2,
  dropped: 3,
  bytesSent: 4,
  stripesSent: 5,
  metadataRequests: 6,
  readRequests: 7,
  helloRequests: 8,
  featuresRequests: 9,
  readSparseRequests: 10,
  digestRequests: 11,
  unknownRequests: 12,
  /** Now: buffers with a stripe for some answer, and clients that wait for one. */
  buffersInUse: 13,
  waiting: 14,
} as const;

/** A client, as it was when it was asked for. */
export interface ClientEntry {
  readonly name: string;
  /** Of the wall clock, in ms. */
  readonly sinceMs: number;
  /** Of the clock of `ClientCounts`, in ms: when it last asked, or took some of an answer. */
  readonly activeMs: number;
  readonly isServed: boolean;
  readonly requests: number;
  readonly bytesSent: number;
  readonly inFlight: number;
}

/** What a session tells of itself. */
export interface SessionCounts {
  /** The handshake is done. */
  begin(): void;
  request(opcode: number, nowMs: number): void;
  sent(bytes: number, nowMs: number): void;
  /** An answer has gone, as a whole. */
  answered(status: number, hasStripe: boolean): void;
  /** Answers that are under way. */
  setInFlight(count: number): void;
}

export class ServerStatistics {
  readonly shared: SharedArrayBuffer;
  readonly placesMax: number;
  readonly #doubles: Float64Array;
  readonly #words: Int32Array;
  readonly #names: Uint8Array;

  private constructor(shared: SharedArrayBuffer, placesMax: number) {
    this.shared = shared;
    this.placesMax = placesMax;
    const doubles = FIELDS_START + placesMax * FIELDS;
    this.#doubles = new Float64Array(shared, 0, doubles);
    this.#words = new Int32Array(shared, doubles * 8, placesMax);
    this.#names = new Uint8Array(shared, doubles * 8 + placesMax * 4);
  }

  static create(placesMax: number): ServerStatistics {
    const bytes = (FIELDS_START + placesMax * FIELDS) * 8 + placesMax * (4 + NAME_BYTES);
    return new ServerStatistics(new SharedArrayBuffer(bytes), placesMax);
  }

  static attach(shared: SharedArrayBuffer, placesMax: number): ServerStatistics {
    return new ServerStatistics(shared, placesMax);
  }

  // --- the server's thread ---

  /** Adds to a counter of `ServerCounter`. */
  count(counter: number, amount = 1): void {
    this.#doubles[counter] = f64(this.#doubles, counter) + amount;
  }

  set(counter: number, value: number): void {
    this.#doubles[counter] = value;
  }

  /** A client has come. */
  open(place: number, name: string, nowMs: number): SessionCounts {
    assert(place < this.placesMax, "a client has a place");
    const doubles = this.#doubles;
    const at = FIELDS_START + place * FIELDS;
    doubles.fill(0, at, at + FIELDS);
    doubles[at + FIELD.since] = Date.now();
    doubles[at + FIELD.active] = nowMs;
    const bytes = this.#names.subarray(place * NAME_BYTES, (place + 1) * NAME_BYTES);
    bytes[0] = new TextEncoder().encodeInto(name, bytes.subarray(1)).written;
    this.count(ServerCounter.accepted);
    Atomics.store(this.#words, place, Atomics.load(this.#words, place) | 1);
    return new ClientCounts(this, doubles, at);
  }

  /** It has left: its entry is no one's. */
  close(place: number): void {
    Atomics.store(this.#words, place, (Atomics.load(this.#words, place) + 1) & 0x7fff_ffff);
  }

  answered(status: number): void {
    this.count(COUNTERS + status);
  }

  // --- any thread ---

  counter(counter: number): number {
    return f64(this.#doubles, counter);
  }

  /** Answers that were nothing but a status. */
  answers(status: number): number {
    return f64(this.#doubles, COUNTERS + status);
  }

  /** Those that are connected now, by place. */
  clients(): readonly ClientEntry[] {
    const entries: ClientEntry[] = [];
    for (let place = 0; place < this.placesMax; place++) {
      const word = Atomics.load(this.#words, place);
      if ((word & 1) === 1) {
        const entry = this.#entry(place);
        if (Atomics.load(this.#words, place) === word) {
          entries.push(entry);
        }
      }
    }
    return entries;
  }

  // --- internal ---

  #entry(place: number): ClientEntry {
    const at = FIELDS_START + place * FIELDS;
    const field = (which: number) => f64(this.#doubles, at + which);
    const nameAt = place * NAME_BYTES;
    const length = this.#names[nameAt] ?? 0;
    // A copy: a decoder takes no shared memory.
    const name = this.#names.slice(nameAt + 1, nameAt + 1 + length);
    return {
      name: new TextDecoder().decode(name),
      sinceMs: field(FIELD.since),
      activeMs: field(FIELD.active),
      isServed: field(FIELD.served) === 1,
      requests: field(FIELD.requests),
      bytesSent: field(FIELD.bytes),
      inFlight: field(FIELD.inFlight),
    };
  }
}

// --- internal ---

const COUNTERS = Object.keys(ServerCounter).length;
const STATUSES = 256;
const FIELDS_START = COUNTERS + STATUSES;
const FIELD = { since: 0, active: 1, served: 2, requests: 3, bytes: 4, inFlight: 5 } as const;
const FIELDS = Object.keys(FIELD).length;
/** A length, and an address with its port or the path of a Unix socket, which has 107 bytes at most. */
const NAME_BYTES = 128;

const REQUEST_COUNTERS: Readonly<Record<number, number>> = {
  [OPCODE.METADATA]: ServerCounter.metadataRequests,
  [OPCODE.READ]: ServerCounter.readRequests,
  [OPCODE.HELLO]: ServerCounter.helloRequests,
  [OPCODE.FEATURES]: ServerCounter.featuresRequests,
  [OPCODE.READ_SPARSE]: ServerCounter.readSparseRequests,
  [OPCODE.METADATA_DIGEST]: ServerCounter.digestRequests,
};

class ClientCounts implements SessionCounts {
  readonly #all: ServerStatistics;
  readonly #doubles: Float64Array;
  readonly #at: number;

  constructor(all: ServerStatistics, doubles: Float64Array, at: number) {
    this.#all = all;
    this.#doubles = doubles;
    this.#at = at;
  }

  begin(): void {
    this.#doubles[this.#at + FIELD.served] = 1;
  }

  request(opcode: number, nowMs: number): void {
    this.#all.count(REQUEST_COUNTERS[opcode] ?? ServerCounter.unknownRequests);
    this.#add(FIELD.requests, 1);
    this.#doubles[this.#at + FIELD.active] = nowMs;
  }

  sent(bytes: number, nowMs: number): void {
    this.#all.count(ServerCounter.bytesSent, bytes);
    this.#add(FIELD.bytes, bytes);
    this.#doubles[this.#at + FIELD.active] = nowMs;
  }

  answered(status: number, hasStripe: boolean): void {
    if (hasStripe) {
      this.#all.count(ServerCounter.stripesSent);
    } else if (status !== STATUS.OK) {
      this.#all.answered(status);
    }
  }

  setInFlight(count: number): void {
    this.#doubles[this.#at + FIELD.inFlight] = count;
  }

  #add(field: number, amount: number): void {
    this.#doubles[this.#at + field] = f64(this.#doubles, this.#at + field) + amount;
  }
}
