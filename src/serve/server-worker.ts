/**
 * The thread of a stripe server: one loop over all clients, the disk and its source, with one wait. It sleeps while
 * nobody asks for anything.
 *
 *   turn:  wait -> accept -> sessions whose time or descriptor has come -> buffers, one each in turn -> reads that
 *          ended -> their sessions
 */
import { Pulse, type SharedPulse } from "../device/heartbeat.ts";
import { assert, errnoText, UbiError } from "../errors.ts";
import { Arena } from "../ffi/arena.ts";
import type { ByteStream } from "../ffi/byte-stream.ts";
import { clockNs, drainEvent } from "../ffi/event.ts";
import { nameThread } from "../ffi/process.ts";
import { acceptSocket, PollSet } from "../ffi/socket.ts";
import { PlainStream, peerOf, tuneStream } from "../ffi/stream.ts";
import { TlsContext } from "../ffi/tls.ts";
import { stayToTheEnd } from "../ffi/worker.ts";
import { LogLimiter } from "../log.ts";
import { FixedAnswers, type MetadataAnswer } from "./fixed-answers.ts";
import { openServedStripes, type ServedStripes } from "./served-stripes.ts";
import { ServerCounter, ServerStatistics } from "./server-statistics.ts";
import { Session } from "./session.ts";
import { INPUT_BYTES, type SessionLimits } from "./session-limits.ts";
import type { StripeReads } from "./stripe-reads.ts";

/** What the worker is started with. */
export interface ServerWorkerData {
  readonly stripes: ServedStripes;
  readonly metadata: MetadataAnswer;
  readonly listeners: readonly Listener[];
  readonly limits: SessionLimits;
  readonly connectionsMax: number;
  readonly statistics: { readonly shared: SharedArrayBuffer; readonly placesMax: number };
  /** Bytes of identity and secret; wiped once the worker has them. */
  readonly psk: { readonly identity: Uint8Array; readonly secret: SharedArrayBuffer } | undefined;
  readonly wakeFd: number;
  readonly pulse: SharedPulse;
  /** One word: 1 asks to stop. */
  readonly stop: SharedArrayBuffer;
}

/** A listening socket; the worker never closes it. */
export interface Listener {
  readonly fd: number;
  /** For the log. */
  readonly name: string;
}

/** To the main thread. */
export type ServerMessage = "ready" | "stopped";

/** For answers under way at the stop. */
const STOP_TIMEOUT_MS = 10_000;
/** How long clients are left waiting when they cannot be accepted, such as for want of descriptors. */
const ACCEPT_PAUSE_MS = 200;
/** A client that takes nothing for so long has to go when others need its buffers. */
const STALL_MS = 2_000;
/** How long one turn goes on with reads that end at once. */
const READS_MS = 4;
/** Buffers of a client at least: one is sent while the next one is read. */
const SHARE_MIN = 2;
const EAGAIN = -11;
/** Failures of the one connection that was to be accepted: the next one may do. */
const PASSING: readonly number[] = [-4, -71, -103, -104, -110];
const WAKE = 0;
const DISK = 1;
const SOURCE = 2;
const LISTENERS = 3;

/** Runs the stripe server of this thread until it is told to stop. */
export function runServerWorker(data: ServerWorkerData): void {
  nameThread("stripe-server");
  const pulse = new Pulse(data.pulse);
  let isReading: boolean;
  {
    using worker = new ServerWorker(data);
    tell("ready");
    while (worker.turn()) {
      pulse.answer();
    }
    isReading = worker.isReading;
  }
  tell("stopped"); // now that nothing of the disk is used any more
  if (isReading) {
    stayToTheEnd();
  }
}

// --- internal ---

