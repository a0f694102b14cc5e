/**
 * `archive-run.json`: who is at work on an archive, so that nobody else is (archive-claim.ts). That of a run which
 * makes an archive also has the keys that its objects are made with, wrapped as in `metadata.json`. With it a later
 * run goes on where this one was cut off: objects that are there need not be made again, since with the same keys
 * they get the same names.
 *
 *   {"version":1,"kind":"archive","token":"32 hex digits","host":"h","boot_id":"...","pid_namespace":"pid:[4026]",
 *    "pid":17,"start_ticks":4711,"started":"2026-01-01T00:00:00.000Z",
 *    "stripe_sector_count":2048,"compression":{"kind":"zstd","level":3},"encryption_key":"..." or null,
 *    "hmac_key":"...","leaves_objects":false}
 *   {"version":1,"kind":"prune" or "rekey", ... "started":"..."}
 *   {"version":1,"kind":"ended"}      in its place where it cannot be removed
 *
 * It is no part of the archive: readers never look at it, and it goes when the work ends well.
 */
import { randomBytes } from "node:crypto";
import { readFileSync, readlinkSync } from "node:fs";
import { hostname } from "node:os";
import { type Static, Type } from "@sinclair/typebox";
import { Check } from "@sinclair/typebox/value";
import { type ArchiveKeys, unwrapKey, wrapKey } from "../archive/archive-keys.ts";
import type { ObjectStore } from "../archive/object-store.ts";
import { XTS_KEY_BYTES } from "../ffi/xts.ts";
import { type Compression, HMAC_KEY_BYTES } from "../formats/archive-metadata.ts";

export const RUN_KEY = "archive-run.json";

/** What decides over the names of objects, besides the keys. */
export interface RunParameters {
  readonly stripeSectors: number;
  readonly compression: Compression;
  readonly isEncrypted: boolean;
}

/** A run that was begun. */
export interface EarlierRun {
  readonly parameters: RunParameters;
  readonly keys: ArchiveKeys;
  /** When it is done there are objects of another archive, or of another run. */
  readonly leavesObjects?: boolean;
}

export type ArchiveRunFile = Static<typeof ArchiveRunSchema>;
type RunFile = ArchiveRunFile | Static<typeof UpkeepRunSchema>;

/** What lies under `RUN_KEY`. */
export type FoundRun =
  | { readonly kind: "none" | "ended" | "damaged" }
  | { readonly kind: "run"; readonly file: RunFile };

/** Who wrote the file, as far as it can be told from here. */
export interface RunOwner {
  /** "running" on this machine, "dead" there, or "elsewhere": on another machine, which cannot be looked at. */
  readonly state: "running" | "dead" | "elsewhere";
  /** `process 17 on HOST, since TIME`. */
  readonly text: string;
}

/** Tells two runs apart. */
export function newToken(): string {
  return randomBytes(16).toString("hex");
}

/** The file of a run of this process. */
export function encodeRunFile(
  { parameters, keys, leavesObjects = false }: EarlierRun,
  kek: Uint8Array | undefined,
  token = newToken(),
): Uint8Array {
  const { stripeSectors, compression } = parameters;
  const content: ArchiveRunFile = {
    version: 1,
    kind: "archive",
    ...thisProcess(token),
    stripe_sector_count: stripeSectors,
    compression,
    encryption_key: keys.xtsKey === undefined ? null : wrapKey(keys.xtsKey, kek).toBase64(),
    hmac_key: wrapKey(keys.hmacKey, kek).toBase64(),
    leaves_objects: leavesObjects,
  };
  return encoded(content);
}

/** The file of this process while it looks after an archive. */
export function encodeUpkeepFile(kind: "prune" | "rekey", token: string): Uint8Array {
  const content: Static<typeof UpkeepRunSchema> = { version: 1, kind, ...thisProcess(token) };
  return encoded(content);
}

/** What takes the place of a file that cannot be removed. */
export function encodeEndedFile(): Uint8Array {
  const content: Static<typeof EndedSchema> = { version: 1, kind: "ended" };
  return encoded(content);
}

/** @throws UbiError E_STORE */
export async function readRunFile(
  store: ObjectStore,
  signal: AbortSignal | undefined,
): Promise<FoundRun> {
  const bytes = await store.get(RUN_KEY, { lengthMax: BYTES_MAX, signal });
  if (bytes === undefined) {
    return { kind: "none" };
  }
  const content = parse(bytes);
  if (Check(EndedSchema, content)) {
    return { kind: "ended" };
  }
  if (Check(ArchiveRunSchema, content) || Check(UpkeepRunSchema, content)) {
    return { kind: "run", file: content };
  }
  return { kind: "damaged" };
}

