/**
 * The configuration of disks of version 0.2: a YAML file, and another one for the key that its keys are wrapped
 * with. Keys of the files that are not named here are ignored, as they were then.
 *
 *   path, image_path, metadata_path, track_written, encryption_key: [base64, base64]
 *   method: none | aes256-gcm, key, init_vector, auth_data: base64
 */
import { createDecipheriv } from "node:crypto";
import { Base64Error, decodeBase64 } from "../config/base64.ts";
import { readBounded } from "../config/bounded-read.ts";
import { permissionProblem } from "../config/file-permissions.ts";
import type { DeviceConfig } from "../config/index.ts";
import { errorText, UbiError } from "../errors.ts";
import { log } from "../log.ts";

export interface LegacyConfig {
  readonly config: Pick<DeviceConfig, "device" | "stripeSource">;
  /** 64 bytes, the reader's to wipe; undefined for a plain disk. */
  readonly xtsKey: Uint8Array | undefined;
}

/**
 * Paths in the file are relative to the working directory.
 * @param kekPath of the file with the key that wraps the keys; none where they are in clear
 * @throws UbiError E_CONFIG_READ, E_CONFIG_SYNTAX, E_CONFIG, E_CONFIG_VALUE, E_SECRET_SIZE, E_SECRET_ENVELOPE
 */
export async function loadLegacyConfig(
  path: string,
  kekPath: string | undefined,
): Promise<LegacyConfig> {
  const document = new YamlDocument(path, await readYaml(path));
  const dataPath = document.text("path");
  if (dataPath === undefined) {
    throw new UbiError("E_CONFIG", `${path}: path: missing: this key is required`);
  }
  const imagePath = document.text("image_path");
  const metadataPath = document.text("metadata_path");
  const wrapped = document.bytesList("encryption_key");
  const kek = kekPath === undefined ? PLAIN : await loadKek(kekPath);
  return {
    config: {
      device: {
        dataPath,
        trackWritten: document.flag("track_written"),
        deviceId: "ubiblk",
        readOnly: true,
        ...(metadataPath === undefined ? {} : { metadataPath }),
      },
      ...(imagePath === undefined ? {} : { stripeSource: rawSource(imagePath) }),
    },
    xtsKey: wrapped === undefined ? undefined : unwrapKeys(path, wrapped, kek),
  };
}

// --- internal ---

function rawSource(imagePath: string): NonNullable<DeviceConfig["stripeSource"]> {
  return { type: "raw", imagePath, autofetch: false, copyOnRead: false };
}

const FILE_BYTES_MAX = 1 << 20;
const READ_TIMEOUT_MS = 300_000;
const KEY_BYTES = 32;
const NONCE_BYTES = 12;
const TAG_BYTES = 16;

type Kek =
  | { readonly method: "none" }
  | {
      readonly method: "aes256-gcm";
      readonly key: Uint8Array;
      readonly nonce: Uint8Array;
      readonly context: Uint8Array;
    };

const PLAIN: Kek = { method: "none" };

async function loadKek(path: string): Promise<Kek> {
  const document = new YamlDocument(path, await readYaml(path));
  const method = document.text("method") ?? "none";
  if (method === "none") {
    return PLAIN;
  }
  if (method !== "aes256-gcm") {
    throw document.problem("method", 'one of "none", "aes256-gcm" is expected');
  }
  const key = document.bytes("key");
  const nonce = document.bytes("init_vector");
  if (key?.length !== KEY_BYTES) {
    throw document.problem("key", `${KEY_BYTES} bytes in base64 are expected`);
  }
  if (nonce?.length !== NONCE_BYTES) {
    throw document.problem("init_vector", `${NONCE_BYTES} bytes in base64 are expected`);
  }
  return { method, key, nonce, context: document.bytes("auth_data") ?? new Uint8Array(0) };
}

/** The two keys of 32 bytes, one behind the other. */
function unwrapKeys(path: string, wrapped: readonly Uint8Array[], kek: Kek): Uint8Array {
  const where = `${path}: encryption_key`;
  if (wrapped.length !== 2) {
    throw new UbiError("E_CONFIG_VALUE", `${where}: exactly two keys in base64 are expected`);
  }
  const whole = new Uint8Array(2 * KEY_BYTES);
  for (const [index, bytes] of wrapped.entries()) {
    const key = kek.method === "none" ? bytes : unwrap(where, bytes, kek);
    if (key.length !== KEY_BYTES) {
      const sizes = `key ${index + 1} has ${key.length} bytes; ${KEY_BYTES} are expected`;
      const hint = kek.method === "none" ? ": name the --legacy-kek if it is wrapped" : "";
      throw new UbiError("E_SECRET_SIZE", `${where}: ${sizes}${hint}`);
    }
    whole.set(key, index * KEY_BYTES);
    key.fill(0);
    bytes.fill(0);
  }
  if (kek.method !== "none") {
    kek.key.fill(0);
  }
  return whole;
}