class ServerWorker implements Disposable {
  readonly #data: ServerWorkerData;
  readonly #stop: Int32Array;
  readonly #reads: StripeReads;
  readonly #answers: FixedAnswers;
  readonly #statistics: ServerStatistics;
  readonly #tls: TlsContext | undefined;
  readonly #inputs: Arena;
  readonly #places: { readonly view: Uint8Array; readonly address: number }[];
  readonly #poll: PollSet;
  readonly #visits = new LogLimiter(20);
  readonly #troubles = new LogLimiter(20);
  /** By place; the number of a place is also that of its input memory. */
  readonly #sessions: (Session | undefined)[];
  readonly #freePlaces: number[];
  /** Sessions that need a buffer, each once, in the order in which they get one. */
  #waiting: Session[] = [];
  /** Sessions that can go on at once. */
  #eager = new Set<Session>();
  /** Reads may have ended that nobody was told of. */
  #hasEnds = false;
  #acceptFromMs = 0;
  #stopDueMs = Number.POSITIVE_INFINITY;
  #nowMs = 0;

  constructor(data: ServerWorkerData) {
    this.#data = data;
    this.#stop = new Int32Array(data.stop);
    this.#reads = openServedStripes(data.stripes);
    this.#answers = new FixedAnswers(data.metadata);
    const { shared, placesMax } = data.statistics;
    this.#statistics = ServerStatistics.attach(shared, placesMax);
    this.#tls = openTls(data.psk);
    const { connectionsMax, listeners } = data;
    this.#inputs = new Arena(connectionsMax * INPUT_BYTES);
    this.#places = Array.from({ length: connectionsMax }, () => this.#inputs.bytes(INPUT_BYTES));
    this.#sessions = new Array<Session | undefined>(connectionsMax).fill(undefined);
    this.#freePlaces = Array.from({ length: connectionsMax }, (_, i) => connectionsMax - 1 - i);
    this.#poll = new PollSet(LISTENERS + listeners.length + connectionsMax);
    const { disk, source } = this.#reads.waitFds;
    this.#poll.watch(WAKE, data.wakeFd);
    this.#poll.watch(DISK, disk);
    this.#poll.watch(SOURCE, source);
    for (let place = 0; place < connectionsMax; place++) {
      this.#poll.watch(this.#pollPlace(place), -1);
    }
  }

  /** Whether the disk or its source has not answered all that it was asked for. */
  get isReading(): boolean {
    return this.#reads.isReading;
  }

  /** One turn of the loop. False when the worker is to end. */
  turn(): boolean {
    this.#wait();
    this.#nowMs = clockNs() / 1e6;
    this.#obey();
    this.#accept();
    this.#advanceReady();
    this.#advanceReads();
    this.#dropStalled();
    this.#statistics.set(ServerCounter.buffersInUse, this.#reads.buffersInUse);
    // Who has a share, or has to wait for the next turn, lacks no memory while there is some.
    const waiting = this.#reads.hasFreeBuffers ? 0 : this.#waiting.length;
    this.#statistics.set(ServerCounter.waiting, waiting);
    return !this.#isOver();
  }

  [Symbol.dispose](): void {
    for (const [place, session] of this.#sessions.entries()) {
      if (session !== undefined) {
        session[Symbol.dispose]();
        this.#statistics.close(place);
      }
    }
    this.#reads[Symbol.dispose]();
    this.#poll[Symbol.dispose]();
    this.#inputs[Symbol.dispose]();
    this.#answers[Symbol.dispose]();
    this.#tls?.[Symbol.dispose]();
  }

  // --- internal ---

