/** The configuration of a new disk as TOML. Pure: what it says follows from the request alone. */
import { resolve } from "node:path";
import { sectionText, type WritableTable } from "../config/toml.ts";
import { assertNever } from "../errors.ts";
import {
  type DiskRequest,
  type RequestedCredentials,
  type RequestedSource,
  type RequestedStore,
  secretFilesOf,
} from "./disk-request.ts";

/** What is made in the folder: the names are those of the reference implementation. */
export const FILE_NAMES = {
  disk: "disk.raw",
  metadata: "metadata",
  config: "config.toml",
  xtsKey: "xts_key",
  kek: "kek",
} as const;

/** A `[secrets.NAME]`; its file may be relative to the disk's folder. */
export type KeyTable = {
  readonly source: {
    readonly file?: string;
    readonly inline?: string;
    readonly credential?: string;
  };
  readonly encoding?: string;
  readonly encrypted_by?: { readonly ref: string };
};

/** Those that hold the key of the disk; the names are authenticated with what is wrapped. */
export type KeyTables = Readonly<Partial<Record<"xts_key" | "kek", KeyTable>>>;

/** @param dangers further flags of the danger zone */
export function documentText(
  request: DiskRequest,
  keys: KeyTables,
  dangers: readonly string[] = dangersOf(request),
): string {
  const { medium, device, tuning } = request;
  const { vhost_socket, rpc_socket, ...others } = device;
  const dataPath = medium.kind === "device" ? medium.path : FILE_NAMES.disk;
  const paths = {
    data_path: placed(request, dataPath),
    metadata_path: placed(request, FILE_NAMES.metadata),
    vhost_socket: placed(request, vhost_socket),
    rpc_socket: placed(request, rpc_socket),
  };
  const sections: string[] = [
    sectionText(["device"], { ...paths, ...others }),
    sectionText(["tuning"], { ...tuning }),
  ];
  if (keys.xts_key !== undefined) {
    sections.push(sectionText(["encryption"], { xts_key: { ref: "xts_key" } }));
  }
  const source = sourceTable(request.source);
  if (source !== undefined) {
    sections.push(sectionText(["stripe_source"], source));
  }
  for (const [name, table] of Object.entries(keys)) {
    const { file } = table.source;
    const source = file === undefined ? table.source : { file: placed(request, file) };
    sections.push(sectionText(["secrets", name], { ...table, source }));
  }
  for (const [name, { path, encoding }] of secretFilesOf(request)) {
    sections.push(sectionText(["secrets", name], { source: { file: path }, encoding }));
  }
  if (dangers.length > 0) {
    const flags = ["enabled", ...dangers].map((flag) => [flag, true] as const);
    sections.push(sectionText(["danger_zone"], Object.fromEntries(flags)));
  }
  const header = keys.xts_key === undefined ? HEADER : HEADER + KEY_ADVICE;
  return [header, ...sections].join("\n");
}

/** The flags of the danger zone that such a disk needs, and no others. */
export function dangersOf(request: DiskRequest): readonly string[] {
  const { key, source, isPlainConnectionAllowed } = request;
  const dangers: string[] = [];
  if (key.kind === "none") {
    dangers.push("allow_unencrypted_disk");
  }
  const areKeysInFiles =
    key.kind === "file" ||
    key.kind === "new-kek" ||
    (key.kind === "given-kek" && key.isRegularFile && key.credential === undefined);
  const files = [...secretFilesOf(request).values()];
  const places = machinePlaces(source);
  const readsFiles = places.includes("profile") || places.includes("web_identity");
  if (areKeysInFiles || readsFiles || files.some((file) => file.isRegularFile)) {
    dangers.push("allow_secret_over_regular_file");
  }
  if (isPlainConnectionAllowed) {
    dangers.push("allow_unencrypted_connection");
  }
  if (places.includes("environment")) {
    dangers.push("allow_env_secrets");
  }
  return dangers;
}

// --- internal ---

const HEADER =
  "# A disk of ubiblk, made by `ubiblk init`. Relative paths start from the folder of this file.\n";
const KEY_ADVICE =
  "# Keep a copy of its key (and of the KEK) in another place: without it the disk cannot be read.\n";

/** Beside what it names, a configuration has relative paths: the folder can be moved. */
function placed({ folder, configPath }: DiskRequest, path: string): string {
  return configPath === undefined ? path : resolve(folder, path);
}

function machinePlaces(source: RequestedSource): readonly string[] {
  if (source.kind !== "archive" || source.store.kind !== "s3") {
    return [];
  }
  const { credentials } = source.store;
  return credentials.kind === "machine" ? credentials.places : [];
}

function sourceTable(source: RequestedSource): WritableTable | undefined {
  switch (source.kind) {
    case "none":
      return undefined;
    case "raw":
      return {
        type: "raw",
        image_path: source.path,
        autofetch: onlyTrue(source.autofetch),
        copy_on_read: onlyTrue(source.copyOnRead),
      };
    case "archive":
      return {
        type: "archive",
        ...storeTable(source.store),
        archive_kek: source.kek === undefined ? undefined : { ref: "archive_kek" },
        autofetch: onlyTrue(source.autofetch),
      };
    case "remote":
      return {
        type: "remote",
        address: source.address,
        psk:
          source.psk === undefined
            ? undefined
            : { identity: source.psk.identity, secret: { ref: "psk" } },
        autofetch: onlyTrue(source.autofetch),
      };
    default:
      return assertNever(source);
  }
}

function storeTable(store: RequestedStore): WritableTable {
  if (store.kind === "folder") {
    return { storage: "filesystem", path: store.path };
  }
  return {
    storage: "s3",
    bucket: store.bucket,
    prefix: store.prefix,
    region: store.region,
    endpoint: store.endpoint,
    force_path_style: onlyTrue(store.isPathStyle),
    ca_file: store.caFile,
    ...credentialKeys(store.credentials),
  };
}

function credentialKeys(credentials: RequestedCredentials): WritableTable {
  if (credentials.kind === "machine") {
    return { credentials: credentials.places };
  }
  return {
    access_key_id: { ref: "access_key_id" },
    secret_access_key: { ref: "secret_access_key" },
    session_token: credentials.sessionToken === undefined ? undefined : { ref: "session_token" },
  };
}

function onlyTrue(isSet: boolean): true | undefined {
  return isSet ? true : undefined;
}
