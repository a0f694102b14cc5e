/** Commands that act on a served disk as a whole: they end it, or make it larger. */
import type { GrowthOutcome } from "../device/disk-growth.ts";
import { UbiError } from "../errors.ts";
import type { RpcAnswer } from "./answer-lines.ts";

/** What the commands need of whoever serves the disk. */
export interface DiskControl {
  /** Asks for a clean stop, as SIGTERM does, and returns before it. */
  stop(): void;
  /** Grows to the size that the data file has. */
  resize(): Promise<GrowthOutcome>;
  /**
   * Hands the disk over to the program that is installed by now. @throws UbiError E_UPGRADE
   * @param prepareSeconds for that to get ready; undefined for the usual time
   */
  upgrade(prepareSeconds: number | undefined): Promise<UpgradeAnswer>;
}

/** Keys in alphabetical order. */
export interface UpgradeAnswer {
  readonly pause_ms: number;
  readonly pid: number;
  readonly version: string;
}

const DISK_COMMANDS = ["resize", "stop", "upgrade"] as const;

type DiskCommand = (typeof DISK_COMMANDS)[number];

export function isDiskCommand(command: string): command is DiskCommand {
  return DISK_COMMANDS.some((name) => name === command);
}

/** @throws UbiError of the growth */
export function commandDisk(
  control: DiskControl,
  command: DiskCommand,
  members: Readonly<Record<string, unknown>>,
): RpcAnswer | Promise<RpcAnswer> {
  switch (command) {
    case "resize":
      return resize(control);
    case "stop":
      control.stop();
      return { stop: { stopping: true } };
    case "upgrade":
      return upgrade(control, members.timeout_seconds);
  }
}

// --- internal ---

async function upgrade(control: DiskControl, seconds: unknown): Promise<RpcAnswer> {
  if (seconds !== undefined && !isSeconds(seconds)) {
    const message = `invalid request: \`timeout_seconds\` must be a number of 1 to ${SECONDS_MAX}`;
    throw new UbiError("E_RPC_REQUEST", message);
  }
  return { upgrade: await control.upgrade(seconds) };
}

const SECONDS_MAX = 3600;

function isSeconds(value: unknown): value is number {
  return typeof value === "number" && value >= 1 && value <= SECONDS_MAX;
}

async function resize(control: DiskControl): Promise<RpcAnswer> {
  const { bytes, bytesBefore, guest } = await control.resize();
  return { resize: { bytes, bytes_before: bytesBefore, guest } };
}
