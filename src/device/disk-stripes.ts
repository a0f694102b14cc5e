/**
 * Lazy stripes of a disk as the main thread has them: what is made before the stripe worker and the queues start,
 * what they are started with, and what is asked and told while they run.
 */
import type { DeviceConfig } from "../config/index.ts";
import type { DataFile } from "../disk/data-file.ts";
import { UbiError } from "../errors.ts";
import { createEvent, signalEvent } from "../ffi/event.ts";
import { mapAnonymous } from "../ffi/memory.ts";
import { closeDescriptor } from "../ffi/socket.ts";
import { stripeBytes } from "../formats/metadata.ts";
import { SECTOR_BYTES } from "../formats/virtio-blk.ts";
import type { OpenedSource } from "../sources/opened-source.ts";
import { IntentRing } from "../stripes/intent-ring.ts";
import { Phase, phaseOf, StripeState } from "../stripes/stripe-state.ts";
import { fetchBufferCount, INTENTS_A_QUEUE } from "./disk-memory.ts";
import type { DiskMetadata, StripeCounts } from "./disk-metadata.ts";
import type { DiskSecrets } from "./disk-secrets.ts";
import { FetchRate } from "./fetch-rate.ts";
import { openLists, type StripeOrder } from "./prefetch-file.ts";
import { StripeControl } from "./stripe-control.ts";
import type { StripeDescription } from "./stripe-description.ts";
import { openStripeSource, type StripeOrigin } from "./stripe-origin.ts";
import type { FetchBuffers, GrowthFailure, StripeWorkerData } from "./stripe-worker.ts";

/** What is told of the fetch beside the three counts of the disk. */
export interface FetchFacts {
  readonly stripeBytes: number;
  readonly unfetched: number;
  readonly written: number;
  readonly inFlight: number;
  readonly demandFetches: number;
  readonly backgroundFetches: number;
  readonly aheadFetches: number;
  readonly zeroStripes: number;
  readonly retries: number;
  /** Read from the source since the start. */
  readonly sourceBytes: number;
  /** Stripes that were given up since the start. */
  readonly failures: number;
  readonly failed: number;
  readonly failedStripes: readonly number[];
  readonly bytesPerSecond: number;
  /** Undefined while nothing arrives, and when nothing is missing. */
  readonly etaSeconds: number | undefined;
  readonly isPaused: boolean;
  /** Infinity for none. */
  readonly limitBytesPerSecond: number;
  readonly sourceState: "none" | "open" | "retrying" | "closed";
}

/** What the stripes of a disk are opened from. */
interface StripeNeeds {
  readonly data: DataFile;
  readonly metadata: DiskMetadata | undefined;
  readonly secrets: DiskSecrets;
  /** Opened and checked already. */
  readonly source?: OpenedSource | undefined;
}

/** Changes by command. */
export interface FetchWishes {
  readonly isPaused?: true | undefined;
  /** Infinity for no limit. */
  readonly bytesPerSecond?: number | undefined;
}

/** What is done for whoever waits for a stripe: it is to be fetched, comes from the source, goes to the disk, or is noted. */
export interface StripeProgress {
  readonly step: "queued" | "fetch" | "write" | "metadata";
  /** Of the fetch, which is tried again. */
  readonly failedTries: number;
}

const STEPS: Readonly<Record<number, StripeProgress["step"]>> = {
  [Phase.unfetched]: "queued",
  [Phase.failed]: "queued",
  [Phase.fetching]: "fetch",
  [Phase.buffered]: "write",
};

/** How much of the fetch buffers the background may use. */
const BACKGROUND_BYTES = 16 * 2 ** 20;
/** While guests ask for stripes. */
const BACKGROUND_ASKED_BYTES = 4 * 2 ** 20;
/** Brought ahead of a guest that reads upwards. */
const AHEAD_BYTES = 8 * 2 ** 20;
/** For a round of metadata that is under way, and the fetch of the last stripe. */
const GROWTH_MS = 30_000;

