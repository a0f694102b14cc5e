/** Where an archive lies, for commands that read one: the document with `[archive]`, its secrets, its store. */
import type { StoreDescription, StoreRole } from "../archive/object-store.ts";
import { describeStore } from "../archive/open-store.ts";
import { loadArchiveConfig, resolveSecrets } from "../config/index.ts";

export interface PlaceToOpen {
  readonly configPath: string;
  readonly role: StoreRole;
  readonly signal: AbortSignal;
}

/** Plain data, which holds secrets. */
export interface OpenedPlace {
  readonly source: StoreDescription;
  readonly kek: Uint8Array | undefined;
  /** The documents, and what they name: secrets, certificates, the archive's folder. */
  readonly inputPaths: readonly string[];
}

/** Runs `work`; the secrets are wiped behind it. */
export async function withArchivePlace<T>(
  { configPath, role, signal }: PlaceToOpen,
  work: (place: OpenedPlace) => Promise<T>,
): Promise<T> {
  const config = await loadArchiveConfig(configPath, signal);
  using secrets = await resolveSecrets(config, ["archive"], signal);
  using store = await describeStore(config.archive, secrets, role, signal);
  const { archiveKek } = config.archive;
  const kek = archiveKek === undefined ? undefined : secrets.get(archiveKek).bytes;
  return await work({ source: store.description, kek, inputPaths: config.files });
}
