/** Turns the flags of `ubiblk init` into what shall be made; refuses what does not go together. */
import { realpathSync, type Stats, statSync } from "node:fs";
import { resolve } from "node:path";
import { readKekFile } from "../config/kek-file.ts";
import { isLoopback } from "../config/loopback.ts";
import { errorText, UbiError } from "../errors.ts";
import { STRIPE_SHIFT_MAX } from "../formats/metadata.ts";
import { SECTOR_BYTES } from "../formats/virtio-blk.ts";
import type {
  DiskRequest,
  RequestedCredentials,
  RequestedKey,
  RequestedMedium,
  RequestedSource,
  RequestedStore,
  RequestedTuning,
  SecretFile,
} from "../init/disk-request.ts";
import { log } from "../log.ts";
import { integerArgument } from "./arguments.ts";
import type { InitFlags } from "./init-flags.ts";
import { sizeArgument } from "./size-argument.ts";

/** @throws UbiError E_USAGE, E_INIT, E_SECRET_READ, E_SECRET_SIZE */
export async function requestOf(flags: InitFlags): Promise<DiskRequest> {
  refuseContradictions(flags);
  return {
    folder: resolve(flags.dir ?? "."),
    configPath: flags.config === undefined ? undefined : resolve(flags.config),
    medium: mediumOf(flags),
    stripeShift: stripeShiftOf(flags["stripe-size"]),
    key: keyOf(flags),
    source: await sourceOf(flags),
    device: {
      vhost_socket: flags["vhost-socket"] ?? "vhost.sock",
      vhost_socket_group: flags["vhost-socket-group"],
      rpc_socket: flags["rpc-socket"] ?? "rpc.sock",
      device_id: flags["device-id"],
      track_written: flags["track-written"] ? true : undefined,
    },
    tuning: tuningOf(flags),
    isPlainConnectionAllowed: flags["unencrypted-connection"],
    isForced: flags.force,
  };
}

// --- internal ---

/** 32 KiB, as `init-metadata` accepts. */
const STRIPE_SHIFT_MIN = 6;
const CPUS_MAX = 63;

/** Names that lead to something else in another process. */
const DESCRIPTORS = /^\/(dev\/(fd\/|stdin)|proc\/[^/]+\/fd\/)/;

type FlagName = keyof InitFlags;

/** One of each at most. */
const ALTERNATIVES: readonly (readonly FlagName[])[] = [
  ["size", "disk"],
  ["kek", "kek-file", "unencrypted"],
  ["base", "archive", "s3", "remote"],
  ["s3-credentials", "s3-access-key-id"],
];

/** Flags that say nothing without one of others. */
const DEPENDENTS: readonly {
  readonly flags: readonly FlagName[];
  readonly of: readonly FlagName[];
}[] = [
  { flags: ["preallocate"], of: ["size"] },
  { flags: ["kek-credential"], of: ["kek-file"] },
  { flags: ["copy-on-read"], of: ["base"] },
  { flags: ["autofetch"], of: ["base", "archive", "s3", "remote"] },
  { flags: ["archive-kek"], of: ["archive", "s3"] },
  { flags: ["psk"], of: ["remote"] },
  { flags: ["unencrypted-connection"], of: ["remote", "s3"] },
  { flags: ["psk-identity", "psk-encoding"], of: ["psk"] },
  { flags: ["s3-endpoint", "s3-region", "s3-path-style", "s3-ca-file"], of: ["s3"] },
  { flags: ["s3-credentials", "s3-access-key-id"], of: ["s3"] },
  { flags: ["s3-secret-access-key", "s3-session-token"], of: ["s3-access-key-id"] },
];

function refuseContradictions(flags: InitFlags): void {
  const isGiven = (name: FlagName) => flags[name] !== undefined && flags[name] !== false;
  for (const [name, value] of Object.entries(flags)) {
    if (value === "") {
      throw usage(`--${name}: empty`);
    }
  }
  for (const group of ALTERNATIVES) {
    const given = group.filter(isGiven);
    if (given.length > 1) {
      throw usage(`${namesText(given)}: only one of them can be given`);
    }
  }
  for (const { flags: dependents, of } of DEPENDENTS) {
    const given = dependents.find(isGiven);
    if (given !== undefined && !of.some(isGiven)) {
      throw usage(`--${given}: only with ${of.map((name) => `--${name}`).join(" or ")}`);
    }
  }
}

