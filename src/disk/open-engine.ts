/** Chooses the I/O engine: io_uring as configured, the synchronous one where the kernel refuses it. */
import { UbiError } from "../errors.ts";
import { log } from "../log.ts";
import type { EngineFile, IoEngine } from "./io-engine.ts";
import { SyncEngine } from "./sync-engine.ts";
import { UringEngine } from "./uring-engine.ts";

/** @param requestsMax requests in flight at once */
export function openEngine(
  wanted: "io_uring" | "sync",
  requestsMax: number,
  file: EngineFile,
): IoEngine {
  if (wanted === "sync") {
    return new SyncEngine(requestsMax, file);
  }
  try {
    return new UringEngine(requestsMax, file);
  } catch (error) {
    if (!(error instanceof UbiError && error.code === "E_URING")) {
      throw error;
    }
    log.warn("falling back to the synchronous engine", { cause: error.message });
    return new SyncEngine(requestsMax, file);
  }
}