/** @throws UbiError E_ARCHIVE_KEY when the KEK is not the one of that run */
export function earlierRun(file: ArchiveRunFile, kek: Uint8Array | undefined): EarlierRun {
  const { stripe_sector_count: stripeSectors, compression, encryption_key: xtsKey } = file;
  const keyOf = (what: string, text: string, keyBytes: number) =>
    unwrapKey({ stored: Uint8Array.fromBase64(text), what, keyBytes, kek });
  return {
    parameters: { stripeSectors, compression, isEncrypted: xtsKey !== null },
    keys: {
      xtsKey: xtsKey === null ? undefined : keyOf("encryption_key", xtsKey, XTS_KEY_BYTES),
      hmacKey: keyOf("hmac_key", file.hmac_key, HMAC_KEY_BYTES),
    },
    leavesObjects: file.leaves_objects,
  };
}

export function ownerOf(file: RunFile): RunOwner {
  const text = `process ${file.pid} on ${file.host}, since ${file.started}`;
  const isHere = file.boot_id !== bootId() || file.pid_namespace === pidNamespace();
  if (file.host !== hostname() || !isHere) {
    return { state: "elsewhere", text };
  }
  const isRunning = file.boot_id === bootId() && startTicks(file.pid) === file.start_ticks;
  return { state: isRunning ? "running" : "dead", text };
}

// --- internal ---

const BYTES_MAX = 65_536;
/** Of printable text, since it is shown. */
const shown = (lengthMax: number) => Type.String({ maxLength: lengthMax, pattern: "^[!-~]*$" });
const base64 = Type.String({
  maxLength: 1024,
  pattern: "^([A-Za-z0-9+/]{4})*([A-Za-z0-9+/]{3}=|[A-Za-z0-9+/]{2}==)?$",
});

const WRITER = {
  version: Type.Literal(1),
  token: Type.String({ pattern: "^[0-9a-f]{32}$" }),
  host: shown(256),
  boot_id: shown(64),
  pid_namespace: shown(64),
  pid: Type.Integer({ minimum: 1 }),
  start_ticks: Type.Integer({ minimum: 0 }),
  started: shown(64),
} as const;

const ArchiveRunSchema = Type.Object({
  ...WRITER,
  kind: Type.Literal("archive"),
  stripe_sector_count: Type.Integer({ minimum: 1 }),
  compression: Type.Union([
    Type.Object({ kind: Type.Literal("none") }),
    Type.Object({ kind: Type.Literal("zstd"), level: Type.Integer() }),
  ]),
  encryption_key: Type.Union([base64, Type.Null()]),
  hmac_key: base64,
  leaves_objects: Type.Boolean(),
});

const UpkeepRunSchema = Type.Object({
  ...WRITER,
  kind: Type.Union([Type.Literal("prune"), Type.Literal("rekey")]),
});

const EndedSchema = Type.Object({ version: Type.Literal(1), kind: Type.Literal("ended") });

function thisProcess(token: string) {
  return {
    token,
    host: hostname(),
    boot_id: bootId(),
    pid_namespace: pidNamespace(),
    pid: process.pid,
    start_ticks: startTicks(process.pid) ?? 0,
    started: new Date().toISOString(),
  };
}

function encoded(content: object): Uint8Array {
  return new TextEncoder().encode(`${JSON.stringify(content)}\n`);
}

function parse(bytes: Uint8Array): unknown {
  try {
    return JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(bytes));
  } catch {
    return undefined; // no text of ours
  }
}

function bootId(): string {
  try {
    return readFileSync("/proc/sys/kernel/random/boot_id", "utf8").trim();
  } catch {
    return ""; // no /proc: a process of this machine then counts as dead
  }
}

/** Containers of one machine may have one name, and each its own processes. */
function pidNamespace(): string {
  try {
    return readlinkSync("/proc/self/ns/pid");
  } catch {
    return "";
  }
}

/** When a process began, in clock ticks since the machine did: with its number, its identity. */
function startTicks(pid: number): number | undefined {
  try {
    const fields = readFileSync(`/proc/${pid}/stat`, "latin1").split(") ").at(-1)?.split(" ");
    const isDead = fields?.[0] === "Z" || fields?.[0] === "X";
    return isDead ? undefined : Number(fields?.[19]);
  } catch {
    return undefined;
  }
}
