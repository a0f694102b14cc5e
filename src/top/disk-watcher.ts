/**
 * Follows one backend: connects, reads, connects again when it was restarted. A reading runs beside
 * everything else: a socket that does not answer holds up nobody and is shown as stuck.
 *
 *   connecting -> live <-> stuck (asked, no answer for STUCK_AFTER_MS)
 *        |         ^ |
 *        +-> away <+-+ (nobody there, or no RPC socket)
 */
import { statSync } from "node:fs";
import { UbiError } from "../errors.ts";
import { CLOSED_REASON, type Exchange, RpcConnection, TIMEOUT_REASON } from "./connection.ts";
import { FetchProgress, type FetchSample } from "./fetch-progress.ts";
import {
  isOfStripeServer,
  type LimitReading,
  type Reading,
  readAnswers,
  versionOf,
} from "./reading.ts";
import { isCountedAnew, type LoadSample, queueSamples } from "./sample.ts";

/** An answer takes well below a millisecond; after this the user is told. */
export const STUCK_AFTER_MS = 1_000;
/** After this a connection is given up and a new one is tried. */
const ANSWER_TIMEOUT_MS = 5_000;
const CONNECT_TIMEOUT_MS = 5_000;
/** How long a socket that seems to be of another kind is let alone. */
const LET_ALONE_MS = 60_000;
const OTHER_SOCKET_REASON = `${CLOSED_REASON}; is this its vhost_socket? rpc_socket is wanted`;
const STRIPE_SERVER_REASON =
  "a stripe server, which has no queues: ask its socket for stats and clients";
/** Why a disk is away at whose socket somebody else answers. */
export const SOMEBODY_ELSE_REASONS: readonly string[] = [OTHER_SOCKET_REASON, STRIPE_SERVER_REASON];

export type DiskState = "connecting" | "live" | "stuck" | "away";

/** What is known of a disk now. */
export interface DiskView {
  readonly socket: string;
  readonly state: DiskState;
  /** Why the disk is not live. */
  readonly reason: string | undefined;
  /** Since when it is stuck or away. */
  readonly silentSeconds: number | undefined;
  readonly version: string | undefined;
  readonly restarts: number;
  readonly restartedSecondsAgo: number | undefined;
  /** Since the last reading. */
  readonly ageSeconds: number | undefined;
  /** Between the last two readings. */
  readonly intervalSeconds: number | undefined;
  /** Of the last reading, however old. */
  readonly queues: readonly LoadSample[];
  readonly fetch: FetchSample | undefined;
  readonly limits: LimitReading;
}

interface LastReading {
  readonly reading: Reading;
  readonly atMs: number;
}

export class DiskWatcher implements Disposable {
  readonly socket: string;
  readonly #fetchProgress = new FetchProgress();
  #connection: RpcConnection | undefined;
  #identity: string | undefined;
  /** The socket of that identity is not connected to before. */
  #letAloneUntilMs = Number.NEGATIVE_INFINITY;
  /** Commands that this backend does not know; undefined until all were tried. */
  #refused: ReadonlySet<string> | undefined;
  #underWay: Promise<void> | undefined;
  #last: LastReading | undefined;
  #askedMs: number | undefined;
  #silentSinceMs: number | undefined;
  #reason: string | undefined;
  #hasAnswered = false;
  #version: string | undefined;
  #restarts = 0;
  #restartedMs: number | undefined;
  #intervalSeconds: number | undefined;
  #queues: readonly LoadSample[] = [];
  #fetch: FetchSample | undefined;

  constructor(socket: string) {
    this.socket = socket;
  }

  /** Whether the backend ever answered. */
  get hasAnswered(): boolean {
    return this.#hasAnswered;
  }

