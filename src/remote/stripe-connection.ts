/**
 * A connection to a stripe server, for a loop that polls: nothing here waits, and whatever takes too long ends it.
 *
 *   connecting -> securing -> greeting -> describing -> ready -> ended
 *   each address   TLS         hello,      metadata, or     reads,
 *   in turn                    features    only its digest  several at a time
 *
 * Whatever breaks the protocol ends the connection: what followed could not be trusted. Limits of time: connecting,
 * then the handshake with all that precedes metadata, as a whole; data without any progress; and a slowest rate.
 */
import { assert, UbiError } from "../errors.ts";
import type { ByteStream } from "../ffi/byte-stream.ts";
import { STREAM_READY, TLS_FAILED, WANT_READ, WANT_WRITE } from "../ffi/byte-stream.ts";
import { fillMemory, mapAnonymous, unmap, viewOf } from "../ffi/memory.ts";
import { closeDescriptor, POLLIN, POLLOUT } from "../ffi/socket.ts";
import { PlainStream, tuneStream } from "../ffi/stream.ts";
import type { TlsContext } from "../ffi/tls.ts";
import { stripeBytes } from "../formats/metadata.ts";
import {
  DIGEST_BYTES,
  decodeWord,
  FEATURE,
  OPCODE,
  PROTOCOL_VERSION,
  STATUS,
} from "../formats/stripe-protocol.ts";
import { READ_BROKEN, type ReadOwner } from "./read-owner.ts";
import {
  checkMetadataSize,
  decodeRemoteDisk,
  differenceOf,
  hexOf,
  type RemoteDisk,
  type RemoteIdentity,
} from "./remote-disk.ts";
import { type ServerAddress, serverName } from "./server-address.ts";
import { ServerDial } from "./server-dial.ts";
import { type AnswerHandler, StripeWire, WIRE_WAITS } from "./stripe-wire.ts";
import { closedError, GREETING, handshakeError, statusError } from "./wire-errors.ts";

export interface ConnectionSettings {
  readonly address: ServerAddress;
  /** In the clear without it. Of the thread that uses the connection. */
  readonly tls: TlsContext | undefined;
  readonly connectTimeoutMs: number;
  /** For the handshake as a whole, and for data without progress. */
  readonly operationTimeoutMs: number;
}

/** Reads without an answer at a time, on one connection. */
const READS_MAX = 4;
/** A server that gives less than this is given up. */
const RATE_MIN_BYTES_PER_MS = 64;

type Phase = "connecting" | "securing" | "greeting" | "describing" | "ready" | "ended";

const ANY_PORT_HINT =
  "port 0 stands for any free port: name the one that the server's log tells, or use its unix_socket";
const EPIPE = 32;
const ECONNRESET = 104;

export class StripeConnection implements AnswerHandler, Disposable {
  readonly name: string;
  readonly #settings: ConnectionSettings;
  readonly #known: RemoteIdentity | undefined;
  readonly #owner: ReadOwner;
  #phase: Phase = "connecting";
  readonly #dial: ServerDial;
  #stream: ByteStream | undefined;
  #wire: StripeWire | undefined;
  #events = POLLOUT;
  #features = 0;
  #disk: RemoteDisk | undefined;
  #stripeBytes = 0;
  #metadata = { address: 0, sizeBytes: 0 };
  #failure: UbiError | undefined;
  #isForeign = false;
  #isRefused = false;
  readonly #unanswered: number[] = [];
  /** The time of the call under way. */
  #nowMs: number;
  #progressMs: number;
  #totalDueMs: number;

