/**
 * The thread that fetches stripes and makes them durable. It sleeps in one wait: for the base, the metadata file,
 * the source, queues that want something, and the time of a retry or of the rate limit.
 *
 *   turn:  tell what ended -> obey the main thread -> service: begin, commit, wake queues -> hand over -> wait
 */
import { XtsCipher } from "../disk/cipher.ts";
import { type ErrorCode, UbiError } from "../errors.ts";
import { signalEvent } from "../ffi/event.ts";
import { unmap } from "../ffi/memory.ts";
import { nameThread } from "../ffi/process.ts";
import { f64 } from "../ffi/view.ts";
import { stayToTheEnd } from "../ffi/worker.ts";
import { stripesOf } from "../formats/metadata.ts";
import { SECTOR_BYTES } from "../formats/virtio-blk.ts";
import { log } from "../log.ts";
import { NO_SOURCE } from "../sources/no-source.ts";
import { openRawSource } from "../sources/open-raw-source.ts";
import type { StripeSource } from "../sources/stripe-source.ts";
import { WorkerSource, type WorkerSourceDescription } from "../sources/worker-source.ts";
import { appendToMetadata } from "../stripes/metadata-file.ts";
import { StripeService } from "../stripes/stripe-service.ts";
import { StripeState } from "../stripes/stripe-state.ts";
import { TouchOrder } from "../stripes/touch-order.ts";
import { Pulse, type SharedPulse } from "./heartbeat.ts";
import { type Machine, thisMachine } from "./machine.ts";
import { type StripeOrder, TouchRecorder } from "./prefetch-file.ts";
import { type SharedStripeControl, StripeControl } from "./stripe-control.ts";
import type { StripeDescription } from "./stripe-description.ts";
import { entriesOf, StripeHost } from "./stripe-host.ts";

/** What the stripe worker is started with. */
export interface StripeWorkerData {
  readonly stripes: StripeDescription;
  readonly control: SharedStripeControl;
  /** As in the metadata file; this thread's own from here on. */
  readonly flags: SharedArrayBuffer;
  readonly disk: { readonly fd: number; readonly sectors: number; readonly cipherContext: number };
  readonly metadataFd: number;
  /** For messages. */
  readonly metadataPath: string;
  /** A source that workers read; undefined for an image, and for none. */
  readonly source: WorkerSourceDescription | undefined;
  readonly buffers: FetchBuffers;
  readonly isAutofetch: boolean;
  /** Fetched first, also without autofetch. */
  readonly prefetch: StripeOrder;
  /** Where the order in which stripes are asked for goes; then nothing is fetched ahead. */
  readonly recordPath: string | undefined;
  /** Stripes that are fetched ahead of a guest that reads upwards. */
  readonly aheadMax: number;
  readonly ioEngine: "io_uring" | "sync";
  /** Of the disk's group flush. */
  readonly flush: SharedArrayBuffer;
  readonly queueWakeFds: readonly number[];
}

/** Memory that stripes are fetched into: one piece, touched as it is used, unmapped with the source. */
export interface FetchBuffers {
  readonly address: number;
  readonly count: number;
  readonly bytesEach: number;
  /** Left to demand by the background. */
  readonly reserved: number;
  readonly reservedWhenAsked: number;
}

/** To the main thread. `growth` tells the end of what was asked for, with the reason when it failed. */
export type StripeMessage =
  | { readonly kind: "ready" | "source-closed" | "stopped" }
  /** Nothing is under way, and nothing begins: as the ticket asked. */
  | { readonly kind: "held"; readonly ticket: number }
  | {
      readonly kind: "growth";
      readonly sectors: number;
      readonly failure: GrowthFailure | undefined;
    };

export interface GrowthFailure {
  readonly code: ErrorCode;
  readonly message: string;
}

/** For a few sectors to be written and brought to disk while all else of this thread waits. */
const GROWTH_MS = 60_000;

/** Runs the stripe worker of this thread until it is told to stop. */
export function runStripeWorker(data: StripeWorkerData & { readonly pulse: SharedPulse }): void {
  nameThread("stripes");
  const pulse = new Pulse(data.pulse);
  let isReading: boolean;
  {
    const machine = thisMachine(data.ioEngine);
    using worker = new StripeWorker(data, { machine, pulse, source: openSource(data), tell });
    tell({ kind: "ready" });
    while (worker.turn()) {
      pulse.answer();
    }
    isReading = worker.isReading;
  }
  tell({ kind: "stopped" }); // now that it uses nothing any more
  if (isReading) {
    stayToTheEnd();
  }
}

// --- internal ---

/** What the thread itself has. */
export interface StripeWorkerParts {
  readonly machine: Machine;
  readonly pulse: Pulse;
  /** Opened by and for this thread. */
  readonly source: StripeSource;
  readonly tell: (message: StripeMessage) => void;
}