export class DiskStripes {
  readonly description: StripeDescription;
  readonly #config: DeviceConfig;
  readonly #metadata: DiskMetadata;
  readonly #state: StripeState;
  readonly #control: StripeControl;
  readonly #buffers: FetchBuffers;
  readonly #stripeBytes: number;
  readonly #rate: FetchRate;
  readonly #prefetch: StripeOrder;
  readonly #origin: StripeOrigin | undefined;
  /** How the background was set by command; undefined where the config counts. */
  #wishes: FetchWishes = {};
  #hold: (PromiseWithResolvers<boolean> & { readonly ticket: number }) | undefined;
  #holds = 0;
  #growth: (PromiseWithResolvers<void> & { readonly sectors: number }) | undefined;

  /**
   * Undefined for a disk with nothing to fetch and nothing to track: it is served as a plain one.
   * @throws UbiError E_STRIPE_SOURCE, E_PREFETCH, E_CONFIG, E_METADATA_SIZE, E_DISK_*, E_MEMORY; those of secrets,
   * stores, archives and stripe servers
   */
  static async open(
    config: DeviceConfig,
    { data, metadata, secrets, source }: StripeNeeds,
  ): Promise<DiskStripes | undefined> {
    const isTracked = config.device.trackWritten && !config.device.readOnly;
    const isFetching = metadata !== undefined && metadata.counts.unfetched > 0;
    if (!isFetching) {
      await source?.[Symbol.asyncDispose](); // all was fetched since it was opened
    }
    if (metadata === undefined || !(isFetching || isTracked)) {
      return undefined;
    }
    checkServable(config, data, metadata);
    const origin = isFetching
      ? await openStripeSource(config, { data, metadata, secrets, source })
      : undefined;
    try {
      return new DiskStripes(config, metadata, origin);
    } catch (error) {
      await origin?.release();
      throw error;
    }
  }