  get #isStopping(): boolean {
    return this.#stopDueMs < Number.POSITIVE_INFINITY;
  }

  *#open(): Generator<Session> {
    for (const session of this.#sessions) {
      if (session !== undefined) {
        yield session;
      }
    }
  }

  #pollPlace(place: number): number {
    return LISTENERS + this.#data.listeners.length + place;
  }

  #wait(): void {
    const nowMs = clockNs() / 1e6;
    const isAccepting = !this.#isStopping && nowMs >= this.#acceptFromMs;
    for (const [index, { fd }] of this.#data.listeners.entries()) {
      this.#poll.watch(LISTENERS + index, isAccepting ? fd : -1);
    }
    let dueMs = isAccepting || this.#isStopping ? this.#stopDueMs : this.#acceptFromMs;
    for (const [place, session] of this.#sessions.entries()) {
      if (session !== undefined) {
        dueMs = Math.min(dueMs, session.dueMs, this.#dropMs(session));
        const { events } = session;
        this.#poll.watch(this.#pollPlace(place), session.fd, events);
      }
    }
    if (this.#eager.size > 0 || this.#hasEnds) {
      dueMs = nowMs;
    }
    const isTimed = dueMs < Number.POSITIVE_INFINITY;
    const timeoutMs = isTimed ? Math.max(0, Math.ceil(dueMs - nowMs)) : -1;
    const result = this.#poll.wait(timeoutMs);
    assert(result >= 0, `poll works (${errnoText(result)})`);
    if (this.#poll.events(WAKE) !== 0) {
      drainEvent(this.#data.wakeFd);
    }
  }

  #obey(): void {
    if (this.#isStopping || Atomics.load(this.#stop, 0) !== 1) {
      return;
    }
    this.#stopDueMs = this.#nowMs + STOP_TIMEOUT_MS;
    for (const session of this.#open()) {
      session.stop(this.#nowMs);
      this.#eager.add(session);
    }
  }

  #isOver(): boolean {
    if (!this.#isStopping) {
      return false;
    }
    const isEmpty = this.#freePlaces.length === this.#sessions.length;
    return isEmpty || this.#nowMs >= this.#stopDueMs;
  }

  // --- internal: clients that come and go ---

  #accept(): void {
    if (this.#isStopping) {
      return;
    }
    for (const [index, listener] of this.#data.listeners.entries()) {
      if (this.#poll.events(LISTENERS + index) !== 0) {
        this.#acceptAll(listener);
      }
    }
  }

  /** As many as there are places, so that one turn is bounded. */
  #acceptAll(listener: Listener): void {
    for (let i = 0; i < this.#sessions.length; i++) {
      const fd = acceptSocket(listener.fd);
      if (fd >= 0) {
        this.#admit(fd, listener);
      } else if (!PASSING.includes(fd)) {
        if (fd !== EAGAIN) {
          this.#acceptFromMs = this.#nowMs + ACCEPT_PAUSE_MS;
          this.#troubles.warn("cannot accept a client", { cause: errnoText(fd) });
        }
        return;
      }
    }
  }

  #admit(fd: number, listener: Listener): void {
    const name = peerOf(fd) || listener.name;
    const place = this.#freePlaces.pop();
    if (place === undefined) {
      new PlainStream(fd)[Symbol.dispose]();
      this.#statistics.count(ServerCounter.refused);
      const limit = this.#data.connectionsMax;
      this.#troubles.warn("turned a client away", { client: name, max_connections: limit });
      return;
    }
    const input = this.#places[place];
    assert(input !== undefined, "every place has memory");
    const stream = this.#streamOn(fd);
    if (stream === undefined) {
      this.#freePlaces.push(place);
      return;
    }
    const { limits } = this.#data;
    const counts = this.#statistics.open(place, name, this.#nowMs);
    const parts = { stream, name, reads: this.#reads, answers: this.#answers, limits, input };
    const session = new Session({ ...parts, counts }, this.#nowMs);
    this.#sessions[place] = session;
    this.#eager.add(session);
    this.#visits.info(`accepted connection from ${name}`);
  }

  #streamOn(fd: number): ByteStream | undefined {
    tuneStream(fd); // without it all is right, but slower
    try {
      return this.#tls?.session(fd) ?? new PlainStream(fd);
    } catch (error) {
      if (!(error instanceof UbiError)) {
        throw error;
      }
      this.#troubles.warn("cannot serve a client", { cause: error.message });
      return undefined;
    }
  }

  #remove(session: Session): void {
    const place = this.#sessions.indexOf(session);
    assert(place >= 0, "a session leaves once");
    session[Symbol.dispose]();
    this.#sessions[place] = undefined;
    this.#statistics.close(place);
    this.#poll.watch(this.#pollPlace(place), -1);
    this.#freePlaces.push(place);
    this.#eager.delete(session);
    this.#waiting = this.#waiting.filter((other) => other !== session);
    const { end, name, servedCount } = session;
    if (!session.hasBegun && !this.#isStopping) {
      this.#statistics.count(ServerCounter.handshakeFailures);
    } else if (end?.isFailure === true) {
      this.#statistics.count(ServerCounter.dropped);
    }
    if (end?.isFailure === true) {
      this.#troubles.warn(`client ${name}: ${end.reason}`, { answers: servedCount });
    } else {
      const why = end?.reason ?? "the server stops";
      this.#visits.info(`client ${name} disconnected`, { why, answers: servedCount });
    }
  }

  // --- internal: work ---

  #advanceReady(): void {
    const eager = this.#eager;
    this.#eager = new Set();
    for (const [place, session] of this.#sessions.entries()) {
      if (session === undefined) {
        continue;
      }
      const events = this.#poll.events(this.#pollPlace(place));
      if (events !== 0 || eager.has(session) || session.dueMs <= this.#nowMs) {
        this.#advance(session, events);
      }
    }
  }

  #advance(session: Session, events: number): void {
    const hasMore = session.advance(this.#nowMs, events);
    const failure = session.takeFailure();
    if (failure !== undefined) {
      this.#troubles.warn(`client ${session.name}: ${failure}`);
    }
    if (session.end !== undefined) {
      this.#remove(session);
      return;
    }
    if (hasMore) {
      this.#eager.add(session);
    }
    if (session.wantsBuffer && !this.#waiting.includes(session)) {
      this.#waiting.push(session);
    }
  }

  /**
   * While reads end at once, for a bounded time: others come, go and get theirs in between. Each round gives every
   * waiting session one buffer at most.
   */
  #advanceReads(): void {
    const endNs = clockNs() + READS_MS * 1e6;
    do {
      this.#giveBuffers();
      this.#hasEnds = this.#reads.advance() > 0;
      for (const session of [...this.#open()]) {
        if (session.isChanged) {
          this.#advance(session, 0);
        }
      }
    } while (this.#hasEnds && clockNs() < endNs);
  }

  /**
   * Also when none is free: a read of the same stripe may be under way. Nobody has so many that there were none for
   * one more client, since clients may be slow in taking what they hold.
   */
  #giveBuffers(): void {
    const clients = this.#sessions.length - this.#freePlaces.length;
    const share = Math.max(SHARE_MIN, Math.floor(this.#reads.count / (clients + 1)));
    const unserved: Session[] = [];
    const served: Session[] = [];
    for (const session of this.#waiting) {
      // It may have failed since it asked.
      if (session.wantsBuffer && !(session.buffersHeld < share && session.takeBuffer())) {
        unserved.push(session);
      } else if (session.wantsBuffer) {
        served.push(session);
      }
    }
    this.#waiting = [...unserved, ...served];
  }

  /** When a session would be in the way of others, or of the end; Infinity while it is in nobody's. */
  #dropMs(session: Session): number {
    const isNeeded = this.#waiting.length > 0 && !this.#reads.hasFreeBuffers;
    return isNeeded || this.#isStopping
      ? session.stalledSinceMs + STALL_MS
      : Number.POSITIVE_INFINITY;
  }

  #dropStalled(): void {
    for (const session of [...this.#open()]) {
      if (this.#dropMs(session) <= this.#nowMs && !session.notesProgress(this.#nowMs)) {
        session.abort("it does not take its answers, and is in the way");
        this.#remove(session);
      }
    }
  }
}

function openTls(psk: ServerWorkerData["psk"]): TlsContext | undefined {
  if (psk === undefined) {
    return undefined;
  }
  const secret = new Uint8Array(psk.secret);
  try {
    return new TlsContext("server", { identity: psk.identity, secret });
  } finally {
    secret.fill(0);
  }
}

function tell(message: ServerMessage): void {
  postMessage(message);
}
