/** An archive in a folder. */
import type { StoreRole } from "./object-store.ts";

export interface FilesystemStoreDescription {
  readonly kind: "filesystem";
  readonly path: string;
  readonly role: StoreRole;
}