  private constructor(
    config: DeviceConfig,
    metadata: DiskMetadata,
    origin: StripeOrigin | undefined,
  ) {
    const queues = config.tuning.numQueues;
    const { stripeSource } = config;
    this.#config = config;
    this.#metadata = metadata;
    this.#origin = origin;
    this.#stripeBytes = stripeBytes(metadata.metadata);
    this.#prefetch =
      origin === undefined
        ? new Float64Array(0)
        : openLists(stripeSource ?? {}, {
            stripeSectors: this.#stripeBytes / SECTOR_BYTES,
            stripeCount: metadata.stripeCount,
          });
    this.#buffers = fetchBuffers(this.#stripeBytes);
    this.#control = StripeControl.create(origin === undefined ? "none" : "open");
    const buffers = this.#buffers.count;
    this.#control.limit = stripeSource?.backgroundBytesPerSecond ?? Number.POSITIVE_INFINITY;
    this.#state = StripeState.create(metadata.metadata.flags, {
      queues,
      buffers,
      stripesMax: metadata.stripesMax, // a byte each
      isChangeTracked: metadata.isChangeTracked,
    });
    this.#rate = new FetchRate();
    this.description = {
      state: this.#state.shared,
      stripeSectors: this.#stripeBytes / SECTOR_BYTES,
      isWrittenTracked: config.device.trackWritten,
      isChangeTracked: metadata.isChangeTracked,
      isCopyOnRead: stripeSource?.type !== "raw" || stripeSource.copyOnRead,
      rings: Array.from(
        { length: queues },
        () => new SharedArrayBuffer(IntentRing.sharedBytes(INTENTS_A_QUEUE)),
      ),
      stripeWakeFd: createEvent(),
      image: origin?.image,
    };
    this.#rate.add(this.#state.counter("fetched"), performance.now());
  }

  /**
   * Starts what the stripe worker fetches from; before that worker.
   * @param onFailure a thread of the source failed, and stripes may never come
   */
  startSource(onFailure: (message: string) => void): void {
    this.#origin?.start(this.#buffers.count, onFailure);
  }

  /** What the stripe worker is started with, once the source was started. */
  workerData(options: {
    readonly disk: StripeWorkerData["disk"];
    readonly flush: SharedArrayBuffer;
    readonly queueWakeFds: readonly number[];
  }): StripeWorkerData {
    const { fd, sectors, cipherContext } = options.disk;
    const { flags } = this.#metadata.metadata;
    const { stripeSource, tuning } = this.#config;
    return {
      stripes: this.description,
      control: this.#control.shared,
      flags: flags.buffer as SharedArrayBuffer, // as DiskMetadata had it made
      disk: { fd, sectors, cipherContext },
      metadataFd: this.#metadata.file.fd,
      metadataPath: this.#metadata.file.path,
      source: this.#origin?.workerSource,
      buffers: this.#buffers,
      isAutofetch: stripeSource?.autofetch === true,
      prefetch: this.#prefetch,
      recordPath: stripeSource?.record,
      aheadMax: this.description.isCopyOnRead ? Math.floor(AHEAD_BYTES / this.#stripeBytes) : 0,
      ioEngine: tuning.ioEngine,
      flush: options.flush,
      queueWakeFds: options.queueWakeFds,
    };
  }

  /** Stripes are still to be fetched. */
  get isFetching(): boolean {
    return this.#state.counter("unfetched") > 0;
  }

  get counts(): StripeCounts {
    const state = this.#state;
    return {
      fetched: state.counter("fetched"),
      source: state.counter("source"),
      total: state.stripeCount,
    };
  }

  get facts(): FetchFacts {
    const state = this.#state;
    const control = this.#control;
    const isAutofetch = this.#config.stripeSource?.autofetch === true;
    const unfetched = state.counter("unfetched");
    this.#rate.add(state.counter("fetched"), performance.now());
    const stripesPerSecond = this.#rate.perSecond;
    const sourceState = this.#sourceState; // before the retries that explain it
    return {
      stripeBytes: this.#stripeBytes,
      unfetched,
      written: state.counter("written"),
      inFlight: state.counter("inFlight"),
      demandFetches: state.counter("demandFetches"),
      backgroundFetches: state.counter("backgroundFetches"),
      aheadFetches: state.counter("aheadFetches"),
      zeroStripes: state.counter("zeroStripes"),
      retries: state.counter("retries") + (this.#origin?.retries ?? 0),
      sourceBytes: state.counter("sourceBytes"),
      failures: state.counter("failures"),
      failed: control.failedCount,
      failedStripes: control.failedStripes(),
      bytesPerSecond: Math.round(stripesPerSecond * this.#stripeBytes),
      etaSeconds: this.#rate.etaSeconds(unfetched, isAutofetch && !control.isPaused),
      isPaused: control.isPaused,
      limitBytesPerSecond: control.limit,
      sourceState,
    };
  }

  /** How a stripe stands for whoever waits for it; undefined for one that the disk does not have. */
  progress(stripe: number): StripeProgress | undefined {
    if (stripe >= this.#state.stripeCount) {
      return undefined;
    }
    const step = STEPS[phaseOf(this.#state.load(stripe))] ?? "metadata";
    return { step, failedTries: this.#control.failedTries(stripe) };
  }

  /** Of the background; demand goes on. */
  pause(): void {
    this.#wishes = { ...this.#wishes, isPaused: true };
    this.#control.askToPause();
    this.#wake();
  }

  resume(): void {
    this.#wishes = { ...this.#wishes, isPaused: undefined };
    this.#control.askToResume();
    this.#wake();
  }

  /** @param bytesPerSecond of the background; Infinity for no limit */
  limit(bytesPerSecond: number): void {
    this.#wishes = { ...this.#wishes, bytesPerSecond };
    this.#control.limit = bytesPerSecond;
    this.#wake();
  }

  retryFailed(): void {
    this.#control.askToRetry();
    this.#wake();
  }

  /** What commands changed since the start. */
  get wishes(): FetchWishes {
    return this.#wishes;
  }

  /** Once no queue has a request under way: nothing changes disk or metadata any more. False when that takes too long. */
  async hold(timeoutMs: number): Promise<boolean> {
    this.#holds += 1;
    const hold = { ...Promise.withResolvers<boolean>(), ticket: this.#holds };
    this.#hold = hold;
    this.#control.askToHold(hold.ticket);
    this.#wake();
    const timer = setTimeout(() => hold.resolve(false), timeoutMs);
    try {
      return await hold.promise;
    } finally {
      clearTimeout(timer);
    }
  }

  /** The stripe worker, once it is started, begins nothing before `release`. */
  startHeld(): void {
    this.#holds += 1;
    this.#control.askToHold(this.#holds);
  }

  /** The stripe worker tells that nothing is under way. */
  isHeld(ticket: number): void {
    if (this.#hold?.ticket === ticket) {
      this.#hold.resolve(true);
    }
  }

  /** Ends what `hold` or `startHeld` began. */
  letGo(): void {
    this.#hold = undefined;
    this.#control.askToHold(0);
    this.#wake();
  }

  /**
   * Gives the metadata file and the stripe worker the stripes of a larger disk. The queues know nothing of them yet.
   * @throws UbiError E_RESIZE, E_METADATA_SIZE, E_DISK_IO, E_CIPHER
   */
  async grow(sectors: number): Promise<void> {
    const stripes = this.#metadata.stripesOfGrown(sectors);
    this.#growth = { ...Promise.withResolvers<void>(), sectors };
    this.#control.askToGrow(sectors);
    this.#wake();
    const timer = setTimeout(() => this.#giveUpGrowth(), GROWTH_MS);
    timer.unref();
    try {
      await this.#growth.promise;
    } finally {
      clearTimeout(timer);
      this.#growth = undefined;
    }
    this.#state.stripeCount = stripes;
  }

  /** The stripe worker tells the end of what `grow` asked for, or of an earlier one that was given up. */
  growthEnded(sectors: number, failure: GrowthFailure | undefined): void {
    if (sectors !== this.#growth?.sectors) {
      return;
    }
    if (failure === undefined) {
      this.#growth?.resolve();
    } else {
      this.#growth?.reject(new UbiError(failure.code, failure.message));
    }
  }

  /** The stripe worker ends what it has begun, and itself. */
  askToStop(): void {
    this.#control.askToStop();
    this.#wake();
  }

  /** Once a second or so while stripes are fetched: the speed is that of the last seconds. */
  noteProgress(): void {
    this.#rate.add(this.#state.counter("fetched"), performance.now());
  }

  /** Whoever waits for the source gets an error, and whoever comes to: it does not hold up a stop. */
  askToGiveUp(): void {
    this.#control.askToGiveUp();
    this.#wake();
  }

  /** The stripe worker needs the source no more, and no queue reads from it. */
  async closeSource(): Promise<void> {
    if (this.#control.sourceState === "open") {
      this.#control.setSourceState("closed");
      await this.#origin?.retire();
    }
  }

  /** When all threads have ended their I/O. */
  async release(): Promise<void> {
    await this.#origin?.release();
    closeDescriptor(this.description.stripeWakeFd);
  }

  // --- internal ---

  get #sourceState(): FetchFacts["sourceState"] {
    const state = this.#control.sourceState;
    return state === "open" && this.#origin?.isTroubled === true ? "retrying" : state;
  }

  /** The last stripe is fetched from a source that does not answer, or the metadata file does not. */
  #giveUpGrowth(): void {
    this.#control.forgetGrowth();
    const why = "its last stripe is being fetched, or its metadata written, and that does not end";
    this.#growth?.reject(new UbiError("E_RESIZE", `the disk cannot grow now: ${why}; try again`));
  }

  #wake(): void {
    signalEvent(this.description.stripeWakeFd);
  }
}

// --- internal ---

function checkServable(config: DeviceConfig, data: DataFile, metadata: DiskMetadata): void {
  const size = stripeBytes(metadata.metadata);
  if (size % data.blockBytes !== 0) {
    throw new UbiError(
      "E_METADATA_SIZE",
      `the disk has blocks of ${data.blockBytes} bytes and stripes of ${size}; make metadata with larger stripes`,
    );
  }
  if (config.device.readOnly) {
    throw new UbiError(
      "E_CONFIG",
      `device.read_only: ${metadata.counts.unfetched} stripes are still to be fetched, ` +
        "which writes to the disk; serve it writable until all is fetched",
    );
  }
}

function fetchBuffers(bytesEach: number): FetchBuffers {
  const count = fetchBufferCount(bytesEach);
  const withoutBackground = (bytes: number) => {
    const wanted = Math.max(2, Math.floor(bytes / bytesEach)); // one is read while another one is written
    return count - Math.max(1, Math.min(Math.floor(count / 2), wanted));
  };
  return {
    address: mapAnonymous(count * bytesEach),
    count,
    bytesEach,
    reserved: withoutBackground(BACKGROUND_BYTES),
    reservedWhenAsked: withoutBackground(BACKGROUND_ASKED_BYTES),
  };
}
