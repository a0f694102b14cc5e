/**
 * A device is stopped by a process of its own, for the reason that `run-apart.ts` gives: the driver waits for requests
 * under way, and a server that was killed while it waits for the driver would never be gone.
 *
 *   server -> this program, once more, with STOP_VARIABLE -> STOP_DEV -> exit code
 */
import { errorText, UbiError } from "../errors.ts";
import { log } from "../log.ts";
import { STOP_MS, type UblkControl } from "./control.ts";

const STOP_VARIABLE = "UBIBLK_UBLK_STOP";
/** For the other process to come up and to end. */
const START_MS = 30_000;

/**
 * The block device goes when its requests have ended; then the queues' fetches end.
 * @param control takes the risk where no process can be had
 * @throws UbiError E_UBLK_DEVICE
 */
export async function stopApart(control: UblkControl, id: number): Promise<void> {
  const child = spawn(id);
  if (child === undefined) {
    await control.stop(id);
    return;
  }
  child.unref();
  const timer = setTimeout(() => child.kill("SIGKILL"), STOP_MS + START_MS);
  const complaint = (await child.stderr.text()).trim().replace(/^ubiblk: error \w+: /, "");
  clearTimeout(timer);
  if ((await child.exited) !== 0) {
    throw new UbiError("E_UBLK_DEVICE", complaint || `cannot stop ublk device ${id}`);
  }
}

/**
 * The device that this process was started to stop; undefined: it was started for something else.
 * @throws UbiError E_USAGE
 */
export function deviceToStop(): number | undefined {
  const text = process.env[STOP_VARIABLE];
  if (text === undefined) {
    return undefined;
  }
  if (!/^\d{1,7}$/.test(text)) {
    throw new UbiError("E_USAGE", `${STOP_VARIABLE} is set, and no device`);
  }
  return Number(text);
}

// --- internal ---

function spawn(id: number): Bun.Subprocess<"ignore", "ignore", "pipe"> | undefined {
  try {
    return Bun.spawn(["/proc/self/exe", "ublk"], {
      argv0: "ubiblk",
      stdio: ["ignore", "ignore", "pipe"],
      detached: true,
      env: { [STOP_VARIABLE]: String(id) },
    });
  } catch (error) {
    log.warn("the device is stopped without a process of its own: do not kill this one", {
      cause: errorText(error),
    });
    return undefined;
  }
}
