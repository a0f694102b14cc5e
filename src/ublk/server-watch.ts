/** Whether requests under way still have a server: drivers before Linux 6.16 are slow to see that it died. */
import { errorText, UbiError } from "../errors.ts";
import { log } from "../log.ts";
import { runApart } from "./run-apart.ts";

const LOOK_MS = 1000;

/**
 * Lets the driver look every second; nothing else comes of it. By itself it looks after 30 s when a server died that
 * had all requests of a queue in its hands. The kernel takes the value when no request is under way, and meanwhile lets
 * nobody read it; a server before this one may have set it.
 */
export async function watchServer(id: number): Promise<void> {
  const path = `/sys/block/ublkb${id}/queue/io_timeout`;
  try {
    const line = `read -r now <"$0"; [ "$now" = ${LOOK_MS} ] || echo ${LOOK_MS} >"$0"`;
    if (!(await runApart(line, path))) {
      throw new UbiError("E_UBLK_DEVICE", "there is no /bin/sh");
    }
  } catch (error) {
    log.warn("requests under way may wait 30 s when this process dies", {
      cause: `cannot set ${path}: ${errorText(error)}`,
    });
  }
}