function mediumOf({ size, disk, preallocate }: InitFlags): RequestedMedium {
  if (disk !== undefined) {
    return { kind: "device", path: existing("--disk", disk) };
  }
  if (size === undefined) {
    throw usage("--size: missing (or --disk DEVICE); on a terminal `ubiblk init` asks for it");
  }
  const sizeBytes = sizeArgument("--size", size);
  if (sizeBytes === 0) {
    throw usage("--size: a disk of 0 bytes is none");
  }
  return { kind: "file", sizeBytes, isPreallocated: preallocate };
}

/** @throws UbiError E_USAGE */
function stripeShiftOf(text: string | undefined): number | undefined {
  if (text === undefined) {
    return undefined;
  }
  const shift = Math.log2(sizeArgument("--stripe-size", text) / SECTOR_BYTES);
  if (!(Number.isInteger(shift) && shift >= STRIPE_SHIFT_MIN && shift <= STRIPE_SHIFT_MAX)) {
    throw usage(`--stripe-size: ${text} is no power of two from 32K to 64M`);
  }
  return shift;
}

function keyOf(flags: InitFlags): RequestedKey {
  const { kek, unencrypted, "kek-file": kekFile, "kek-credential": credential } = flags;
  if (kekFile !== undefined) {
    const path = resolve(kekFile);
    if (credential === undefined) {
      warnOfDescriptor("--kek-file", path);
    }
    const isRegularFile = statusOf("--kek-file", path).isFile();
    return { kind: "given-kek", path, isRegularFile, credential };
  }
  return { kind: unencrypted ? "none" : kek ? "new-kek" : "file" };
}

async function sourceOf(flags: InitFlags): Promise<RequestedSource> {
  const { base, archive, s3, remote, autofetch } = flags;
  if (base !== undefined) {
    const copyOnRead = flags["copy-on-read"];
    return { kind: "raw", path: imagePath(base), autofetch, copyOnRead };
  }
  if (archive !== undefined || s3 !== undefined) {
    const store: RequestedStore =
      s3 === undefined
        ? { kind: "folder", path: existing("--archive", archive ?? "") }
        : bucketOf(s3, flags);
    return { kind: "archive", store, kek: await archiveKek(flags["archive-kek"]), autofetch };
  }
  if (remote === undefined) {
    return { kind: "none" };
  }
  return { kind: "remote", address: remote, psk: pskOf(flags), autofetch };
}

function bucketOf(place: string, flags: InitFlags): RequestedStore {
  const slash = place.indexOf("/");
  const caFile = flags["s3-ca-file"];
  return {
    kind: "s3",
    bucket: slash < 0 ? place : place.slice(0, slash),
    prefix: slash < 0 ? undefined : place.slice(slash + 1),
    region: flags["s3-region"],
    endpoint: endpointOf(flags),
    isPathStyle: flags["s3-path-style"],
    caFile: caFile === undefined ? undefined : existing("--s3-ca-file", caFile),
    credentials: credentialsOf(flags),
  };
}

/** What else is wrong with it is found with the whole configuration. */
function endpointOf(flags: InitFlags): string | undefined {
  const endpoint = flags["s3-endpoint"];
  const url = endpoint !== undefined && URL.canParse(endpoint) ? new URL(endpoint) : undefined;
  const isPlain = url?.protocol === "http:" && !isLoopback(url.hostname);
  if (isPlain && !flags["unencrypted-connection"]) {
    const advice = "use https, or give --unencrypted-connection";
    throw usage(`--s3-endpoint: http to another machine is not encrypted; ${advice}`);
  }
  return endpoint;
}

function credentialsOf(flags: InitFlags): RequestedCredentials {
  const places = flags["s3-credentials"];
  if (places !== undefined) {
    return { kind: "machine", places: places.split(",") };
  }
  const idPath = flags["s3-access-key-id"];
  const keyPath = flags["s3-secret-access-key"];
  if (idPath === undefined || keyPath === undefined) {
    const files = "--s3-access-key-id FILE and --s3-secret-access-key FILE";
    throw usage(`--s3: credentials are missing; give --s3-credentials PLACES, or ${files}`);
  }
  const tokenPath = flags["s3-session-token"];
  return {
    kind: "files",
    accessKeyId: secretFile("--s3-access-key-id", idPath),
    secretAccessKey: secretFile("--s3-secret-access-key", keyPath),
    sessionToken: tokenPath === undefined ? undefined : secretFile("--s3-session-token", tokenPath),
  };
}

