/**
 * An archive as a source: its manifest is opened and verified once, in the main thread; workers get, check and
 * decode the objects, each with a store of its own (archive-worker.ts).
 */
import type { StoreSettings } from "../archive/open-store.ts";
import type { ResolvedSecrets } from "../config/resolve-secrets.ts";
import { AssertionError } from "../errors.ts";
import type { OpenedSource } from "./opened-source.ts";

/**
 * @param secrets those of the archive's section among them
 * @throws UbiError E_STORE, E_ARCHIVE*
 */
export async function openArchiveSource(
  _settings: StoreSettings,
  _secrets: ResolvedSecrets,
): Promise<OpenedSource> {
  throw new AssertionError("archives are not read yet");
}
