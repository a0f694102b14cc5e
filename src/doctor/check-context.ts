/**
 * What checks share: what was asked for, the configuration and its secrets, each read once and when it is first
 * needed. A secret that can be read only once, from a pipe, is left to the backend unless the user says otherwise.
 */
import { statSync } from "node:fs";
import type { SecretDeclaration } from "../config/declared-secrets.ts";
import type { DeviceConfig } from "../config/index.ts";
import type { ResolvedSecrets } from "../config/resolve-secrets.ts";
import { fileOf } from "../config/secret-sources.ts";
import { errorText, UbiErrors } from "../errors.ts";
import type { Metadata } from "../formats/metadata.ts";

export interface CheckOptions {
  readonly configPath: string | undefined;
  /** Nothing is asked over the network. */
  readonly isOffline: boolean;
  /** Secrets are read also where that uses them up. */
  readonly maySpendSecrets: boolean;
}

export type SecretsAnswer =
  | { readonly kind: "read"; readonly secrets: ResolvedSecrets }
  /** `why` is one line. Only trying to read them is a failure. */
  | { readonly kind: "unread"; readonly why: string; readonly isFailure: boolean };

type User = "encryption" | "stripe_source";

export class CheckContext {
  readonly options: CheckOptions;
  /** Of the disk, once it was read. */
  metadata: Metadata | undefined;
  #config: Promise<DeviceConfig> | undefined;
  readonly #secrets = new Map<string, Promise<ResolvedSecrets>>();

  constructor(options: CheckOptions) {
    this.options = options;
  }

  /** @throws UbiErrors with every mistake of the document */
  config(): Promise<DeviceConfig> {
    this.#config ??= loadConfig(this.options.configPath ?? "");
    return this.#config;
  }

  /** The secrets that a section names. */
  async secretsOf(user: User): Promise<SecretsAnswer> {
    const config = await this.config();
    const credentials = secretsBehind(config, user, isWithheld);
    if (credentials.length > 0) {
      const names = credentials.join(", ");
      const why = `not read: ${names} comes from a credential, which only the service gets`;
      return { kind: "unread", why, isFailure: false };
    }
    const pipes = this.options.maySpendSecrets ? [] : secretsBehind(config, user, isReadOnce);
    if (pipes.length > 0) {
      const names = pipes.join(", ");
      const why = `not read: ${names} can be read only once; --secrets does it`;
      return { kind: "unread", why, isFailure: false };
    }
    try {
      return { kind: "read", secrets: await this.#resolve(config, user) };
    } catch (error) {
      return { kind: "unread", why: failureText(error), isFailure: true };
    }
  }

  // --- internal ---

  /** A key that both sections need is in one pipe: then both are read in one go. */
  #resolve(config: DeviceConfig, user: User): Promise<ResolvedSecrets> {
    const users: readonly User[] = this.options.maySpendSecrets
      ? ["encryption", "stripe_source"]
      : [user];
    const key = users.join();
    const known = this.#secrets.get(key);
    if (known !== undefined) {
      return known;
    }
    const reading = readSecrets(config, users);
    this.#secrets.set(key, reading);
    return reading;
  }
}

// --- internal ---

/** Under the time that a whole subject has. */
const WRITER_WAIT_MS = 3_000;

function failureText(error: unknown): string {
  if (error instanceof DOMException && error.name === "TimeoutError") {
    return `a pipe has no writer: nothing came within ${WRITER_WAIT_MS / 1000} s`;
  }
  return error instanceof UbiErrors ? error.errors.map(errorText).join("; ") : errorText(error);
}

/**
 * A pipe, or something of that kind, gives a secret away with the first reading. What is wrong with a source is told
 * when it is read.
 */
function isReadOnce(source: SecretDeclaration["source"]): boolean {
  try {
    const file = fileOf(source);
    return file !== undefined && !statSync(file).isFile();
  } catch {
    return false;
  }
}

/** A service manager hands a credential to the service alone: who examines from a shell does not see it. */
export function isWithheld({ credential }: SecretDeclaration["source"]): boolean {
  return credential !== undefined && process.env.CREDENTIALS_DIRECTORY === undefined;
}

/** The secrets behind a section whose source is such a one. */
function secretsBehind(
  { secrets }: DeviceConfig,
  user: string,
  isSuch: (source: SecretDeclaration["source"]) => boolean,
): readonly string[] {
  const names = secrets.uses
    .filter((use) => use.path[0] === user)
    .flatMap((use) => secrets.chain(use.name));
  return [...new Set(names)].filter((name) => {
    const source = secrets.declaration(name)?.source;
    return source !== undefined && isSuch(source);
  });
}

async function loadConfig(path: string): Promise<DeviceConfig> {
  const { loadDeviceConfig } = await import("../config/index.ts");
  return await loadDeviceConfig(path, {}, AbortSignal.timeout(WRITER_WAIT_MS));
}

async function readSecrets(config: DeviceConfig, users: readonly User[]): Promise<ResolvedSecrets> {
  const { resolveSecrets } = await import("../config/index.ts");
  return await resolveSecrets(config, users, AbortSignal.timeout(WRITER_WAIT_MS));
}