export class StripeWorker implements Disposable {
  readonly #data: StripeWorkerData;
  readonly #pulse: Pulse;
  readonly #state: StripeState;
  readonly #control: StripeControl;
  readonly #host: StripeHost;
  readonly #service: StripeService;
  readonly #machine: Machine;
  readonly #tell: (message: StripeMessage) => void;
  readonly #startedNs: number;
  readonly #fetchedAtStart: number;
  readonly #recorder: TouchRecorder | undefined;
  #isSourceOpen: boolean;
  #isStopping = false;
  #hasGivenUp = false;
  /** 0 while nothing is held. */
  #holdTicket = 0;
  #isHoldTold = false;
  #failedTold = 0;
  #hasToldTries = false;

  constructor(data: StripeWorkerData, parts: StripeWorkerParts) {
    const { stripes, disk, buffers, recordPath } = data;
    const { machine, source } = parts;
    this.#data = data;
    this.#machine = machine;
    this.#pulse = parts.pulse;
    this.#tell = parts.tell;
    this.#startedNs = machine.clockNs();
    this.#state = new StripeState(stripes.state);
    this.#control = new StripeControl(data.control);
    const entries = entriesOf(buffers.count);
    const file = { isWriteThrough: false };
    const touches = recordPath === undefined ? undefined : new TouchOrder(this.#state.stripesMax);
    this.#recorder =
      recordPath === undefined || touches === undefined
        ? undefined
        : new TouchRecorder(recordPath, touches, stripes.stripeSectors);
    this.#host = new StripeHost({
      state: this.#state,
      machine,
      baseEngine: machine.openEngine(entries.base, { ...file, fd: disk.fd }),
      metadataEngine: machine.openEngine(entries.metadata, { ...file, fd: data.metadataFd }),
      wakeFd: stripes.stripeWakeFd,
      sourceFd: source.waitFd,
      cipher: disk.cipherContext === 0 ? undefined : XtsCipher.attach(disk.cipherContext),
      flush: {
        shared: data.flush,
        queues: stripes.rings.length,
        queueWakeFds: data.queueWakeFds,
      },
    });
    this.#service = new StripeService({
      state: this.#state,
      rings: stripes.rings,
      flags: new Uint8Array(data.flags),
      source,
      host: this.#host,
      stripeSectors: stripes.stripeSectors,
      diskSectors: disk.sectors,
      bufferAddresses: Array.from(
        { length: buffers.count },
        (_, buffer) => buffers.address + buffer * buffers.bytesEach,
      ),
      reservedBuffers: buffers.reserved,
      reservedWhenAsked: buffers.reservedWhenAsked,
      aheadMax: recordPath === undefined ? data.aheadMax : 0,
      touches,
      sectorPlaces: this.#host.sectorPlaces,
      isWrittenTracked: stripes.isWrittenTracked,
      isChangeTracked: stripes.isChangeTracked,
      order: orderOf(data),
    });
    this.#isSourceOpen = source !== NO_SOURCE;
    this.#fetchedAtStart = this.#state.counter("fetched");
  }

  /** Whether something is still wanted of the source: then it may be reading. */
  get isReading(): boolean {
    return !this.#service.fetcher.isIdle;
  }

  /** One turn of the loop. False when the worker is to end. */
  turn(): boolean {
    const service = this.#service;
    this.#host.tellEnds(service);
    this.#obey();
    const nowMs = this.#machine.clockNs() / 1e6;
    service.turn(nowMs);
    this.#host.submit(service);
    this.#publish();
    this.#recorder?.advance(nowMs);
    if (this.#isSourceOpen && this.#state.counter("unfetched") === 0 && service.fetcher.isIdle) {
      this.#closeSource();
    }
    if (this.#holdTicket !== 0 && !this.#isHoldTold && service.isDrained) {
      this.#isHoldTold = true;
      this.#recorder?.write();
      this.#tell({ kind: "held", ticket: this.#holdTicket });
    }
    if (this.#isStopping && service.isDrained) {
      this.#recorder?.write();
      return false;
    }
    const recordMs = this.#recorder?.dueMs ?? Number.POSITIVE_INFINITY;
    this.#host.wait(Math.min(service.dueMs, recordMs), nowMs);
    return true;
  }

  [Symbol.dispose](): void {
    this.#host[Symbol.dispose]();
  }

  // --- internal ---

  #obey(): void {
    const control = this.#control;
    const { background } = this.#service.fetcher;
    const wish = control.takePauseWish();
    if (wish === "pause") {
      background.pause();
    } else if (wish === "resume") {
      background.resume();
    }
    background.limit(control.limit);
    if (control.takeRetryWish()) {
      this.#service.retryFailed();
    }
    const ticket = control.holdTicket;
    if (ticket !== this.#holdTicket) {
      this.#holdTicket = ticket;
      this.#isHoldTold = false;
      this.#service.hold(ticket !== 0);
    }
    if (control.isGiveUpAsked && !this.#hasGivenUp) {
      this.#hasGivenUp = true;
      this.#service.giveUp();
    }
    const sectors = control.growthAsked;
    if (sectors !== undefined && this.#service.readyToGrow() && control.takeGrowth()) {
      this.#tell({ kind: "growth", sectors, failure: this.#grow(sectors) });
    }
    if (control.isStopAsked && !this.#isStopping) {
      this.#isStopping = true;
      this.#service.stop();
    }
  }

  /**
   * The metadata file gets the new stripes, then this thread. The queues do not know of them yet. All waits meanwhile:
   * no sync of the file but that of a round may hear of what a round's writes lost.
   */
  #grow(sectors: number): GrowthFailure | undefined {
    const { stripes, disk, metadataFd: fd, metadataPath: path } = this.#data;
    const { flags: before } = this.#service.commit;
    const stripeShift = Math.log2(stripes.stripeSectors);
    const stripeCount = stripesOf(sectors, stripeShift);
    if (stripeCount < before.length) {
      const message =
        "the metadata has more stripes already, of a growth that was given up; try again with that size";
      return { code: "E_RESIZE", message };
    }
    const flags = new Uint8Array(stripeCount);
    flags.set(before);
    this.#pulse.excuse(GROWTH_MS);
    try {
      if (stripeCount > before.length) {
        using cipher = disk.cipherContext === 0 ? undefined : XtsCipher.attach(disk.cipherContext);
        appendToMetadata({ path, fd, cipher }, { stripeShift, stripeCount, flags }, before.length);
      }
    } catch (error) {
      if (!(error instanceof UbiError)) {
        throw error;
      }
      return { code: error.code, message: error.message };
    } finally {
      this.#pulse.excuse(0);
    }
    this.#service.grow(flags, sectors);
    return undefined;
  }

  #publish(): void {
    const { fetcher, failedStripes } = this.#service;
    this.#control.setPaused(fetcher.background.isPaused);
    if (failedStripes.size > 0 || this.#failedTold > 0) {
      this.#failedTold = failedStripes.size;
      this.#control.setFailed(failedStripes);
    }
    const { failures } = fetcher;
    if (failures.size > 0 || this.#hasToldTries) {
      this.#hasToldTries = failures.size > 0;
      this.#control.setTried(failures);
    }
  }

  /** Every stripe is on the base for good: nobody reads the source or a fetch buffer any more. */
  #closeSource(): void {
    this.#isSourceOpen = false;
    this.#host.unwatchSource();
    this.#service.fetcher.closeSource();
    const { buffers, queueWakeFds } = this.#data;
    unmap(buffers.address, buffers.count * buffers.bytesEach);
    for (const fd of queueWakeFds) {
      signalEvent(fd);
    }
    log.info("all stripes are fetched, the source is needed no more", {
      stripes: this.#state.counter("fetched") - this.#fetchedAtStart,
      demanded: this.#state.counter("demandFetches"),
      background: this.#state.counter("backgroundFetches"),
      seconds: Math.round((this.#machine.clockNs() - this.#startedNs) / 1e8) / 10,
    });
    this.#tell({ kind: "source-closed" });
  }
}

function tell(message: StripeMessage): void {
  postMessage(message);
}

function openSource({ stripes, source, buffers, ioEngine }: StripeWorkerData): StripeSource {
  if (source !== undefined) {
    return new WorkerSource(source);
  }
  if (stripes.image === undefined) {
    return NO_SOURCE;
  }
  const stripeBytes = stripes.stripeSectors * SECTOR_BYTES;
  return openRawSource(stripes.image, { stripeBytes, requestsMax: buffers.count, ioEngine });
}

/** What the background fetches, in this order; undefined for nothing. */
function orderOf(data: StripeWorkerData): (() => Iterator<number>) | undefined {
  const { isAutofetch, prefetch, stripes } = data;
  if (!isAutofetch && prefetch.length === 0) {
    return undefined;
  }
  return function* () {
    for (let i = 0; i < prefetch.length; i += 2) {
      yield* stripesFrom(f64(prefetch, i), f64(prefetch, i + 1));
    }
    if (isAutofetch) {
      yield* stripesFrom(0, stripes.state.stripeCount);
    }
  };
}

function* stripesFrom(first: number, end: number): Generator<number> {
  for (let stripe = first; stripe < end; stripe++) {
    yield stripe;
  }
}
