/** The manifest of an archive. */

import { UbiError } from "../errors.ts";
import type { Compression } from "../formats/archive-metadata.ts";
import type { ArchiveKeys } from "./archive-keys.ts";
import type { ObjectStore } from "./object-store.ts";
import type { StripeMap } from "./stripe-map.ts";

export type { Compression } from "../formats/archive-metadata.ts";

export interface ArchiveManifest extends ArchiveKeys {
  readonly stripeSectors: number;
  /** Of the disk. Where the archive does not tell, all its stripes are whole. */
  readonly sizeBytes: number;
  readonly compression: Compression;
  readonly map: StripeMap;
  /** Whether its keys are wrapped. */
  readonly isKeyProtected: boolean;
}

/** Names of the two objects of the manifest, in the order in which they are written. */
export const METADATA_KEY = "metadata.json";
export const MAPPING_KEY = "stripe-mapping";

/** @throws UbiError E_ARCHIVE, E_ARCHIVE_KEY, E_ARCHIVE_TAMPERED, E_STORE */
export async function openArchive(
  store: ObjectStore,
  kek: Uint8Array | undefined,
  signal?: AbortSignal,
): Promise<ArchiveManifest> {
  throw new UbiError("E_ARCHIVE", `${store.name} ${kek} ${signal}`);
}

/** The bytes of `metadata.json`. */
export function encodeMetadata(options: {
  readonly stripeSectors: number;
  readonly compression: Compression;
  readonly keys: ArchiveKeys;
  readonly kek: Uint8Array | undefined;
}): Uint8Array {
  throw new UbiError("E_ARCHIVE", `${options.kek}`);
}

/** The bytes of `stripe-mapping`. The last stripe of the map becomes a zero stripe when it is absent. */
export function encodeMapping(options: {
  readonly map: StripeMap;
  readonly stripeSectors: number;
  /** Of the disk: its last stripe is the last of the map. */
  readonly sizeBytes: number;
  readonly keys: ArchiveKeys;
}): Uint8Array {
  throw new UbiError("E_ARCHIVE", `${options.sizeBytes}`);
}
