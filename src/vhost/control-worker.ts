/**
 * The thread that talks to front ends: one listening socket, one front end at a time, one bounded wait
 * over both and a wake-up descriptor of the main thread. It needs a thread of its own because passed
 * descriptors are only to be had by a blocking system call of the native library.
 *
 *   main --- stop word + eventfd ---> control --- letters ---> queue workers
 *        <-- messages --------------
 */
import type { DiskDescription, SharedDiskState } from "../device/disk-device.ts";
import type { GuestNews } from "../device/disk-growth.ts";
import { beginSync, type DiskMembers, syncDisk } from "../device/disk-requests.ts";
import { DiskSize } from "../device/disk-size.ts";
import { Pulse, type SharedPulse } from "../device/heartbeat.ts";
import { errnoText, errorText, UbiError } from "../errors.ts";
import { drainEvent } from "../ffi/event.ts";
import { installMemoryGuard } from "../ffi/memory.ts";
import { nameThread } from "../ffi/process.ts";
import { PollSet } from "../ffi/socket.ts";
import { type HandedSocket, ListeningSocket, type SocketPlace } from "../ffi/socket-file.ts";
import { encodeU64, requestName } from "../formats/vhost-user.ts";
import { LogLimiter, log } from "../log.ts";
import { Connection, closeDescriptors, type Request } from "./connection.ts";
import type { AnnouncedLimits } from "./features.ts";
import { FrontEndState } from "./front-end-state.ts";
import { MemoryMap } from "./memory-map.ts";
import { QueueCommand, QueueMailbox } from "./queue-mailbox.ts";
import { type RingEnd, RingEnds } from "./ring-ends.ts";
import { Session } from "./session.ts";
import { SizeNews } from "./size-news.ts";
import type { WriteCache } from "./write-cache.ts";

/** What the control worker is started with. */
export interface ControlWorkerData {
  readonly socket: SocketPlace;
  readonly disk: DiskDescription;
  readonly shared: SharedDiskState;
  readonly limits: AnnouncedLimits;
  readonly memoryTable: SharedArrayBuffer;
  readonly mailboxes: readonly SharedArrayBuffer[];
  readonly queueWakeFds: readonly number[];
  readonly wakeFd: number;
  readonly pulse: SharedPulse;
  /** Of FrontEndState. */
  readonly frontEnd: SharedArrayBuffer;
  /** One word: a `Wish`. */
  readonly wish: SharedArrayBuffer;
  /** The guest's choice, where another process knew it; undefined at a start. */
  readonly isWriteback: boolean | undefined;
  /** Of that process. */
  readonly ringEnds: readonly RingEnd[];
}

/** What the main thread wants. */
export const Wish = {
  serve: 0,
  stop: 1,
  /** All requests end and none begin; the front end stays connected, and is not listened to. */
  rest: 2,
  /** Out of `rest`: the front end is let go of, and all is left to another process. */
  leave: 3,
} as const;

/** What the control worker tells the main thread. */
export type ControlMessage =
  | { readonly kind: "listening"; readonly socket: HandedSocket }
  /** The disk has grown, and the front end was told of it. */
  | { readonly kind: "size-told"; readonly guest: GuestNews }
  | ({ readonly kind: "rest" } & Rest)
  | { readonly kind: "left" }
  | { readonly kind: "failed"; readonly code: string; readonly message: string }
  | { readonly kind: "stopped"; readonly isFlushed: boolean };

/** What a rest came to. */
export interface Rest {
  /** Nothing is under way, or it does not end in time, or a ring waits for the driver to begin anew. */
  readonly outcome: "resting" | "busy" | "left alone" | "not durable";
  /** The guest has the write cache on. */
  readonly isWriteback: boolean;
  readonly ringEnds: readonly RingEnd[];
}

/** For requests to end before a rest. */
const REST_MS = 5_000;
/** For all requests of a front end that left to end, and the same while the process is to stop. */
const END_TIMEOUT_MS = 60_000;
const STOP_TIMEOUT_MS = 30_000;
const EXIT_TIMEOUT_MS = 5_000;
const SYNC_TIMEOUT_MS = 60_000;
/** The longest that a front end's message or its end takes: a queue that ends its requests, and a sync. */
const BUSY_MS = END_TIMEOUT_MS + SYNC_TIMEOUT_MS + 10_000;
const WAKE = 0;
const LISTEN = 1;
const CLIENT = 2;
const CHANNEL = 3;
const NOBODY = -1;
const EAGAIN = -11;
/** How long to leave a front end waiting that cannot be accepted, such as for want of descriptors. */
const ACCEPT_RETRY_MS = 100;

/** Runs the worker of this thread until the main thread asks to stop. */
export function runControlWorker(data: ControlWorkerData): void {
  nameThread("vhost-control");
  try {
    tell(serveToTheEnd(data));
  } catch (error) {
    const code = error instanceof UbiError ? error.code : "E_WORKER";
    tell({ kind: "failed", code, message: errorText(error) });
  }
}