  /**
   * Begins to connect.
   * @param hosts literal addresses, or the path of a socket, tried in order
   * @param known the disk must be this one; its metadata are not got again when the server can tell that they are
   */
  constructor(
    settings: ConnectionSettings,
    context: {
      readonly hosts: readonly string[];
      readonly known: RemoteIdentity | undefined;
      readonly owner: ReadOwner;
      readonly nowMs: number;
    },
  ) {
    this.name = `stripe server ${serverName(settings.address)}`;
    this.#settings = settings;
    this.#known = context.known;
    this.#owner = context.owner;
    this.#nowMs = context.nowMs;
    this.#progressMs = context.nowMs;
    this.#totalDueMs = context.nowMs;
    this.#dial = new ServerDial(settings.address, {
      hosts: context.hosts,
      timeoutMs: settings.connectTimeoutMs,
      nowMs: context.nowMs,
    });
    this.#checkDial();
  }

  get phase(): Phase {
    return this.#phase;
  }

  /** To be polled for `events`; meaningless once the connection has ended. */
  get fd(): number {
    return this.#stream?.fd ?? this.#dial.fd;
  }

  get events(): number {
    return this.#wire?.events ?? this.#events;
  }

  /** `run` is to be called by then, whatever the descriptor tells; infinite while nothing is awaited. */
  get dueMs(): number {
    if (this.#wire?.hasMore) {
      return 0;
    }
    if (this.#phase === "ready" && this.readsUnderWay === 0) {
      return Number.POSITIVE_INFINITY;
    }
    if (this.#phase === "connecting") {
      return this.#dial.dueMs;
    }
    return Math.min(this.#totalDueMs, this.#progressMs + this.#settings.operationTimeoutMs);
  }

  get readsUnderWay(): number {
    return this.#wire?.pending.count ?? 0;
  }

  /** What the server serves, with flags if this connection got them; known when ready. */
  get disk(): RemoteDisk | undefined {
    return this.#disk;
  }

  /** Why the connection ended; nothing when the server closed it while nothing was awaited. */
  get failure(): UbiError | undefined {
    return this.#failure;
  }

  /** It ended because the server has another disk than the known one. */
  get isForeign(): boolean {
    return this.#isForeign;
  }

  /** It ended because the server failed to read the first of `unanswered`, and said so. */
  get isRefused(): boolean {
    return this.#isRefused;
  }

  /** Reads that were lost with the connection, in the order they were asked. */
  get unanswered(): readonly number[] {
    return this.#unanswered;
  }

  /** Asks for a stripe; `flush` sends it. The memory at `address` has room for it until the read has ended. */
  read(id: number, stripe: number, address: number, nowMs: number): void {
    assert(this.#phase === "ready", "stripes are asked of a server that is known");
    assert(this.readsUnderWay < READS_MAX, "no more is asked than there is room for");
    this.#nowMs = nowMs;
    if (this.readsUnderWay === 0) {
      this.#expectData(this.#stripeBytes);
    }
    const isSparse = (this.#features & FEATURE.READ_SPARSE) !== 0;
    this.#wire?.ask(isSparse ? OPCODE.READ_SPARSE : OPCODE.READ, id, stripe, address);
  }

  flush(): void {
    if (this.#phase === "ready") {
      this.#heed(this.#wired().send());
    }
  }

  /** Goes on as far as it can. @param isReady the descriptor has something of what `events` asks for */
  run(nowMs: number, isReady: boolean): void {
    if (this.#phase === "ended") {
      return;
    }
    this.#nowMs = nowMs;
    try {
      if (isReady || this.#wire?.hasMore) {
        this.#advance();
      }
      if (nowMs >= this.dueMs && !this.#wire?.hasMore) {
        this.#expire();
      }
    } catch (error) {
      if (!(error instanceof UbiError)) {
        throw error;
      }
      this.#blame();
      this.#end(error.code === "E_PROTOCOL" ? this.#error(error.message) : error);
    }
  }

  [Symbol.dispose](): void {
    this.#end(undefined);
  }

  // What the wire tells:

  place(opcode: number, sizeBytes: number): number {
    if (opcode === OPCODE.METADATA) {
      checkMetadataSize(this.name, sizeBytes);
      this.#metadata = { address: mapAnonymous(sizeBytes), sizeBytes };
      this.#expectData(sizeBytes);
      return this.#metadata.address;
    }
    if (sizeBytes !== this.#stripeBytes) {
      const { stripe } = this.#wired().pending;
      const sizes = `expected ${this.#stripeBytes} bytes, got ${sizeBytes} bytes`;
      throw this.#error(`Stripe ${stripe} size mismatch: ${sizes}`);
    }
    return this.#wired().pending.address;
  }

  answered(opcode: number, status: number, head: Uint8Array): void {
    switch (opcode) {
      case OPCODE.HELLO:
        this.#checkVersion(status, head);
        return;
      case OPCODE.FEATURES:
        this.#learnFeatures(status, head);
        return;
      case OPCODE.METADATA_DIGEST:
        this.#compareDigest(status, head);
        return;
      case OPCODE.METADATA:
        this.#checkStatus("metadata", status);
        this.#takeMetadata();
        return;
      case OPCODE.READ:
      case OPCODE.READ_SPARSE:
        this.#endRead(opcode, status);
        return;
      default:
        throw this.#error("it sent what nobody asked for");
    }
  }

  // --- internal ---

  #wired(): StripeWire {
    assert(this.#wire !== undefined, "answers come over a wire");
    return this.#wire;
  }

  #advance(): void {
    if (this.#phase === "connecting") {
      this.#connect();
    }
    if (this.#phase === "securing") {
      this.#secure();
    }
    const wire = this.#wire;
    if (wire === undefined || !this.#heed(wire.send())) {
      return;
    }
    const before = wire.movedBytes;
    if (this.#heed(wire.receive())) {
      this.#heed(wire.send()); // what the answers led to
    }
    if (wire.movedBytes !== before) {
      this.#progressMs = this.#nowMs;
    }
  }

  #connect(): void {
    if (!this.#dial.finish(this.#nowMs)) {
      this.#checkDial();
      return;
    }
    const { tls, operationTimeoutMs } = this.#settings;
    const fd = this.#dial.take();
    tuneStream(fd); // a connection without it is slower, not wrong
    this.#stream = tls === undefined ? new PlainStream(fd) : tls.session(fd);
    this.#phase = "securing";
    this.#progressMs = this.#nowMs;
    this.#totalDueMs = this.#nowMs + operationTimeoutMs;
  }

  #checkDial(): void {
    if (this.#dial.fd < 0) {
      const { address } = this.#settings;
      const isAnyPort = address.kind === "tcp" && address.port === 0;
      const why = `${this.#dial.failure}; ${isAnyPort ? ANY_PORT_HINT : "check that it runs, and the address"}`;
      this.#end(new UbiError("E_REMOTE", `Failed to connect to ${this.name}: ${why}`));
    }
  }

  #secure(): void {
    assert(this.#stream !== undefined, "a connection that is made has a stream");
    const result = this.#stream.handshake();
    if (result === STREAM_READY) {
      this.#greet(this.#stream);
    } else if (result === WANT_READ || result === WANT_WRITE) {
      this.#events = result === WANT_WRITE ? POLLOUT : POLLIN;
    } else {
      const why = result === 0 ? "" : this.#stream.problem(result);
      this.#end(handshakeError(this.name, why, result === TLS_FAILED));
    }
  }

  /** A server that is new to us is asked for everything at once. */
  #greet(stream: ByteStream): void {
    this.#wire = new StripeWire(stream, this);
    this.#phase = "greeting";
    this.#wire.ask(OPCODE.HELLO);
    this.#wire.ask(OPCODE.FEATURES);
    if (this.#known === undefined) {
      this.#wire.ask(OPCODE.METADATA);
    }
  }

  #checkVersion(status: number, head: Uint8Array): void {
    if (status === STATUS.UNKNOWN_OPCODE) {
      throw this.#error("it is too old: it does not know the hello request; update the server");
    }
    this.#checkStatus("hello", status);
    const version = decodeWord(head, 0);
    if (version !== PROTOCOL_VERSION) {
      const versions = `version ${version} of the stripe protocol, this program version`;
      throw this.#error(`it speaks ${versions} ${PROTOCOL_VERSION}; update the older one`);
    }
  }

  #learnFeatures(status: number, head: Uint8Array): void {
    if (status !== STATUS.UNKNOWN_OPCODE) {
      this.#checkStatus("features", status);
      this.#features = decodeWord(head, 0);
    }
    this.#phase = "describing";
    if (this.#known !== undefined) {
      const hasDigest = (this.#features & FEATURE.METADATA_DIGEST) !== 0;
      this.#wired().ask(hasDigest ? OPCODE.METADATA_DIGEST : OPCODE.METADATA);
    }
  }

  #compareDigest(status: number, head: Uint8Array): void {
    this.#checkStatus("metadata digest", status);
    if (hexOf(head.subarray(1, 1 + DIGEST_BYTES)) === this.#known?.metadataDigest) {
      this.#becomeReady(this.#known);
    } else {
      this.#wired().ask(OPCODE.METADATA);
    }
  }

  #takeMetadata(): void {
    const { address, sizeBytes } = this.#metadata;
    const disk = decodeRemoteDisk(this.name, new Uint8Array(viewOf(address, sizeBytes)));
    this.#forgetMetadata();
    const difference =
      this.#known === undefined ? undefined : differenceOf(this.#known, disk.identity);
    if (difference !== undefined) {
      this.#isForeign = true;
      throw this.#error(
        `its disk changed across reconnect: ${difference}; make sure that the address leads to the same disk`,
      );
    }
    this.#disk = disk;
    this.#becomeReady(disk.identity);
  }

  #becomeReady(identity: RemoteIdentity): void {
    this.#stripeBytes = stripeBytes(identity);
    this.#phase = "ready";
  }

  /** Statuses that mean something leave the connection as it is. */
  #endRead(opcode: number, status: number): void {
    const { pending } = this.#wired();
    const isZero = opcode === OPCODE.READ_SPARSE && status === STATUS.ZERO;
    if (isZero) {
      fillMemory(pending.address, 0, this.#stripeBytes);
    } else if (status > STATUS.NOT_FETCHED) {
      this.#isRefused = status === STATUS.SERVER_ERROR;
      throw statusError(this.name, `read of stripe ${pending.stripe}`, status);
    }
    this.#expectData(this.#stripeBytes);
    this.#owner.readEnded(pending.id, isZero ? STATUS.OK : status);
  }

  #checkStatus(request: string, status: number): void {
    if (status !== STATUS.OK) {
      throw statusError(this.name, request, status);
    }
  }

  #expectData(sizeBytes: number): void {
    const { operationTimeoutMs } = this.#settings;
    this.#progressMs = this.#nowMs;
    this.#totalDueMs = this.#nowMs + operationTimeoutMs + sizeBytes / RATE_MIN_BYTES_PER_MS;
  }

  #expire(): void {
    const { operationTimeoutMs } = this.#settings;
    if (this.#phase === "ended") {
      return;
    }
    if (this.#phase === "connecting") {
      this.#dial.expire(this.#nowMs);
      this.#checkDial();
      return;
    }
    if (this.#phase === "securing") {
      const why = `no end of it in ${operationTimeoutMs} ms`;
      this.#end(handshakeError(this.name, why, false));
      return;
    }
    const isStill = this.#nowMs >= this.#progressMs + operationTimeoutMs;
    const how = isStill ? `sent nothing for ${operationTimeoutMs} ms` : "is too slow";
    this.#end(this.#error(`it was asked for ${this.#awaited()} and ${how}`));
  }

  #awaited(): string {
    const { pending } = this.#wired();
    const isRead = pending.count > 0 && pending.id >= 0;
    return isRead ? `stripe ${pending.stripe}` : GREETING;
  }

  /** What a send or receive returned: 0 and failures end the connection. Whether it goes on. */
  #heed(result: number): boolean {
    if (result === WIRE_WAITS) {
      return true;
    }
    const wire = this.#wired();
    // Closed at once, as a full server does, it shows by what is left of it when the greeting is written.
    const isTurnedAway =
      this.#phase === "greeting" && (result === -EPIPE || result === -ECONNRESET);
    if (result < 0 && !isTurnedAway) {
      this.#end(this.#error(wire.problem(result)));
    } else {
      const isAwaited = wire.pending.count > 0;
      this.#end(isAwaited ? closedError(this.name, this.#awaited()) : undefined);
    }
    return false;
  }

  /** The read whose answer broke the protocol is not worth another try; one that the server failed at is. */
  #blame(): void {
    if (this.#isRefused) {
      return;
    }
    const pending = this.#wire?.pending;
    if (pending !== undefined && pending.count > 0 && pending.id >= 0) {
      const { id } = pending;
      pending.drop();
      this.#owner.readEnded(id, READ_BROKEN);
    }
  }

  #error(what: string): UbiError {
    return new UbiError("E_REMOTE", `${this.name}: ${what}`);
  }

  #end(failure: UbiError | undefined): void {
    if (this.#phase === "ended") {
      return;
    }
    this.#phase = "ended";
    this.#failure = failure;
    const pending = this.#wire?.pending;
    for (; pending !== undefined && pending.count > 0; pending.drop()) {
      if (pending.id >= 0) {
        this.#unanswered.push(pending.id);
      }
    }
    this.#forgetMetadata();
    if (this.#wire !== undefined) {
      this.#wire[Symbol.dispose]();
    } else if (this.#stream !== undefined) {
      this.#stream[Symbol.dispose]();
    } else if (this.#dial.fd >= 0) {
      closeDescriptor(this.#dial.take());
    }
  }

  #forgetMetadata(): void {
    const { address, sizeBytes } = this.#metadata;
    if (address !== 0) {
      unmap(address, sizeBytes);
      this.#metadata = { address: 0, sizeBytes: 0 };
    }
  }
}
