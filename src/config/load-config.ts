/** Loads each kind of document into the plain, checked data that programs work with. */
import type { Static, TObject } from "@sinclair/typebox";
import { camelKeys } from "./camel-keys.ts";
import type { DeclaredSecrets } from "./declared-secrets.ts";
import {
  ARCHIVE_RULES,
  type DeviceConfigOptions,
  deviceRules,
  KEY_RULES,
  SERVER_RULES,
  TARGET_RULES,
} from "./document-rules.ts";
import { type LoadedDocument, loadDocument } from "./load-document.ts";
import type {
  ArchiveDocument,
  DeviceDocument,
  KeyDocument,
  ServerDocument,
  Settings,
  TargetDocument,
} from "./schema.ts";

/** What every loaded document has besides its sections. Paths in sections are resolved. */
interface Loaded {
  /** Pass the document to `resolveSecrets` to get bytes. */
  readonly secrets: DeclaredSecrets;
  /** Those that the document was read from, then all paths in it: what no tool may write over. */
  readonly files: readonly string[];
  /** Logged already. */
  readonly warnings: readonly string[];
}

type Sections<Schema extends TObject> = Omit<Settings<Static<Schema>>, "secrets">;

export type DeviceConfig = Loaded & Sections<typeof DeviceDocument>;
export type KeyConfig = Loaded & Sections<typeof KeyDocument>;
export type TargetConfig = Loaded & Sections<typeof TargetDocument>;
type ArchiveConfig = Loaded & Sections<typeof ArchiveDocument>;
export type ServerConfig = Loaded & Sections<typeof ServerDocument>;

/**
 * Loads a device document.
 *
 * @param path of the root file; relative paths in it start from its directory.
 * @param signal ends the wait for the writer of a pipe, in this and the others
 * @throws UbiErrors with every mistake of the document; the signal's reason
 */
export async function loadDeviceConfig(
  path: string,
  options: DeviceConfigOptions = {},
  signal?: AbortSignal,
): Promise<DeviceConfig> {
  return deviceConfigOf(await loadDocument(path, deviceRules(options), signal));
}

/**
 * Loads a device document for a program that needs only its `[encryption]`: `[device]` may be
 * absent.
 *
 * @throws UbiErrors with every mistake of the document.
 */
export async function loadKeyConfig(path: string): Promise<KeyConfig> {
  const { values, secrets, files, warnings } = await loadDocument(path, KEY_RULES);
  const { secrets: _, ...sections } = values;
  return { ...camelKeys(sections), secrets, files, warnings };
}

/** Loads the document of where an archive is written to. Its `path` stays as written. */
export async function loadTargetConfig(path: string): Promise<TargetConfig> {
  const { values, secrets, files, warnings } = await loadDocument(path, TARGET_RULES);
  const { secrets: _, ...sections } = values;
  return { ...camelKeys(sections), secrets, files, warnings };
}

/** Loads the document of where an archive is read from for an export. */
export async function loadArchiveConfig(
  path: string,
  signal?: AbortSignal,
): Promise<ArchiveConfig> {
  const { values, secrets, files, warnings } = await loadDocument(path, ARCHIVE_RULES, signal);
  const { secrets: _, ...sections } = values;
  return { ...camelKeys(sections), secrets, files, warnings };
}

/** Loads the document of a stripe server, for the server and for its clients. */
export async function loadServerConfig(path: string): Promise<ServerConfig> {
  return serverConfigOf(await loadDocument(path, SERVER_RULES));
}

/** What programs get of a device document that was checked. */
export function deviceConfigOf(document: LoadedDocument<typeof DeviceDocument>): DeviceConfig {
  const { values, secrets, files, warnings } = document;
  const { secrets: _, ...sections } = values;
  return { ...camelKeys(sections), secrets, files, warnings };
}

/** The same of a server's. */
export function serverConfigOf(document: LoadedDocument<typeof ServerDocument>): ServerConfig {
  const { values, secrets, files, warnings } = document;
  const { secrets: _, ...sections } = values;
  return { ...camelKeys(sections), secrets, files, warnings };
}
