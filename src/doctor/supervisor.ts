/**
 * The half that reports: it starts the half that examines (probe.ts) and waits for each line of it a bounded time.
 * A subject that stays silent, or takes the process with it, fails; another process goes on behind it. One that
 * cannot be ended, because the kernel holds it, is left to itself: it has no descriptor that anybody waits for.
 */
import type { SubjectFinding } from "./finding.ts";
import type { ProbeMessage } from "./probe.ts";
import { SUBJECTS } from "./subjects.ts";

export interface SupervisorOptions {
  /** The command that examines from a subject on. */
  readonly command: (from: number) => readonly string[];
  /** For each line. */
  readonly limitMs: number;
  readonly signal: AbortSignal;
}

/** @throws the signal's reason */
export async function* supervise(options: SupervisorOptions): AsyncGenerator<SubjectFinding> {
  let from = 0;
  while (from < SUBJECTS.length) {
    const probe = new ProbeProcess(options.command(from));
    try {
      const hung = yield* report(probe, options);
      if (hung === undefined || SUBJECTS[hung]?.isVital === true) {
        return;
      }
      from = hung + 1;
    } finally {
      probe.end();
    }
  }
}

// --- internal ---

/** Returns the number of the subject that did not come to its end. */
async function* report(
  probe: ProbeProcess,
  { limitMs, signal }: SupervisorOptions,
): AsyncGenerator<SubjectFinding, number | undefined> {
  let number = -1;
  for (;;) {
    const message = await probe.next(limitMs, signal);
    const subject = SUBJECTS[number]?.name ?? "program";
    if (message === "silent" || message === "ended") {
      const seconds = limitMs / 1000;
      yield {
        subject,
        check: "all",
        verdict: "fail",
        found:
          message === "silent" ? `no answer within ${seconds} s` : `the check ${probe.endText}`,
        advice:
          message === "silent"
            ? "look for a mount or a service that does not answer; --timeout gives it more time"
            : "please report it",
      };
      return number < 0 ? SUBJECTS.length : number;
    }
    if (message.kind === "done") {
      return undefined;
    }
    if (message.kind === "begin") {
      number = message.subject;
    } else {
      yield { subject, ...message.finding };
    }
  }
}

class ProbeProcess {
  readonly #child: Bun.Subprocess<"inherit", "pipe", "ignore">;
  readonly #chunks: AsyncIterator<Uint8Array>;
  readonly #decoder = new TextDecoder();
  /** A reading that the wait for it has not outlived. */
  #pending: Promise<IteratorResult<Uint8Array>> | undefined;
  #text = "";

  constructor(command: readonly string[]) {
    this.#child = Bun.spawn([...command], {
      argv0: "ubiblk",
      stdin: "inherit",
      stdout: "pipe",
      stderr: "ignore",
      env: process.env,
    });
    this.#chunks = this.#child.stdout[Symbol.asyncIterator]();
  }

  /** How it ended by itself. */
  get endText(): string {
    const { signalCode, exitCode } = this.#child;
    return signalCode === null ? `ended with code ${exitCode}` : `was ended by ${signalCode}`;
  }

  /** The next message; "silent" when none comes in time, "ended" when none will come. */
  async next(limitMs: number, signal: AbortSignal): Promise<ProbeMessage | "silent" | "ended"> {
    const late = Promise.withResolvers<"silent">();
    const timer = setTimeout(() => late.resolve("silent"), limitMs);
    const abort = () => late.reject(signal.reason);
    signal.addEventListener("abort", abort, { once: true });
    try {
      signal.throwIfAborted();
      return await Promise.race([this.#read(), late.promise]);
    } finally {
      clearTimeout(timer);
      signal.removeEventListener("abort", abort);
    }
  }

  end(): void {
    this.#child.kill("SIGKILL");
    this.#child.unref();
  }

  // --- internal ---

  async #read(): Promise<ProbeMessage | "ended"> {
    for (;;) {
      const end = this.#text.indexOf("\n");
      if (end >= 0) {
        const line = this.#text.slice(0, end);
        this.#text = this.#text.slice(end + 1);
        const message: ProbeMessage = JSON.parse(line); // of our own program
        return message;
      }
      this.#pending ??= this.#chunks.next();
      const { done, value } = await this.#pending;
      this.#pending = undefined;
      if (done === true) {
        await this.#child.exited;
        return "ended";
      }
      this.#text += this.#decoder.decode(value, { stream: true });
    }
  }
}
