/** How `ubiblk config check` tells what it found. */
import { ConfigError } from "../config/config-error.ts";
import type { FlagInForce } from "../config/danger-zone.ts";
import type { EffectiveValue } from "../config/effective-values.ts";
import type { DocumentReport } from "../config/inspect-document.ts";
import type { SecretReport } from "../config/secret-report.ts";
import type { MemoryNeed } from "../doctor/memory-need.ts";
import type { UbiError } from "../errors.ts";
import { oneLine } from "../log.ts";
import { quantityText } from "./quantity-text.ts";

export interface CheckedDocument {
  readonly report: DocumentReport;
  /** Undefined for documents of programs that serve nothing. */
  readonly memory: MemoryNeed | undefined;
}

/** All in one line. */
export function jsonOf(documents: readonly CheckedDocument[]): string {
  const isValid = documents.every(({ report }) => report.errors.length === 0);
  return `${JSON.stringify({ valid: isValid, documents: documents.map(documentFacts) })}\n`;
}

/** One document, without its mistakes: those come as errors. */
export function textOf({ report, memory }: CheckedDocument): string {
  const { errors, warnings, values, secrets, dangers } = report;
  return [
    `${oneLine(report.path)}: ${verdictOf(report)}\n`,
    block("files", report.files.length > 1 ? report.files : []),
    block("values", valueLines(values.filter((value) => !isUnusedDanger(value)))),
    block("secrets", secrets.map(secretLine)),
    block("dangers in force", dangers.map(dangerLine)),
    block("memory at most, beside the program's own", memoryLines(memory)),
    block("warnings", warnings),
    errors.length === 0
      ? ""
      : `  ${errors.length} ${errors.length === 1 ? "mistake" : "mistakes"}\n`,
  ].join("");
}

// --- internal ---

/** What the danger zone does not allow is told by what it allows. */
function isUnusedDanger({ key, origin }: EffectiveValue): boolean {
  return key.startsWith("danger_zone.") && origin === undefined;
}

function memoryLines(memory: MemoryNeed | undefined): readonly string[] {
  return Object.entries(memory ?? {}).map(
    ([what, bytes]) => `${what.replaceAll("_", " ")}: ${quantityText(bytes)}`,
  );
}

function verdictOf({ kind, backend, errors }: DocumentReport): string {
  const what = kind === undefined ? "" : `, ${kind}`;
  const isForOthers = errors.every((error) => error.code === "E_CONFIG_REFERENCE");
  const refusal = isForOthers ? "valid, but not for other programs" : "not valid";
  const verdict = errors.length === 0 ? "valid" : refusal;
  const front = backend === undefined ? "" : ` for ${backend}`;
  return `${verdict}${what}${front}`;
}

function block(title: string, lines: readonly string[]): string {
  return lines.length === 0
    ? ""
    : `  ${title}:\n${lines.map((line) => `    ${oneLine(line)}\n`).join("")}`;
}

function valueLines(values: readonly EffectiveValue[]): readonly string[] {
  const texts = values.map(({ key, value }) => `${key} = ${JSON.stringify(value)}`);
  const width = Math.min(60, Math.max(0, ...texts.map((text) => text.length)));
  return values.map(({ origin }, index) => {
    const text = texts[index] ?? "";
    return `${text.padEnd(width)}  ${origin === undefined ? "default" : placeOf(origin)}`;
  });
}

function placeOf({ file, line }: { readonly file: string; readonly line?: number | undefined }) {
  return line === undefined ? file : `${file}:${line}`;
}

function secretLine(secret: SecretReport): string {
  const { name, encoding, encryptedBy, bytes, usedBy } = secret;
  const parts = [
    sourceText(secret),
    encoding,
    ...(encryptedBy.length === 0 ? [] : [`encrypted by ${encryptedBy.join(", that by ")}`]),
    bytes === undefined ? "not read" : `${bytes} bytes`,
    usedBy.length === 0 ? "used by nothing" : `used by ${usedBy.join(", ")}`,
  ];
  return `${name}: ${parts.join("; ")}`;
}

function sourceText({ source, place, fileKind }: SecretReport): string {
  switch (source) {
    case "file":
      return fileKind === "absent" || fileKind === "unknown"
        ? `file ${place} (${fileKind})`
        : `${fileKind} ${place}`;
    case "env":
      return `environment variable ${place}`;
    case "credential":
      return `credential ${place}`;
    case "inline":
      return "inline";
  }
}

function dangerLine({ flag, users }: FlagInForce): string {
  return `${flag}: used by ${users.length === 0 ? "nothing" : users.join(", ")}`;
}

function documentFacts({ report, memory }: CheckedDocument): Readonly<Record<string, unknown>> {
  const { path, kind, backend, files, errors, warnings, values, secrets, dangers } = report;
  return {
    path,
    valid: errors.length === 0,
    kind: kind ?? null,
    backend: backend ?? null,
    files,
    errors: errors.map(errorFacts),
    warnings,
    values: values.map(({ key, value, origin }) => ({
      key,
      value,
      file: origin?.file ?? null,
      line: origin?.line ?? null,
      default: origin === undefined,
    })),
    secrets: secrets.map(secretFacts),
    dangers,
    memory: memory ?? null,
  };
}

function errorFacts(error: UbiError): Readonly<Record<string, unknown>> {
  const place = error instanceof ConfigError ? error.place : undefined;
  return {
    code: error.code,
    file: place?.file ?? null,
    line: place?.line ?? null,
    key: place?.key ?? null,
    message: error.message,
  };
}

function secretFacts(secret: SecretReport): Readonly<Record<string, unknown>> {
  return {
    name: secret.name,
    source: secret.source,
    place: secret.place ?? null,
    file_kind: secret.fileKind ?? null,
    encoding: secret.encoding,
    encrypted_by: secret.encryptedBy,
    bytes: secret.bytes ?? null,
    used_by: secret.usedBy,
  };
}
