/** What the command `device` answers: what the disk is, and how it is served. */
import type { RpcAnswer } from "./answer-lines.ts";

export interface DeviceFacts {
  readonly deviceId: string;
  readonly frontEnd: "vhost" | "ublk";
  /** `none` for a plain disk. */
  readonly cipherProvider: string;
  readonly queues: number;
  readonly queueSize: number;
  readonly isReadOnly: boolean;
  readonly capacityBytes: () => number;
  /** The front end of vhost-user, now. */
  readonly connected?: { readonly isConnected: boolean; readonly isTracking: boolean } | undefined;
}

/** Undefined for any other command. Keys in alphabetical order. */
export function deviceAnswer(facts: DeviceFacts, command: string): RpcAnswer | undefined {
  if (command !== "device") {
    return undefined;
  }
  const { connected } = facts;
  return {
    device: {
      capacity_bytes: facts.capacityBytes(),
      cipher: facts.cipherProvider,
      device_id: facts.deviceId,
      front_end: facts.frontEnd,
      ...(connected && {
        front_end_connected: connected.isConnected,
        inflight_tracking: connected.isTracking,
      }),
      queue_size: facts.queueSize,
      queues: facts.queues,
      read_only: facts.isReadOnly,
    },
  };
}