/** Ciphertext and tag; the nonce is that of the key that wraps. */
function unwrap(
  where: string,
  bytes: Uint8Array,
  kek: Extract<Kek, { method: "aes256-gcm" }>,
): Uint8Array {
  const end = bytes.length - TAG_BYTES;
  if (end < 0) {
    throw new UbiError("E_SECRET_ENVELOPE", `${where}: a wrapped key is too short`);
  }
  const cipher = createDecipheriv("aes-256-gcm", kek.key, kek.nonce, { authTagLength: TAG_BYTES });
  cipher.setAAD(kek.context);
  cipher.setAuthTag(bytes.subarray(end));
  const content = cipher.update(bytes.subarray(0, end));
  try {
    cipher.final();
    return Uint8Array.from(content);
  } catch (cause) {
    const why = "wrong --legacy-kek, or damaged";
    throw new UbiError("E_SECRET_ENVELOPE", `${where}: a key is not authentic: ${why}`, { cause });
  } finally {
    content.fill(0);
  }
}

async function readYaml(path: string): Promise<unknown> {
  const bytes = await readFile(path);
  if (bytes.length > FILE_BYTES_MAX) {
    throw new UbiError("E_CONFIG_READ", `${path}: longer than ${FILE_BYTES_MAX} bytes`);
  }
  try {
    return Bun.YAML.parse(new TextDecoder("utf-8", { fatal: true }).decode(bytes));
  } catch {
    // The parser's own words may quote a key.
    throw new UbiError("E_CONFIG_SYNTAX", `${path}: this is no YAML; one document is expected`);
  } finally {
    bytes.fill(0);
  }
}

async function readFile(path: string): Promise<Uint8Array> {
  try {
    return await readBounded(path, {
      bytesMax: FILE_BYTES_MAX,
      timeoutMs: READ_TIMEOUT_MS,
      what: `configuration ${path}`,
      inspect: (stats) => {
        const problem = permissionProblem(path, stats);
        if (problem?.isFatal === true) {
          throw new UbiError("E_CONFIG_READ", problem.message);
        }
        if (problem !== undefined) {
          log.warn(problem.message);
        }
      },
    });
  } catch (error) {
    if (error instanceof UbiError) {
      throw error;
    }
    throw new UbiError("E_CONFIG_READ", `cannot read ${path}: ${errorText(error)}`, {
      cause: error,
    });
  }
}

/** Values of a file by their types; what is null or not there is undefined. */
class YamlDocument {
  readonly #path: string;
  readonly #values: Readonly<Record<string, unknown>>;

  constructor(path: string, content: unknown) {
    this.#path = path;
    if (typeof content !== "object" || content === null || Array.isArray(content)) {
      throw new UbiError("E_CONFIG_SYNTAX", `${path}: keys with values are expected`);
    }
    this.#values = { ...content };
  }

  problem(key: string, what: string): UbiError {
    return new UbiError("E_CONFIG_VALUE", `${this.#path}: ${key}: ${what}`);
  }

  text(key: string): string | undefined {
    const value = this.#values[key] ?? undefined;
    if (value === undefined || (typeof value === "string" && value !== "")) {
      return value;
    }
    throw this.problem(key, "a text is expected");
  }

  flag(key: string): boolean {
    const value = this.#values[key] ?? false;
    if (typeof value === "boolean") {
      return value;
    }
    throw this.problem(key, "true or false is expected");
  }

  bytes(key: string): Uint8Array | undefined {
    const value = this.text(key);
    return value === undefined ? undefined : this.#decode(key, value);
  }

  bytesList(key: string): readonly Uint8Array[] | undefined {
    const value = this.#values[key] ?? undefined;
    if (value === undefined) {
      return undefined;
    }
    if (!Array.isArray(value)) {
      throw this.problem(key, "a list is expected");
    }
    return value.map((item: unknown) => {
      if (typeof item !== "string") {
        throw this.problem(key, "texts in base64 are expected");
      }
      return this.#decode(key, item);
    });
  }

  // --- internal ---

  #decode(key: string, text: string): Uint8Array {
    try {
      return decodeBase64(new TextEncoder().encode(text));
    } catch (error) {
      if (error instanceof Base64Error) {
        throw this.problem(key, `this is no base64: ${error.message}`);
      }
      throw error;
    }
  }
}
