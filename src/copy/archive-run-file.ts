/**
 * `archive-run.json`, an object of a run that has not ended: who runs, and the keys that its objects are made with,
 * wrapped as in `metadata.json`. With it a later run goes on where this one was cut off: objects that are there need
 * not be made again, since with the same keys they get the same names.
 *
 *   {"version":1,"host":"h","boot_id":"...","pid":17,"start_ticks":4711,"started":"2026-01-01T00:00:00.000Z",
 *    "stripe_sector_count":2048,"compression":{"kind":"zstd","level":3},"encryption_key":"..." or null,"hmac_key":"..."}
 *
 * It is no part of the archive: readers never look at it, and it goes when the run ends well.
 */
import { readFileSync } from "node:fs";
import { hostname } from "node:os";
import { type Static, Type } from "@sinclair/typebox";
import { Check } from "@sinclair/typebox/value";
import { type ArchiveKeys, unwrapKey, wrapKey } from "../archive/archive-keys.ts";
import type { ObjectStore } from "../archive/object-store.ts";
import { UbiError } from "../errors.ts";
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
}

export type RunFile = Static<typeof RunFileSchema>;

/** Who wrote the file, as far as it can be told from here. */
export interface RunOwner {
  /** "running" on this machine, "dead" there, or "elsewhere": on another machine, which cannot be looked at. */
  readonly state: "running" | "dead" | "elsewhere";
  /** `process 17 on HOST, since TIME`. */
  readonly text: string;
}

/** The file of this process. */
export function encodeRunFile(
  { parameters, keys }: EarlierRun,
  kek: Uint8Array | undefined,
): Uint8Array {
  const { stripeSectors, compression } = parameters;
  const content: RunFile = {
    version: 1,
    host: hostname(),
    boot_id: bootId(),
    pid: process.pid,
    start_ticks: startTicks(process.pid) ?? 0,
    started: new Date().toISOString(),
    stripe_sector_count: stripeSectors,
    compression,
    encryption_key: keys.xtsKey === undefined ? null : wrapKey(keys.xtsKey, kek).toBase64(),
    hmac_key: wrapKey(keys.hmacKey, kek).toBase64(),
  };
  return new TextEncoder().encode(`${JSON.stringify(content)}\n`);
}

/**
 * The file of an earlier run; undefined when there is none.
 * @throws UbiError E_ARCHIVE_RUN when it is not what it should be, E_STORE
 */
export async function readRunFile(
  store: ObjectStore,
  signal: AbortSignal | undefined,
): Promise<RunFile | undefined> {
  const bytes = await store.get(RUN_KEY, { lengthMax: BYTES_MAX, signal });
  if (bytes === undefined) {
    return undefined;
  }
  const content = parse(bytes);
  if (!Check(RunFileSchema, content)) {
    const advice = "it is damaged, or of a later version; remove it to begin anew";
    throw new UbiError("E_ARCHIVE_RUN", `cannot read ${RUN_KEY} in ${store.name}: ${advice}`);
  }
  return content;
}

/** @throws UbiError E_ARCHIVE_KEY when the KEK is not the one of that run */
export function earlierRun(file: RunFile, kek: Uint8Array | undefined): EarlierRun {
  const { stripe_sector_count: stripeSectors, compression, encryption_key: xtsKey } = file;
  const keyOf = (what: string, text: string, keyBytes: number) =>
    unwrapKey({ stored: Uint8Array.fromBase64(text), what, keyBytes, kek });
  return {
    parameters: { stripeSectors, compression, isEncrypted: xtsKey !== null },
    keys: {
      xtsKey: xtsKey === null ? undefined : keyOf("encryption_key", xtsKey, XTS_KEY_BYTES),
      hmacKey: keyOf("hmac_key", file.hmac_key, HMAC_KEY_BYTES),
    },
  };
}

export function ownerOf(file: RunFile): RunOwner {
  const text = `process ${file.pid} on ${file.host}, since ${file.started}`;
  if (file.host !== hostname()) {
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

const RunFileSchema = Type.Object({
  version: Type.Literal(1),
  host: shown(256),
  boot_id: shown(64),
  pid: Type.Integer({ minimum: 1 }),
  start_ticks: Type.Integer({ minimum: 0 }),
  started: shown(64),
  stripe_sector_count: Type.Integer({ minimum: 1 }),
  compression: Type.Union([
    Type.Object({ kind: Type.Literal("none") }),
    Type.Object({ kind: Type.Literal("zstd"), level: Type.Integer() }),
  ]),
  encryption_key: Type.Union([base64, Type.Null()]),
  hmac_key: base64,
});

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