  /** Begins a reading unless one is under way; resolves when that has ended, in 10 s at the latest. */
  read(): Promise<void> {
    this.#underWay ??= this.#read().finally(() => {
      this.#underWay = undefined;
      this.#askedMs = undefined;
    });
    return this.#underWay;
  }

  view(nowMs = performance.now()): DiskView {
    const state = this.#state(nowMs);
    const isSilent = state === "stuck" || state === "away";
    const sinceMs = this.#silentSinceMs ?? this.#askedMs;
    return {
      socket: this.socket,
      state,
      reason: isSilent ? (this.#reason ?? TIMEOUT_REASON) : undefined,
      silentSeconds: isSilent && sinceMs !== undefined ? (nowMs - sinceMs) / 1000 : undefined,
      version: this.#version,
      restarts: this.#restarts,
      restartedSecondsAgo:
        this.#restartedMs === undefined ? undefined : (nowMs - this.#restartedMs) / 1000,
      ageSeconds: this.#last === undefined ? undefined : (nowMs - this.#last.atMs) / 1000,
      intervalSeconds: isSilent ? undefined : this.#intervalSeconds,
      queues: isSilent ? this.#queues.map(withoutRates) : this.#queues,
      fetch: isSilent ? withoutSpeed(this.#fetch) : this.#fetch,
      limits: this.#last?.reading.limits ?? {},
    };
  }

  [Symbol.dispose](): void {
    this.#connection?.[Symbol.dispose]();
  }

  // --- internal ---

  #state(nowMs: number): DiskState {
    const isLate = this.#askedMs !== undefined && nowMs - this.#askedMs >= STUCK_AFTER_MS;
    if (isLate || this.#reason === TIMEOUT_REASON) {
      return "stuck";
    }
    if (this.#silentSinceMs !== undefined) {
      return "away";
    }
    return this.#hasAnswered ? "live" : "connecting";
  }

  async #read(): Promise<void> {
    const askedMs = performance.now();
    this.#askedMs = askedMs;
    try {
      const connection = await this.#connect();
      const exchange = await connection.ask(this.#commands(), ANSWER_TIMEOUT_MS);
      this.#take(exchange);
      this.#silentSinceMs = undefined;
      this.#reason = undefined;
    } catch (error) {
      if (!(error instanceof UbiError)) {
        throw error;
      }
      this.#drop();
      this.#silentSinceMs ??= askedMs;
      this.#reason = this.#reasonOf(error);
    }
  }

  /** A socket that never answered and hangs up at once is let alone for a while: what listens there may warn of it. */
  #reasonOf(error: UbiError): string {
    if (this.#hasAnswered || error.message !== CLOSED_REASON) {
      return error.message;
    }
    this.#letAloneUntilMs = performance.now() + LET_ALONE_MS;
    return OTHER_SOCKET_REASON;
  }

  /** The open connection, or a new one. What was learned from another process is forgotten. */
  async #connect(): Promise<RpcConnection> {
    if (this.#connection !== undefined && !this.#connection.isClosed) {
      return this.#connection;
    }
    this.#drop();
    const identity = identityOf(this.socket);
    if (identity === this.#identity && performance.now() < this.#letAloneUntilMs) {
      throw new UbiError("E_TOP", OTHER_SOCKET_REASON);
    }
    this.#connection = await RpcConnection.open(this.socket, CONNECT_TIMEOUT_MS);
    this.#refused = undefined;
    if (identity === undefined || identity !== this.#identity) {
      if (this.#hasAnswered) {
        this.#startAnew();
      }
      this.#identity = identity;
    }
    return this.#connection;
  }

  #drop(): void {
    this.#connection?.[Symbol.dispose]();
    this.#connection = undefined;
  }

  /** Everything on a new connection; then what tells most, without what is told twice. */
  #commands(): readonly string[] {
    const refused = this.#refused;
    if (refused === undefined) {
      return ALL_COMMANDS;
    }
    const load = refused.has("statistics") ? ["stats", "queues"] : ["statistics", "histograms"];
    return ["status", "limits", ...load].filter((command) => !refused.has(command));
  }

  #take({ answers, refused }: Exchange): void {
    const nowMs = performance.now();
    const reading = readAnswers(answers);
    if (reading === undefined) {
      throw new UbiError("E_TOP", whatElse(answers));
    }
    this.#version = versionOf(answers) ?? this.#version;
    this.#refused ??= new Set(refused);
    if (this.#last !== undefined && isCountedAnew(this.#last.reading, reading)) {
      this.#startAnew();
    }
    const seconds = this.#last === undefined ? 0 : (nowMs - this.#last.atMs) / 1000;
    this.#queues = queueSamples(this.#last?.reading, reading, seconds);
    this.#intervalSeconds = seconds > 0 ? seconds : undefined;
    this.#fetch =
      reading.stripes === undefined ? undefined : this.#fetchProgress.add(reading.stripes, nowMs);
    this.#last = { reading, atMs: nowMs };
    this.#hasAnswered = true;
  }

  #startAnew(): void {
    this.#restarts += 1;
    this.#restartedMs = performance.now();
    this.#last = undefined;
    this.#version = undefined;
    this.#fetchProgress.reset();
  }
}

// --- internal ---

const ALL_COMMANDS = ["version", "status", "limits", "stats", "queues", "statistics", "histograms"];

/** Of a socket where no disk answers. */
function whatElse(answers: Exchange["answers"]): string {
  return isOfStripeServer(answers) ? STRIPE_SERVER_REASON : "the backend tells no statistics";
}

/** Rates of a disk that does not answer would be taken for those of now. */
function withoutRates(sample: LoadSample): LoadSample {
  const histograms = { read: undefined, write: undefined, flush: undefined };
  const unknown = { rates: undefined, inFlight: undefined, oldestInFlightNs: undefined };
  return { ...sample, ...unknown, stopped: undefined, histograms };
}

function withoutSpeed(fetch: FetchSample | undefined): FetchSample | undefined {
  const unknown = { stripesPerSecond: undefined, bytesPerSecond: undefined, etaSeconds: undefined };
  return fetch === undefined ? undefined : { ...fetch, ...unknown };
}

/** Tells one socket file from the next at the same path; undefined when it cannot be looked at. */
function identityOf(path: string): string | undefined {
  try {
    const { dev, ino, birthtimeNs } = statSync(path, { bigint: true });
    return `${dev}:${ino}:${birthtimeNs}`;
  } catch (error) {
    if (!(error instanceof Error && "code" in error)) {
      throw error;
    }
    return undefined; // connecting will tell why
  }
}
