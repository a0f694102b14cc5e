/**
 * Makes a new disk: data file, key, configuration, metadata. Everything is checked first, then made in a folder of its
 * own beside its place, and moved there when all of it is on disk.
 */
import { closeSync, fsyncSync, ftruncateSync } from "node:fs";
import { join, resolve } from "node:path";
import { type InitializedMetadata, initMetadata } from "../copy/init-metadata.ts";
import { OutputFile } from "../copy/output-file.ts";
import { errnoText, errorText, UbiError } from "../errors.ts";
import { allocateFile } from "../ffi/file.ts";
import { stripeBytes } from "../formats/metadata.ts";
import { log } from "../log.ts";
import { dangersOf, documentText, FILE_NAMES } from "./disk-document.ts";
import { DiskKeys, expectedTables } from "./disk-keys.ts";
import type { DiskRequest, RequestedKey } from "./disk-request.ts";
import { checkedConfig } from "./document-check.ts";
import { checkPlace } from "./place-check.ts";
import { StagingFolder } from "./staging-folder.ts";

/** All paths are absolute. */
export interface MadeDisk {
  readonly folder: string;
  readonly configPath: string;
  readonly dataPath: string;
  readonly sizeBytes: number;
  readonly metadataPath: string;
  readonly stripeBytes: number;
  readonly stripeCount: number;
  readonly sourceStripes: number;
  /** The file with the key or the KEK, when one was made. */
  readonly keyPath: string | undefined;
  readonly isEncrypted: boolean;
  /** A KEK that only a service can read that was given it; and the file that it is. */
  readonly kekCredential: { readonly name: string; readonly path: string } | undefined;
  readonly vhostSocket: string;
  readonly rpcSocket: string;
  readonly queues: number;
  /** Flags of the danger zone. */
  readonly dangers: readonly string[];
  /** Files that were replaced. */
  readonly replaced: readonly string[];
  readonly warnings: readonly string[];
}

/**
 * @throws UbiError E_INIT, E_DISK_*, E_METADATA_*, E_STRIPE_SOURCE, E_SECRET*, those of archives and stripe servers;
 * UbiErrors of the configuration; the signal's reason
 */
export async function makeDisk(request: DiskRequest, signal: AbortSignal): Promise<MadeDisk> {
  const { folder } = request;
  const warnings = new Set<string>();
  checkedConfig(documentText(request, expectedTables(request.key)), folder, (warning) => {
    warnings.add(warning);
    log.warn(warning);
  });
  const { sizeBytes, names, retired } = checkPlace(request);
  using keys = await DiskKeys.make(request.key, signal);
  using staging = StagingFolder.make(folder);
  await makeDataFile(request, staging, signal);
  for (const { name, content } of keys.files) {
    staging.write(name, content);
  }
  using configFile = makeConfig(request, keys, staging);
  const metadata = await orAborted(
    makeMetadata(request, keys, staging, (warning) => {
      if (!warnings.has(warning)) {
        log.warn(warning);
      }
    }),
    signal,
  );
  await Bun.sleep(0); // a signal of the time in which large metadata was made
  signal.throwIfAborted();
  staging.publish(names, retired, () => configFile?.commit());

  const [keyFile] = keys.files;
  return {
    folder,
    configPath: request.configPath ?? join(folder, FILE_NAMES.config),
    dataPath:
      request.medium.kind === "device" ? request.medium.path : join(folder, FILE_NAMES.disk),
    sizeBytes,
    metadataPath: join(folder, FILE_NAMES.metadata),
    stripeBytes: stripeBytes(metadata),
    stripeCount: metadata.stripeCount,
    sourceStripes: metadata.sourceStripes,
    keyPath: keyFile === undefined ? undefined : join(folder, keyFile.name),
    isEncrypted: metadata.isEncrypted,
    kekCredential: credentialOf(request.key),
    vhostSocket: resolve(folder, request.device.vhost_socket),
    rpcSocket: resolve(folder, request.device.rpc_socket),
    queues: request.tuning.num_queues,
    dangers: dangersOf(request),
    replaced: retired.map((name) => join(folder, name)),
    warnings: [...warnings],
  };
}

// --- internal ---

function credentialOf(key: RequestedKey): MadeDisk["kekCredential"] {
  return key.kind === "given-kek" && key.credential !== undefined
    ? { name: key.credential, path: key.path }
    : undefined;
}

const PIECE_BYTES = 2 ** 30;
const EOPNOTSUPP = -95;

async function makeDataFile(
  { medium, folder }: DiskRequest,
  staging: StagingFolder,
  signal: AbortSignal,
): Promise<void> {
  if (medium.kind === "device") {
    return;
  }
  const fd = staging.open(FILE_NAMES.disk);
  try {
    if (medium.isPreallocated) {
      await preallocate(fd, medium.sizeBytes, signal);
    }
    ftruncateSync(fd, medium.sizeBytes);
    fsyncSync(fd);
  } catch (error) {
    if (error instanceof UbiError) {
      throw error;
    }
    const what = `cannot make a disk of ${medium.sizeBytes} bytes in ${folder}`;
    throw new UbiError("E_INIT", `${what}: ${errorText(error)}`, { cause: error });
  } finally {
    closeSync(fd);
  }
}

/** The file that has yet to get its name, where the configuration lies elsewhere. */
function makeConfig(
  request: DiskRequest,
  keys: DiskKeys,
  staging: StagingFolder,
): OutputFile | undefined {
  const text = new TextEncoder().encode(documentText(request, keys.tables));
  if (request.configPath === undefined) {
    staging.write(FILE_NAMES.config, text);
    return undefined;
  }
  const file = OutputFile.create(request.configPath, {
    inputs: [],
    mayReplace: request.isForced,
    whyKept: "and stays",
    code: "E_INIT",
  });
  try {
    file.write(text);
    return file;
  } catch (error) {
    file[Symbol.dispose]();
    throw error;
  }
}

/** In pieces, so that a signal ends it. */
async function preallocate(fd: number, sizeBytes: number, signal: AbortSignal): Promise<void> {
  for (let offset = 0; offset < sizeBytes; offset += PIECE_BYTES) {
    await Bun.sleep(0);
    signal.throwIfAborted();
    const result = allocateFile(fd, 0, offset, Math.min(PIECE_BYTES, sizeBytes - offset));
    if (result < 0) {
      const advice = result === EOPNOTSUPP ? "; this file system cannot: leave it out" : "";
      throw new UbiError("E_INIT", `--preallocate: ${errnoText(result)}${advice}`);
    }
  }
}

async function makeMetadata(
  request: DiskRequest,
  keys: DiskKeys,
  staging: StagingFolder,
  tell: (warning: string) => void,
): Promise<InitializedMetadata> {
  const dangers = [...dangersOf(request), "allow_inline_plaintext_secrets"]; // for making only
  const inFolder = { ...request, configPath: undefined };
  const config = checkedConfig(
    documentText(inFolder, keys.makingTables, dangers),
    staging.path,
    tell,
  );
  return await initMetadata(config, { stripeShift: request.stripeShift, isForced: false });
}

/** What does not end at a signal by itself is left behind: the process ends. */
async function orAborted<T>(work: Promise<T>, signal: AbortSignal): Promise<T> {
  const aborted = Promise.withResolvers<never>();
  const onAbort = () => aborted.reject(signal.reason);
  signal.addEventListener("abort", onAbort, { once: true });
  try {
    signal.throwIfAborted();
    return await Promise.race([work, aborted.promise]);
  } finally {
    signal.removeEventListener("abort", onAbort);
  }
}