/** The socket's file is gone when this returns, unless it was left: the process ends soon after it is told. */
function serveToTheEnd(data: ControlWorkerData): ControlMessage {
  using worker = new ControlWorker(data);
  tell({ kind: "listening", socket: worker.socket });
  return worker.serve() === "left"
    ? { kind: "left" }
    : { kind: "stopped", isFlushed: worker.stopQueues() };
}

class ControlWorker implements Disposable {
  readonly #data: ControlWorkerData;
  readonly #wish: Int32Array;
  readonly #pulse: Pulse;
  readonly #listener: ListeningSocket;
  readonly #poll = new PollSet(4);
  readonly #limiter = new LogLimiter();
  readonly #visits = new LogLimiter(20);
  readonly #mailboxes: readonly QueueMailbox[];
  readonly #memory: MemoryMap;
  readonly #cache: WriteCache;
  readonly #ringEnds: RingEnds;
  readonly #size: DiskSize;
  readonly #news: SizeNews;
  readonly #frontEnd: FrontEndState;
  /** A session whose queues did not end their requests: none follows it before they have. */
  #unended: Session | undefined;

  constructor(data: ControlWorkerData) {
    this.#data = data;
    this.#wish = new Int32Array(data.wish);
    this.#frontEnd = new FrontEndState(data.frontEnd);
    this.#pulse = new Pulse(data.pulse);
    this.#mailboxes = data.mailboxes.map(
      (shared, i) => new QueueMailbox(shared, data.queueWakeFds[i] ?? -1),
    );
    this.#memory = new MemoryMap(data.memoryTable);
    const { isWriteThrough } = data.disk;
    this.#cache = { isWriteback: !isWriteThrough && data.isWriteback !== false };
    this.#size = new DiskSize(data.shared.size);
    this.#news = new SizeNews(this.#size, this.#limiter, (guest) =>
      tell({ kind: "size-told", guest }),
    );
    installMemoryGuard();
    this.#listener = ListeningSocket.open(data.socket);
    this.#ringEnds = new RingEnds(data.ringEnds);
    this.#poll.watch(WAKE, data.wakeFd);
    this.#poll.watch(LISTEN, this.#listener.fd);
    this.#poll.watch(CLIENT, NOBODY);
    this.#poll.watch(CHANNEL, NOBODY);
  }

  get socket(): HandedSocket {
    return this.#listener.handed;
  }

  /** Serves one front end after another until the main thread wants something else for good. */
  serve(): "stopped" | "left" {
    while (this.#goesOn(undefined)) {
      this.#wait(undefined);
      const fd = this.#poll.events(LISTEN) === 0 ? EAGAIN : this.#listener.accept();
      if (fd >= 0) {
        this.#serveOne(fd);
      } else if (fd !== EAGAIN) {
        this.#limiter.warn("cannot accept a front end", { cause: errnoText(fd) });
        Bun.sleepSync(ACCEPT_RETRY_MS); // it stays in the backlog: no busy loop over it
      }
    }
    return this.#isStopping() ? "stopped" : "left";
  }

  /** Ends the queue workers, then makes durable what they wrote. */
  stopQueues(): boolean {
    for (const mailbox of this.#mailboxes) {
      if (mailbox.isBusy() || mailbox.command(QueueCommand.exit, [], EXIT_TIMEOUT_MS) < 0) {
        return false;
      }
    }
    return this.#syncDisk();
  }

  [Symbol.dispose](): void {
    this.#listener[Symbol.dispose]();
    this.#poll[Symbol.dispose]();
  }

  // --- internal ---

  #syncDisk(): boolean {
    return this.#data.disk.isReadOnly || syncDisk(this.#members(), SYNC_TIMEOUT_MS);
  }

  #members(): DiskMembers {
    const { disk, shared, mailboxes, queueWakeFds } = this.#data;
    return { disk, shared, wakeFds: queueWakeFds.slice(0, mailboxes.length) };
  }

  #isStopping(): boolean {
    return this.#wants(Wish.stop);
  }

  #wants(wish: number): boolean {
    return Atomics.load(this.#wish, 0) === wish;
  }

  /** Whether to go on serving, behind a rest if that is wanted. */
  #goesOn(session: Session | undefined): boolean {
    if (this.#wants(Wish.rest)) {
      this.#rest(session);
    }
    return this.#wants(Wish.serve);
  }

  /** Returns when something else is wanted. What the front end sends meanwhile stays in its socket. */
  #rest(session: Session | undefined): void {
    this.#pulse.excuse(BUSY_MS);
    const outcome = this.#restOutcome(session);
    this.#pulse.excuse(0);
    const { isWriteback } = this.#cache;
    tell({ kind: "rest", outcome, isWriteback, ringEnds: this.#ringEnds.all });
    using wake = new PollSet(1);
    wake.watch(0, this.#data.wakeFd);
    while (this.#wants(Wish.rest)) {
      wake.wait(-1);
      drainEvent(this.#data.wakeFd);
      this.#pulse.answer();
    }
    const isResting = outcome === "resting" || outcome === "not durable";
    if (this.#wants(Wish.serve) && isResting) {
      session?.resume();
    } else if (this.#wants(Wish.leave)) {
      this.#listener.leaveFile();
    }
  }

  #restOutcome(session: Session | undefined): Rest["outcome"] {
    if (session?.hasRingLeftAlone === true) {
      return "left alone";
    }
    if (this.#unended !== undefined || session?.rest(REST_MS) === false) {
      return "busy";
    }
    return this.#syncDisk() ? "resting" : "not durable";
  }

  #wait(session: Session | undefined): void {
    this.#poll.watch(CHANNEL, session?.backChannel?.fd ?? NOBODY);
    this.#poll.wait(this.#news.waitMs(performance.now()));
    if (this.#poll.events(WAKE) !== 0) {
      drainEvent(this.#data.wakeFd);
      this.#pulse.answer();
      session?.releaseMemory(); // a queue may have been the last to use some
    }
    this.#news.advance(session, this.#poll.events(CHANNEL) !== 0, performance.now());
  }

  #serveOne(fd: number): void {
    using connection = new Connection(fd, { isStopping: () => this.#isStopping() });
    if (this.#unended !== undefined && !this.#endSession(this.#unended)) {
      return; // a queue may still be using its memory and descriptors
    }
    const session = new Session({
      disk: this.#data.disk,
      sectors: () => this.#size.sectors,
      limits: this.#data.limits,
      memory: this.#memory,
      mailboxes: this.#mailboxes,
      beginSync: () =>
        this.#data.disk.isReadOnly ? () => true : beginSync(this.#members(), SYNC_TIMEOUT_MS),
      cache: this.#cache,
      ringEnds: this.#ringEnds,
      limiter: this.#limiter,
    });
    this.#visits.info("front end connected", { socket: this.#listener.path });
    this.#frontEnd.connected();
    this.#poll.watch(LISTEN, NOBODY); // others wait in the backlog
    this.#poll.watch(CLIENT, fd);
    try {
      this.#converse(connection, session);
      this.#visits.info("front end disconnected", { socket: this.#listener.path });
    } catch (error) {
      if (!(error instanceof UbiError)) {
        throw error;
      }
      this.#limiter.warn("front end dropped", { code: error.code, why: error.message });
    } finally {
      this.#poll.watch(CLIENT, NOBODY);
      this.#poll.watch(LISTEN, this.#listener.fd);
      this.#news.left();
      this.#frontEnd.left();
      this.#endSession(session);
    }
  }

  /** Requests in flight end first; a disk that never answers keeps its buffers and the memory mapped. */
  #endSession(session: Session): boolean {
    this.#pulse.excuse(BUSY_MS);
    try {
      session.end(this.#isStopping() ? STOP_TIMEOUT_MS : END_TIMEOUT_MS);
      this.#unended = undefined;
      return true;
    } catch (error) {
      if (!(error instanceof UbiError)) {
        throw error;
      }
      this.#unended = session;
      this.#limiter.warn("cannot end the session cleanly", {
        code: error.code,
        why: error.message,
      });
      return false;
    } finally {
      this.#pulse.excuse(0);
    }
  }

  #converse(connection: Connection, session: Session): void {
    while (this.#goesOn(session)) {
      this.#wait(session);
      if (this.#poll.events(CLIENT) !== 0) {
        const request = connection.receive();
        if (request === undefined) {
          return;
        }
        this.#answer(connection, session, request);
      }
    }
  }

  #answer(connection: Connection, session: Session, request: Request): void {
    const mayAcknowledge = request.needsReply && session.hasReplyAck;
    this.#pulse.excuse(BUSY_MS);
    try {
      log.debug("request", { name: requestName(request.request), bytes: request.payload.length });
      const reply = session.handle(request.request, request.payload, request.descriptors);
      if (reply !== undefined) {
        this.#reply(connection, session, request.request, reply);
      } else if (mayAcknowledge) {
        connection.reply(request.request, encodeU64(0n));
      }
    } catch (error) {
      if (error instanceof UbiError && mayAcknowledge) {
        connection.reply(request.request, encodeU64(1n));
      }
      throw error;
    } finally {
      this.#pulse.excuse(0);
      closeDescriptors(request.descriptors);
    }
    this.#frontEnd.track(session.inflight.isTracking);
  }

  #reply(connection: Connection, session: Session, request: number, payload: Uint8Array): void {
    const descriptors = session.inflight.takeReplyDescriptors();
    try {
      connection.reply(request, payload, descriptors);
    } finally {
      closeDescriptors(descriptors);
    }
  }
}

function tell(message: ControlMessage): void {
  postMessage(message);
}
