/** Fetches the bytes that a secret's `source` names and undoes their `encoding`. */
import { type Stats, statSync } from "node:fs";
import { errorText, UbiError } from "../errors.ts";
import { Base64Error, decodeBase64 } from "./base64.ts";
import { ReadTimeoutError, readBounded, systemErrorCode } from "./bounded-read.ts";
import { credentialPath, isCredential } from "./credential-folder.ts";
import type { SecretDeclaration } from "./declared-secrets.ts";
import { permissionProblem } from "./file-permissions.ts";
import { variableOf } from "./hidden-variables.ts";
import { SECRET_BYTES_MAX } from "./schema.ts";

export interface FileSourcePolicy {
  readonly mayReadRegularFiles: boolean;
  readonly warn: (message: string) => void;
  /** Ends the wait for the writer of a pipe. */
  readonly signal?: AbortSignal | undefined;
}

/**
 * Looks at a file source without opening it, so that a mistake in one secret is found before the
 * pipe of another is emptied.
 *
 * @throws UbiError E_SECRET_READ or E_CONFIG_DANGER.
 */
export function inspectFileSource(file: string, policy: FileSourcePolicy): void {
  let stats: Stats;
  try {
    stats = statSync(file);
  } catch (cause) {
    throw new UbiError("E_SECRET_READ", `cannot read ${file}: ${errorText(cause)}`, { cause });
  }
  refuseUnfit(file, stats, policy);
  const problem = isCredential(file, stats) ? undefined : permissionProblem(file, stats);
  if (problem !== undefined) {
    policy.warn(problem.message);
  }
}

/**
 * The file that a secret is read from; undefined for one that stands in the document or the environment.
 *
 * @throws UbiError E_SECRET_READ
 */
export function fileOf(source: SecretDeclaration["source"]): string | undefined {
  return source.credential === undefined ? source.file : credentialPath(source.credential);
}

/**
 * Reads and decodes one secret; the caller owns the bytes.
 *
 * @throws UbiError E_SECRET_READ, E_CONFIG_DANGER, E_SECRET or E_SECRET_SIZE, without the bytes.
 */
export async function readSecretSource(
  name: string,
  declaration: SecretDeclaration,
  policy: FileSourcePolicy,
): Promise<Uint8Array> {
  const raw = await readRaw(name, declaration, policy);
  try {
    const bytes = declaration.encoding === "base64" ? decode(raw) : raw.slice();
    if (bytes.length > SECRET_BYTES_MAX || raw.length > RAW_BYTES_MAX) {
      bytes.fill(0);
      const message = `too large: a secret has at most ${SECRET_BYTES_MAX} bytes`;
      throw new UbiError("E_SECRET_SIZE", message);
    }
    return bytes;
  } finally {
    raw.fill(0);
  }
}

/**
 * Reads a file or pipe that holds a secret; the caller owns the bytes. One byte more than `bytesMax` may come.
 *
 * @throws UbiError E_SECRET_READ or E_CONFIG_DANGER; the reason of the policy's signal
 */
export async function readSecretFile(
  file: string,
  limits: { readonly what: string; readonly bytesMax: number; readonly timeoutMs: number },
  policy: FileSourcePolicy,
): Promise<Uint8Array> {
  try {
    return await readBounded(file, {
      ...limits,
      inspect: (stats) => refuseUnfit(file, stats, policy),
      signal: policy.signal,
    });
  } catch (cause) {
    if (cause instanceof ReadTimeoutError) {
      const hint = "start its writer, or raise pipe_timeout_ms";
      throw new UbiError("E_SECRET_READ", `cannot read ${file}: ${cause.message}; ${hint}`);
    }
    if (!(cause instanceof UbiError) && systemErrorCode(cause) !== undefined) {
      throw new UbiError("E_SECRET_READ", `cannot read ${file}: ${errorText(cause)}`, { cause });
    }
    throw cause;
  }
}

// --- internal ---

/** Of a secret after decoding; for an encrypted one, of its envelope. */
/** Base64 of the largest secret (10924 characters) with room for line breaks. */
const RAW_BYTES_MAX = 16_384;

async function readRaw(
  name: string,
  { source, pipe_timeout_ms }: SecretDeclaration,
  policy: FileSourcePolicy,
): Promise<Uint8Array> {
  const file = fileOf(source);
  if (file !== undefined) {
    const what = `secret ${JSON.stringify(name)}`;
    const limits = { what, bytesMax: RAW_BYTES_MAX, timeoutMs: pipe_timeout_ms };
    return await readSecretFile(file, limits, policy);
  }
  if (source.env !== undefined) {
    return readEnvironment(source.env);
  }
  return new TextEncoder().encode(source.inline);
}

function readEnvironment(variable: string): Uint8Array {
  const value = variableOf(variable);
  if (value === undefined) {
    throw new UbiError("E_SECRET_READ", `environment variable ${variable} is not set`);
  }
  if (value.includes("\uFFFD")) {
    throw new UbiError("E_SECRET_READ", `environment variable ${variable} is not valid UTF-8`);
  }
  return new TextEncoder().encode(value);
}

function refuseUnfit(file: string, stats: Stats, policy: FileSourcePolicy): void {
  if (stats.isDirectory()) {
    throw new UbiError("E_SECRET_READ", `cannot read ${file}: it is a directory`);
  }
  if (isCredential(file, stats)) {
    return;
  }
  if (stats.isFile() && !policy.mayReadRegularFiles) {
    throw new UbiError("E_CONFIG_DANGER", `${file} ${REGULAR_FILE_REFUSED}`);
  }
  const problem = permissionProblem(file, stats);
  if (problem?.isFatal === true) {
    throw new UbiError("E_SECRET_READ", problem.message);
  }
}

const REGULAR_FILE_REFUSED =
  "is a regular file, which stays on the disk: that is not allowed (not even for an encrypted " +
  "secret; an encrypted one may stand inline). Use a pipe or a credential of the service, or set " +
  "danger_zone.enabled with danger_zone.allow_secret_over_regular_file";

function decode(raw: Uint8Array): Uint8Array {
  try {
    return decodeBase64(raw);
  } catch (cause) {
    if (cause instanceof Base64Error) {
      throw new UbiError("E_SECRET", `invalid base64: ${cause.message}`);
    }
    throw cause;
  }
}
