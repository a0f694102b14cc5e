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
import { syncDisk } from "../device/disk-requests.ts";
import { DiskSize } from "../device/disk-size.ts";
import { Pulse, type SharedPulse } from "../device/heartbeat.ts";
import { errnoText, errorText, UbiError } from "../errors.ts";
import { drainEvent } from "../ffi/event.ts";
import { installMemoryGuard } from "../ffi/memory.ts";
import { nameThread } from "../ffi/process.ts";
import { PollSet } from "../ffi/socket.ts";
import { ListeningSocket, type SocketPlace } from "../ffi/socket-file.ts";
import { encodeU64, requestName } from "../formats/vhost-user.ts";
import { LogLimiter, log } from "../log.ts";
import { Connection, closeDescriptors, type Request } from "./connection.ts";
import type { AnnouncedLimits } from "./features.ts";
import { MemoryMap } from "./memory-map.ts";
import { QueueCommand, QueueMailbox } from "./queue-mailbox.ts";
import { Session, type WriteCache } from "./session.ts";
import { SizeNews } from "./size-news.ts";

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
  /** One word: 1 asks to stop. */
  readonly stop: SharedArrayBuffer;
}

/** What the control worker tells the main thread. */
export type ControlMessage =
  | { readonly kind: "listening" }
  /** The disk has grown, and the front end was told of it. */
  | { readonly kind: "size-told"; readonly guest: GuestNews }
  | { readonly kind: "failed"; readonly code: string; readonly message: string }
  | { readonly kind: "stopped"; readonly isFlushed: boolean };

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
    tell({ kind: "stopped", isFlushed: serveUntilStopped(data) });
  } catch (error) {
    const code = error instanceof UbiError ? error.code : "E_WORKER";
    tell({ kind: "failed", code, message: errorText(error) });
  }
}

/** The socket's file is gone when this returns: the process ends soon after it is told. */
function serveUntilStopped(data: ControlWorkerData): boolean {
  using worker = new ControlWorker(data);
  tell({ kind: "listening" });
  worker.serve();
  return worker.stopQueues();
}

class ControlWorker implements Disposable {
  readonly #data: ControlWorkerData;
  readonly #stop: Int32Array;
  readonly #pulse: Pulse;
  readonly #listener: ListeningSocket;
  readonly #poll = new PollSet(4);
  readonly #limiter = new LogLimiter();
  readonly #visits = new LogLimiter(20);
  readonly #mailboxes: readonly QueueMailbox[];
  readonly #memory: MemoryMap;
  readonly #cache: WriteCache;
  readonly #size: DiskSize;
  readonly #news: SizeNews;
  /** A session whose queues did not end their requests: none follows it before they have. */
  #unended: Session | undefined;

  constructor(data: ControlWorkerData) {
    this.#data = data;
    this.#stop = new Int32Array(data.stop);
    this.#pulse = new Pulse(data.pulse);
    this.#mailboxes = data.mailboxes.map(
      (shared, i) => new QueueMailbox(shared, data.queueWakeFds[i] ?? -1),
    );
    this.#memory = new MemoryMap(data.memoryTable);
    this.#cache = { isWriteback: !data.disk.isWriteThrough };
    this.#size = new DiskSize(data.shared.size);
    this.#news = new SizeNews(this.#size, this.#limiter, (guest) =>
      tell({ kind: "size-told", guest }),
    );
    installMemoryGuard();
    this.#listener = ListeningSocket.open(data.socket);
    this.#poll.watch(WAKE, data.wakeFd);
    this.#poll.watch(LISTEN, this.#listener.fd);
    this.#poll.watch(CLIENT, NOBODY);
    this.#poll.watch(CHANNEL, NOBODY);
  }

  /** Serves one front end after another until the main thread asks to stop. */
  serve(): void {
    while (!this.#isStopping()) {
      this.#wait(undefined);
      const fd = this.#poll.events(LISTEN) === 0 ? EAGAIN : this.#listener.accept();
      if (fd >= 0) {
        this.#serveOne(fd);
      } else if (fd !== EAGAIN) {
        this.#limiter.warn("cannot accept a front end", { cause: errnoText(fd) });
        Bun.sleepSync(ACCEPT_RETRY_MS); // it stays in the backlog: no busy loop over it
      }
    }
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
    const { disk, shared, mailboxes, queueWakeFds } = this.#data;
    const wakeFds = queueWakeFds.slice(0, mailboxes.length);
    return disk.isReadOnly || syncDisk({ disk, shared, wakeFds }, SYNC_TIMEOUT_MS);
  }

  #isStopping(): boolean {
    return Atomics.load(this.#stop, 0) === 1;
  }

  #wait(session: Session | undefined): void {
    this.#poll.watch(CHANNEL, session?.backChannel?.fd ?? NOBODY);
    this.#poll.wait(this.#news.waitMs(performance.now()));
    if (this.#poll.events(WAKE) !== 0) {
      drainEvent(this.#data.wakeFd);
      this.#pulse.answer();
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
      syncDisk: () => this.#syncDisk(),
      cache: this.#cache,
      limiter: this.#limiter,
    });
    this.#visits.info("front end connected", { socket: this.#listener.path });
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
    while (!this.#isStopping()) {
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
        connection.reply(request.request, reply);
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
  }
}

function tell(message: ControlMessage): void {
  postMessage(message);
}
