/** Commands that act on a served disk as a whole: they end it, or make it larger. */
import type { GrowthOutcome } from "../device/disk-growth.ts";
import type { RpcAnswer } from "./answer-lines.ts";

/** What the commands need of whoever serves the disk. */
export interface DiskControl {
  /** Asks for a clean stop, as SIGTERM does, and returns before it. */
  stop(): void;
  /** Grows to the size that the data file has. */
  resize(): Promise<GrowthOutcome>;
}

const DISK_COMMANDS = ["resize", "stop"] as const;

type DiskCommand = (typeof DISK_COMMANDS)[number];

export function isDiskCommand(command: string): command is DiskCommand {
  return DISK_COMMANDS.some((name) => name === command);
}

/** @throws UbiError of the growth */
export function commandDisk(
  control: DiskControl,
  command: DiskCommand,
): RpcAnswer | Promise<RpcAnswer> {
  switch (command) {
    case "resize":
      return resize(control);
    case "stop":
      control.stop();
      return { stop: { stopping: true } };
  }
}

// --- internal ---

async function resize(control: DiskControl): Promise<RpcAnswer> {
  const { bytes, bytesBefore, guest } = await control.resize();
  return { resize: { bytes, bytes_before: bytesBefore, guest } };
}
