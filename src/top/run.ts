/** Runs the live view: samples in regular intervals, shown on a terminal or written one after another. */
import { UbiError } from "../errors.ts";
import { type DiskView, SOMEBODY_ELSE_REASONS, STUCK_AFTER_MS } from "./disk-watcher.ts";
import { DiskWatchers } from "./disk-watchers.ts";
import { jsonSample } from "./json-sample.ts";
import { LiveView } from "./live-view.ts";
import { wholePicture } from "./picture.ts";
import { parseSocketNames } from "./socket-paths.ts";
import { lineText } from "./styled-line.ts";
import { Terminal } from "./terminal.ts";
import { Ticks } from "./waiting.ts";

export interface TopSettings {
  /** Paths, lists with commas, patterns. */
  readonly sockets: readonly string[];
  readonly intervalSeconds: number;
  /** Samples to write; undefined for no end. */
  readonly count: number | undefined;
  /** `live` draws on the terminal, the others write to standard output. */
  readonly output: "live" | "text" | "json";
  readonly isColoured: boolean;
  /** Width of `text`. */
  readonly columns: number;
  /** Writes to standard output; false when nobody reads it any more. */
  readonly write: (text: string) => boolean;
}

/**
 * Runs until it has written `count` samples, or the user or a signal ends it.
 * @throws UbiError E_USAGE; E_TOP when `count` samples were taken and no backend ever answered
 */
export async function runTop(settings: TopSettings): Promise<void> {
  using disks = new DiskWatchers(parseSocketNames(settings.sockets));
  using end = new EndOfProgram();
  if (settings.output === "live") {
    await runLive(settings, disks, end);
  } else {
    await runWriting(settings, disks, end);
  }
}

// --- internal ---

const END_SIGNALS = ["SIGINT", "SIGTERM", "SIGHUP"] as const;

/** Tells when the program shall end, by a signal or by `now`. */
class EndOfProgram implements Disposable {
  readonly #controller = new AbortController();
  readonly now = () => this.#controller.abort();

  constructor() {
    for (const name of END_SIGNALS) {
      process.on(name, this.now);
    }
  }

  get signal(): AbortSignal {
    return this.#controller.signal;
  }

  get isReached(): boolean {
    return this.#controller.signal.aborted;
  }

  [Symbol.dispose](): void {
    for (const name of END_SIGNALS) {
      process.off(name, this.now);
    }
  }
}

async function runLive(
  { intervalSeconds, isColoured, write }: TopSettings,
  disks: DiskWatchers,
  end: EndOfProgram,
): Promise<void> {
  using terminal = new Terminal({
    write,
    onKey: (key) => view.press(key),
    onResize: () => view.redraw(),
    onEnd: end.now,
  });
  const view = new LiveView({
    intervalSeconds,
    isColoured,
    size: () => terminal.size,
    draw: (lines) => terminal.draw(lines),
    quit: end.now,
  });
  const ticks = new Ticks(intervalSeconds * 1000);
  const waitMs = Math.min(intervalSeconds * 1000, STUCK_AFTER_MS);
  while (!end.isReached) {
    await disks.read(waitMs, end.signal);
    const left = disks.leftOut;
    const note = left === 0 ? "" : `${left} sockets too many, not shown`;
    view.show({ disks: disks.views(), clock: timeOfDay(), note });
    await ticks.next(end.signal);
  }
}

/** The first readings are what the first sample is compared with. */
async function runWriting(
  settings: TopSettings,
  disks: DiskWatchers,
  end: EndOfProgram,
): Promise<void> {
  const { intervalSeconds, count = Number.POSITIVE_INFINITY, write } = settings;
  const ticks = new Ticks(intervalSeconds * 1000);
  await disks.read(STUCK_AFTER_MS, end.signal);
  const waitMs = Math.min(intervalSeconds * 1000, STUCK_AFTER_MS);
  for (let written = 0; written < count; written++) {
    await ticks.next(end.signal);
    if (end.isReached) {
      return;
    }
    await disks.read(waitMs, end.signal);
    const text = settings.output === "json" ? jsonText(disks) : plainText(settings, disks);
    if (end.isReached || !write(text)) {
      return;
    }
  }
  if (!disks.hasAnswered) {
    const views = disks.views();
    const reasons = views.map(({ socket, reason }) => `${socket}: ${reason ?? "no answer"}`);
    const shown = reasons.slice(0, 3).join("; ") || "no socket was found";
    const isSomebodyElse = ({ reason }: DiskView) => SOMEBODY_ELSE_REASONS.includes(reason ?? "");
    const isAdviceOfUse = views.length === 0 || !views.every(isSomebodyElse);
    const hint = isAdviceOfUse ? "; is rpc_socket set, and does it run?" : "";
    throw new UbiError("E_TOP", `no backend answered: ${shown}${hint}`);
  }
}

function jsonText(disks: DiskWatchers): string {
  return jsonSample(disks.views(), new Date().toISOString());
}

function plainText(settings: TopSettings, disks: DiskWatchers): string {
  const { columns, isColoured, intervalSeconds } = settings;
  const note = disks.leftOut === 0 ? "" : `${disks.leftOut} sockets too many, not shown`;
  const lines = wholePicture(
    { disks: disks.views(), intervalSeconds, clock: timeOfDay(), sort: "queue", note },
    columns,
  );
  return `${lines.map((line) => lineText(line, columns, { isColoured })).join("\n")}\n\n`;
}

function timeOfDay(): string {
  return new Date().toTimeString().slice(0, 8);
}