/** What stands in a file tells how it is written; of a pipe the bytes count. */
async function archiveKek(path: string | undefined): Promise<SecretFile | undefined> {
  if (path === undefined) {
    return undefined;
  }
  const file = secretFile("--archive-kek", path);
  if (!file.isRegularFile) {
    return file;
  }
  const { kek, encoding } = await readKekFile(file.path, new AbortController().signal);
  kek.fill(0);
  return { ...file, encoding };
}

function pskOf(flags: InitFlags) {
  const { psk, "psk-identity": identity } = flags;
  if (psk === undefined) {
    if (!flags["unencrypted-connection"]) {
      const advice = "give --psk FILE and --psk-identity ID, or --unencrypted-connection";
      throw usage(`--remote: the connection would not be encrypted; ${advice}`);
    }
    return undefined;
  }
  if (identity === undefined) {
    throw usage("--psk-identity: missing");
  }
  const encoding = flags["psk-encoding"] === "base64" ? "base64" : "plaintext";
  return { identity, secret: { ...secretFile("--psk", psk), encoding } as const };
}

function secretFile(flag: string, given: string): SecretFile {
  const path = resolve(given);
  warnOfDescriptor(flag, path);
  return { path, encoding: "plaintext", isRegularFile: statusOf(flag, path).isFile() };
}

function warnOfDescriptor(flag: string, path: string): void {
  if (DESCRIPTORS.test(path)) {
    log.warn(`${flag}: ${path} is another file in each process; name it anew in the configuration`);
  }
}

function tuningOf(flags: InitFlags): RequestedTuning {
  return {
    num_queues: integerArgument(flags["num-queues"]) ?? 1,
    queue_size: integerArgument(flags["queue-size"]) ?? 64,
    seg_size_max: integerArgument(flags["seg-size-max"]) ?? 65_536,
    seg_count_max: integerArgument(flags["seg-count-max"]) ?? 4,
    poll_timeout_us: integerArgument(flags["poll-timeout-us"]) ?? 1000,
    io_engine: flags["io-engine"] === "sync" ? "sync" : "io_uring",
    write_through: flags["write-through"],
    cpus: flags.cpus === undefined ? undefined : cpusOf(flags.cpus),
  };
}

/** `2,3` or `0-3`. */
function cpusOf(list: string): readonly number[] {
  const cpus = list.split(",").flatMap((part) => {
    const [, first, last = first] = /^(\d{1,9})(?:-(\d{1,9}))?$/.exec(part) ?? [];
    const count = Number(last) - Number(first) + 1;
    if (!(count >= 1 && count <= CPUS_MAX)) {
      throw usage(`--cpus: ${JSON.stringify(list)} is no list of CPUs, such as 2,3 or 0-3`);
    }
    return Array.from({ length: count }, (_, i) => Number(first) + i);
  });
  return cpus;
}

/** Of what has to be there. Links stay as they are: names of devices are links, and what they lead to may change. */
function existing(flag: string, path: string): string {
  statusOf(flag, path);
  return resolve(path);
}

/** An image is meant as it is now, wherever its name will lead. */
function imagePath(path: string): string {
  return statusOf("--base", path).isFile() ? realpathSync(path) : resolve(path);
}

function statusOf(flag: string, path: string): Stats {
  try {
    return statSync(path);
  } catch (error) {
    throw notThere(flag, path, error);
  }
}

function notThere(flag: string, path: string, error: unknown): UbiError {
  const message = `${flag}: cannot open ${JSON.stringify(path)}: ${errorText(error)}`;
  return new UbiError("E_INIT", message, { cause: error });
}

function namesText(names: readonly string[]): string {
  return names.map((name) => `--${name}`).join(", ");
}

function usage(message: string): UbiError {
  return new UbiError("E_USAGE", message);
}
