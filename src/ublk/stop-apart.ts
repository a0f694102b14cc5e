/**
 * A device is stopped by a process of its own, for the reason that `run-apart.ts` gives: the driver waits for requests
 * under way, and a server that was killed while it waits for the driver would never be gone.
 *
 *   server -> this program once more, with STOP_VARIABLE -> STOP_DEV -> exit code
 */
import { errorText, UbiError } from "../errors.ts";
import { log } from "../log.ts";
import { reasonOf, STOP_MS, type UblkControl } from "./control.ts";
import { TIMED_OUT } from "./control-channel.ts";
import { expectServer } from "./device-list.ts";
import { within } from "./within.ts";

/** `ID:PID`, the device and its server. */
const STOP_VARIABLE = "UBIBLK_UBLK_STOP";
/** The other process has to come up as well. */
const LIMIT_MS = STOP_MS + 15_000;

export interface StopOrder {
  readonly id: number;
  readonly serverPid: number;
}

/**
 * The block device goes when its requests have ended; then the queues' fetches end.
 * @param control takes the risk where no process can be had
 * @throws UbiError E_UBLK_DEVICE
 */
export async function stopApart(control: UblkControl, id: number): Promise<void> {
  for (let triesLeft = 1; ; triesLeft--) {
    const child = spawn(id);
    if (child === undefined) {
      await control.stop(id);
      return;
    }
    const complaint = await complaintOf(child, id);
    if (child.exitCode === 0) {
      return;
    }
    // A signal for the whole group may have come before it could close its ears.
    if (child.signalCode === null || triesLeft === 0) {
      const why = complaint || `the process for it ended with ${child.signalCode}`;
      throw new UbiError("E_UBLK_DEVICE", `cannot stop ublk device ${id}: ${why}`);
    }
  }
}

/**
 * What this process was started to stop; undefined: it was started for something else.
 * @throws UbiError E_USAGE when a server did not start it, or is gone
 */
export function stopOrder(): StopOrder | undefined {
  const text = process.env[STOP_VARIABLE];
  if (text === undefined) {
    return undefined;
  }
  const [, id, pid] = /^(\d{1,7}):(\d+)$/.exec(text) ?? [];
  if (id === undefined || Number(pid) !== process.ppid) {
    throw new UbiError("E_USAGE", `${STOP_VARIABLE} is set, which only a server may do`);
  }
  return { id: Number(id), serverPid: process.ppid };
}

/**
 * Carries it out. A device that another process serves by now is left alone.
 * @throws UbiError E_UBLK_DEVICE
 */
export async function carryOut(control: UblkControl, order: StopOrder): Promise<void> {
  await expectServer(control, order.id, order.serverPid);
  await control.stop(order.id);
}

// --- internal ---

type Child = Bun.Subprocess<"ignore", "ignore", "pipe">;

/** Why it failed, when it has ended; one that waits in the kernel cannot be ended, nor can it close its files. */
async function complaintOf(child: Child, id: number): Promise<string> {
  const late = `cannot stop ublk device ${id}: ${reasonOf(TIMED_OUT)}`;
  try {
    const text = await within(child.stderr.text(), LIMIT_MS, late);
    await within(child.exited, LIMIT_MS, late);
    return text.trim().replace(/^ubiblk: error \w+: (cannot stop ublk device \d+: )?/, "");
  } finally {
    child.kill("SIGKILL");
    child.unref();
  }
}

function spawn(id: number): Child | undefined {
  try {
    return Bun.spawn(["/proc/self/exe", "ublk"], {
      argv0: "ubiblk",
      cwd: "/",
      stdio: ["ignore", "ignore", "pipe"],
      detached: true,
      env: { [STOP_VARIABLE]: `${id}:${process.pid}` },
    });
  } catch (error) {
    log.warn("the device is stopped without a process of its own: do not end this one by force", {
      cause: errorText(error),
    });
    return undefined;
  }
}
