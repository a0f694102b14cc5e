/** What is told of the secrets of a document: where each comes from and how long it is, never its bytes. */
import { statSync } from "node:fs";
import { UbiError } from "../errors.ts";
import { systemErrorCode } from "./bounded-read.ts";
import type { DeclaredSecrets, SecretDeclaration } from "./declared-secrets.ts";
import { KEK_BYTES } from "./envelope.ts";
import type { Findings } from "./findings.ts";
import { dottedKey, type KeyPath } from "./key-positions.ts";
import { resolveSecrets, type SecretUser } from "./resolve-secrets.ts";
import { type FileSourcePolicy, fileOf, inspectFileSource } from "./secret-sources.ts";

export interface SecretReport {
  readonly name: string;
  /** The key of `source`. */
  readonly source: "file" | "inline" | "env" | "credential";
  /** The file, the variable or the name of the credential. */
  readonly place: string | undefined;
  /** What is at the place of a file, as far as that can be seen. */
  readonly fileKind: FileKind | undefined;
  readonly encoding: "plaintext" | "base64";
  /** The secrets that it is encrypted with, the nearest first. */
  readonly encryptedBy: readonly string[];
  /** Once it was decoded and unwrapped; undefined for one that was not read. */
  readonly bytes: number | undefined;
  /** The keys that refer to it, those of other secrets among them. */
  readonly usedBy: readonly string[];
}

type FileKind =
  | "named pipe"
  | "regular file"
  | "device"
  | "folder"
  | "other"
  | "absent"
  | "unknown";

/** Reads the secrets that programs need of a document, and tells how long each is. The bytes are wiped. */
export async function reportSecrets(
  secrets: DeclaredSecrets,
  users: readonly SecretUser[],
  signal: AbortSignal,
): Promise<readonly SecretReport[]> {
  const reports = describeSecrets(secrets);
  using resolved = await resolveSecrets({ secrets }, users, signal);
  const names = new Set(
    secrets.uses
      .filter(({ path }) => users.some((user) => user === path[0]))
      .map((use) => use.name),
  );
  const keks = new Set([...names].flatMap((name) => secrets.chain(name).slice(0, -1)));
  return reports.map((report) => {
    const { name } = report;
    const bytes = names.has(name) ? resolved.get({ ref: name }).length : undefined;
    return { ...report, bytes: bytes ?? (keks.has(name) ? KEK_BYTES : undefined) };
  });
}

/**
 * Looks at the secrets of a document without reading any.
 *
 * @throws UbiErrors with every source that every program would refuse; what cannot be looked at now is a warning
 */
export function inspectSecrets(secrets: DeclaredSecrets): void {
  const findings = secrets.newFindings();
  const policy = {
    mayReadRegularFiles: secrets.isAllowed("allow_secret_over_regular_file"),
    warn: (message: string) => findings.note(message),
  };
  for (const name of new Set(secrets.uses.flatMap((use) => secrets.chain(use.name)))) {
    const source = secrets.declaration(name)?.source;
    const path = ["secrets", name, "source"];
    const file = source === undefined ? undefined : fileOrWhyNot(source);
    if (file instanceof UbiError) {
      findings.warn(path, `is not there now: ${file.message}`);
    } else if (file !== undefined) {
      inspectFile(file, policy, path, findings);
    }
  }
  findings.finish();
}

/** Tells what the document says of its secrets, and what is at the places of files. */
export function describeSecrets(secrets: DeclaredSecrets): readonly SecretReport[] {
  return secrets.names.flatMap((name) => {
    const declaration = secrets.declaration(name);
    if (declaration === undefined) {
      return [];
    }
    const { source, encoding } = declaration;
    return [
      {
        name,
        source: sourceOf(source),
        place: source.file ?? source.env ?? source.credential,
        fileKind: source.file === undefined ? undefined : fileKindOf(source.file),
        encoding,
        encryptedBy: secrets.chain(name).slice(0, -1).reverse(),
        bytes: undefined,
        usedBy: usersOf(name, secrets),
      },
    ];
  });
}

// --- internal ---

function fileOrWhyNot(source: SecretDeclaration["source"]): string | UbiError | undefined {
  try {
    return fileOf(source);
  } catch (error) {
    if (error instanceof UbiError) {
      return error;
    }
    throw error;
  }
}

function inspectFile(
  file: string,
  policy: FileSourcePolicy,
  path: KeyPath,
  findings: Findings,
): void {
  try {
    inspectFileSource(file, policy);
  } catch (error) {
    if (!(error instanceof UbiError)) {
      throw error;
    }
    // The program may be started later, elsewhere, or as another user.
    if (systemErrorCode(error.cause) === undefined) {
      findings.error(error.code, path, error.message);
    } else {
      findings.warn(path, `is not there now: ${error.message}`);
    }
  }
}

function sourceOf(source: SecretDeclaration["source"]): SecretReport["source"] {
  if (source.file !== undefined) {
    return "file";
  }
  if (source.env !== undefined) {
    return "env";
  }
  return source.credential === undefined ? "inline" : "credential";
}

function usersOf(name: string, secrets: DeclaredSecrets): readonly string[] {
  const sections = secrets.uses
    .filter((use) => use.name === name)
    .map((use) => dottedKey(use.path));
  const wrapped = secrets.names
    .filter((other) => secrets.declaration(other)?.encrypted_by?.ref === name)
    .map((other) => dottedKey(["secrets", other]));
  return [...sections, ...wrapped];
}

function fileKindOf(file: string): FileKind {
  try {
    const stats = statSync(file);
    if (stats.isFIFO()) {
      return "named pipe";
    }
    if (stats.isCharacterDevice() || stats.isBlockDevice()) {
      return "device";
    }
    return stats.isFile() ? "regular file" : stats.isDirectory() ? "folder" : "other";
  } catch (error) {
    return systemErrorCode(error) === "ENOENT" ? "absent" : "unknown"; // why, is told where it is read
  }
}
