/**
 * `RUST_LOG`, which operators of programs written in Rust have in their units and scripts: a list of
 * `LEVEL`, `TARGET` and `TARGET=LEVEL`, with a `/FILTER` at its end that is passed over.
 */
import type { LogThreshold } from "./log-level.ts";

/**
 * What the variable says of this program. Where it names parts of it, such as `ubiblk::vhost=debug`, the most
 * talkative of them counts, since the log here has one level. Undefined when it speaks of other programs only.
 */
export function thresholdFromRustLog(value: string): LogThreshold | undefined {
  const [list = ""] = value.split("/");
  let ours = -1;
  let all: LogThreshold | undefined;
  for (const directive of list.split(",")) {
    const [target = "", level] = directive.split("=").map((part) => part.trim());
    const threshold = THRESHOLDS[(level ?? target).toLowerCase()];
    if (level === undefined && threshold !== undefined) {
      all = threshold;
    } else if (isOurs(target)) {
      // A target without a level, or with an empty one, asks for everything.
      ours = Math.max(ours, ORDER.indexOf(threshold ?? "debug"));
    }
  }
  return ORDER[ours] ?? all;
}

// --- internal ---

const ORDER: readonly LogThreshold[] = ["off", "error", "warn", "info", "debug"];

/** Of no prototype: any word may stand in the variable. */
const THRESHOLDS: Readonly<Record<string, LogThreshold | undefined>> = Object.assign(
  Object.create(null),
  { off: "off", error: "error", warn: "warn", info: "info", debug: "debug", trace: "debug" },
);

/** Of the programs whose names this one answers to, as such programs write them. */
const PROGRAMS: readonly string[] = [
  "ubiblk",
  "vhost_backend",
  "ublk_backend",
  "init_metadata",
  "dump_metadata",
  "xts",
  "archive",
  "export_archive",
  "remote_stripe_server",
  "remote_stripe_shell",
];

function isOurs(target: string): boolean {
  const [program = ""] = target.split("::");
  return PROGRAMS.includes(program);
}
