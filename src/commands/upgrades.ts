/**
 * Upgrades of the program under a disk that is served, asked for by SIGUSR2 or by RPC, one at a time. The code for it is
 * loaded when one is asked for.
 */
import { errorText, UbiError } from "../errors.ts";
import { LogLimiter, log, logLevel } from "../log.ts";
import type { UpgradeAnswer } from "../rpc/disk-commands.ts";
import type { StartedProgram } from "../upgrade/program.ts";
import type { ServedDisk } from "../upgrade/upgrade.ts";

/** For the new process to get ready: it may have a stripe source to open. */
const PREPARE_SECONDS = 60;
/** For the end of a start. */
const OPEN_MS = 1_000;
const LOOK_MS = 5;
/** For the answer of an RPC client to get into its socket. */
const ANSWER_MS = 50;

export type Upgradable = Omit<ServedDisk, "program" | "logLevelAtStart">;

export class Upgrades {
  readonly #program: StartedProgram;
  readonly #logLevelAtStart = logLevel();
  readonly #left = Promise.withResolvers<void>();
  readonly #stop = new AbortController();
  /** Whoever may ask may ask without end. */
  readonly #failures = new LogLimiter();
  #disk: Upgradable | undefined;
  #underWay: Promise<UpgradeAnswer> | undefined;
  #isGone = false;

  /** Listens to SIGUSR2 from here on. */
  constructor(program: StartedProgram) {
    this.#program = program;
    this.#left.promise.catch(() => {}); // whoever awaits `left` sees it
    process.on("SIGUSR2", () => {
      this.run().catch(() => {}); // the log has it
    });
  }

  /** Resolves when another process serves the disk; rejects when it got it and failed. */
  get left(): Promise<void> {
    return this.#left.promise;
  }

  /** The disk is served: upgrades may begin. */
  open(disk: Upgradable): void {
    this.#disk = disk;
  }

  /** @throws UbiError E_UPGRADE when the disk is still served here */
  async run(prepareSeconds = PREPARE_SECONDS): Promise<UpgradeAnswer> {
    try {
      const disk = await this.#openDisk();
      if (this.#isGone) {
        throw new UbiError("E_UPGRADE", "another process serves the disk by now: ask that one");
      }
      if (this.#underWay !== undefined) {
        throw new UbiError("E_UPGRADE", "an upgrade is under way already");
      }
      this.#underWay = this.#handOver(disk, prepareSeconds * 1000);
      return await this.#underWay;
    } catch (error) {
      const code = error instanceof UbiError ? error.code : "E_UPGRADE";
      const outcome = this.#isGone ? "the disk was given away" : "the disk is served as before";
      this.#failures.error(`upgrade failed: ${outcome}`, { code, why: errorText(error) });
      throw error;
    }
  }

  /** The disk is to be stopped: ends an upgrade that is under way. True when the disk is another process's already. */
  async close(): Promise<boolean> {
    this.#disk = undefined;
    this.#stop.abort(new UbiError("E_UPGRADE", "the disk is being stopped"));
    await this.#underWay?.catch(() => {}); // told by `run`
    return this.#isGone;
  }

  // --- internal ---

  /** A disk that is served already, but for the last steps of its start, is waited for. */
  async #openDisk(): Promise<Upgradable> {
    for (let waitedMs = 0; this.#disk === undefined && waitedMs < OPEN_MS; waitedMs += LOOK_MS) {
      await Bun.sleep(LOOK_MS);
    }
    if (this.#disk === undefined) {
      const message = "the disk is not served yet, or no more; ask again when it is";
      throw new UbiError("E_UPGRADE", message);
    }
    return this.#disk;
  }

  async #handOver(disk: Upgradable, prepareMs: number): Promise<UpgradeAnswer> {
    const { handOverDisk } = await import("../upgrade/upgrade.ts");
    const parts = { ...disk, program: this.#program, logLevelAtStart: this.#logLevelAtStart };
    const onGone = () => {
      this.#isGone = true;
    };
    try {
      const signal = this.#stop.signal;
      const { pid, version, pauseMs } = await handOverDisk(parts, { prepareMs, signal, onGone });
      log.info("upgraded: another process serves the disk", { pid, version, pauseMs });
      setTimeout(() => this.#left.resolve(), ANSWER_MS);
      return { pause_ms: pauseMs, pid, version };
    } catch (error) {
      if (this.#isGone) {
        this.#left.reject(error);
      }
      throw error;
    } finally {
      this.#underWay = undefined;
    }
  }
}

/** SIGUSR2 does nothing to a program that hands nothing over. */
export function refuseUpgradeSignal(): void {
  process.on("SIGUSR2", () =>
    log.warn("SIGUSR2 is for ubiblk vhost alone: nothing is upgraded", {}),
  );
}
