/** For commands that hold keys. */
import { errnoText } from "../errors.ts";
import { hardenProcess } from "../ffi/process.ts";
import { log } from "../log.ts";

/** No core dumps and no tracing by the same user; where that cannot be had, a warning. */
export function hardenOrWarn(): void {
  const hardened = hardenProcess();
  if (hardened < 0) {
    log.warn("cannot harden the process", { cause: errnoText(hardened) });
  }
}
