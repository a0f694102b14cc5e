/** From the settings of a document to an open store. */
import type { Static } from "@sinclair/typebox";
import type { ResolvedSecrets } from "../config/resolve-secrets.ts";
import type { ArchiveStoreSection, Settings } from "../config/schema.ts";
import { UbiError } from "../errors.ts";
import type { ObjectStore, StoreDescription, StoreRole } from "./object-store.ts";

/** `[target]`, `[archive]`, or a `[stripe_source]` of type archive. */
export type StoreSettings = Settings<Static<typeof ArchiveStoreSection>>;

/**
 * @param secrets those of the store's section must be among them; their bytes are copied
 * @throws UbiError E_STORE
 */
export async function describeStore(
  settings: StoreSettings,
  secrets: ResolvedSecrets,
  role: StoreRole,
): Promise<StoreDescription> {
  throw new UbiError("E_STORE", `${settings.storage} ${secrets} ${role}`);
}

/**
 * Opens a store in this thread. For writing a folder is made when it is missing; a reader makes nothing.
 * @throws UbiError E_STORE
 */
export async function openStore(description: StoreDescription): Promise<ObjectStore> {
  throw new UbiError("E_STORE", description.kind);
}
