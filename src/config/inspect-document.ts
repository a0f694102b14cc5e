/**
 * Looks at a document as the program would that is given it, and tells what it says: mistakes,
 * warnings, values with their origins, secrets, dangers. It opens nothing but the document's files and,
 * where that is asked for, the sources of its secrets.
 */
import type { TObject } from "@sinclair/typebox";
import { UbiError, UbiErrors } from "../errors.ts";
import { ConfigError } from "./config-error.ts";
import type { FlagInForce } from "./danger-zone.ts";
import { DOCUMENT_KINDS, type DocumentKind } from "./document-kinds.ts";
import {
  ARCHIVE_RULES,
  type DeviceConfigOptions,
  deviceRules,
  KEY_RULES,
  SERVER_RULES,
  TARGET_RULES,
} from "./document-rules.ts";
import {
  type EffectiveValue,
  effectiveValues,
  keysUnknownToReference,
} from "./effective-values.ts";
import { dottedKey, type KeyPath } from "./key-positions.ts";
import {
  type DeviceConfig,
  deviceConfigOf,
  type ServerConfig,
  serverConfigOf,
} from "./load-config.ts";
import { checkDocument, type LoadedDocument, type LoadRules } from "./load-document.ts";
import type { SecretUser } from "./resolve-secrets.ts";
import {
  describeSecrets,
  inspectSecrets,
  reportSecrets,
  type SecretReport,
} from "./secret-report.ts";
import { readSourceDocument, type SourceDocument } from "./source-files.ts";

/** `key`: a device document without `[device]`, for programs that only need the key. */
type InspectedKind = DocumentKind | "key";

export interface InspectionOptions {
  /** Found by itself when it is undefined. */
  readonly kind: InspectedKind | undefined;
  /** The front end that the document is for; undefined: the one that it has a socket for. */
  readonly backend: DeviceConfigOptions["backend"];
  /** Otherwise no source of a secret is opened. */
  readonly mayReadSecrets: boolean;
  /** Keys that the reference implementation rejects are mistakes. */
  readonly isForReference: boolean;
  readonly signal: AbortSignal;
}

export interface DocumentReport {
  readonly path: string;
  readonly kind: InspectedKind | undefined;
  readonly backend: DeviceConfigOptions["backend"];
  /** The root file and those that it includes. */
  readonly files: readonly string[];
  readonly errors: readonly UbiError[];
  readonly warnings: readonly string[];
  /** Like all below, empty for a document that programs would refuse. */
  readonly values: readonly EffectiveValue[];
  readonly secrets: readonly SecretReport[];
  readonly dangers: readonly FlagInForce[];
  readonly device: DeviceConfig | undefined;
  readonly server: ServerConfig | undefined;
}

export async function inspectDocument(
  path: string,
  options: InspectionOptions,
): Promise<DocumentReport> {
  const inspection = new Inspection(path, options);
  await inspection.run();
  return inspection.report;
}

// --- internal ---

const USERS: Readonly<Record<InspectedKind, readonly SecretUser[]>> = {
  device: ["encryption", "stripe_source"],
  key: ["encryption"],
  target: ["target"],
  archive: ["archive"],
  server: ["server"],
};

type Found = Partial<
  Pick<
    DocumentReport,
    "kind" | "backend" | "files" | "values" | "secrets" | "dangers" | "device" | "server"
  >
>;

class Inspection {
  readonly #path: string;
  readonly #options: InspectionOptions;
  readonly #errors: UbiError[] = [];
  readonly #warnings: string[] = [];
  #found: Found = {};

  constructor(path: string, options: InspectionOptions) {
    this.#path = path;
    this.#options = options;
  }

  get report(): DocumentReport {
    const { kind, backend, files = [], values = [], secrets = [], dangers = [] } = this.#found;
    const { device, server } = this.#found;
    const errors = this.#errors;
    const warnings = this.#warnings;
    const path = this.#path;
    return {
      path,
      kind,
      backend,
      files,
      errors,
      warnings,
      values,
      secrets,
      dangers,
      device,
      server,
    };
  }

  async run(): Promise<void> {
    try {
      const source = await readSourceDocument(this.#path, this.#options.signal);
      const kind = this.#options.kind ?? kindOf(source);
      this.#found = { kind, files: source.files };
      await this.#check(kind, source);
    } catch (error) {
      this.#note(error);
    }
  }

  async #check(kind: InspectedKind, source: SourceDocument): Promise<void> {
    switch (kind) {
      case "device": {
        const backend = this.#options.backend ?? backendOf(source);
        const loaded = await this.#checkBy(
          kind,
          source,
          deviceRules(backend === undefined ? {} : { backend }),
        );
        this.#found = { ...this.#found, backend, device: deviceConfigOf(loaded) };
        return;
      }
      case "key":
        await this.#checkBy(kind, source, KEY_RULES);
        return;
      case "target":
        await this.#checkBy(kind, source, TARGET_RULES);
        return;
      case "archive":
        await this.#checkBy(kind, source, ARCHIVE_RULES);
        return;
      case "server": {
        const loaded = await this.#checkBy(kind, source, SERVER_RULES);
        this.#found = { ...this.#found, server: serverConfigOf(loaded) };
      }
    }
  }

  async #checkBy<Schema extends TObject>(
    kind: InspectedKind,
    source: SourceDocument,
    rules: LoadRules<Schema>,
  ): Promise<LoadedDocument<Schema>> {
    const loaded = checkDocument(source, rules, (warning) => this.#warnings.push(warning));
    const values: Readonly<Record<string, unknown>> = loaded.values;
    if (this.#options.isForReference) {
      this.#refuseUnknownKeys(rules.schema, values, source);
      if (kind === "key") {
        this.#refuseForReference(source, ["device"], "missing: other programs need the section");
      }
    }
    this.#found = {
      ...this.#found,
      values: effectiveValues(rules.schema, values, source),
      dangers: loaded.gate.inForce,
      secrets: describeSecrets(loaded.secrets),
    };
    const { mayReadSecrets, signal } = this.#options;
    if (mayReadSecrets) {
      const secrets = await reportSecrets(loaded.secrets, USERS[kind], signal);
      this.#found = { ...this.#found, secrets };
      this.#noteEmptiedPipes(secrets);
    } else {
      inspectSecrets(loaded.secrets);
    }
    return loaded;
  }

  #noteEmptiedPipes(secrets: readonly SecretReport[]): void {
    const emptied = secrets.filter(
      ({ fileKind, bytes }) => fileKind === "named pipe" && bytes !== undefined,
    );
    for (const { name, place } of emptied) {
      this.#warnings.push(
        `secret ${JSON.stringify(name)} was read from the named pipe ${place}: its writer has to write again`,
      );
    }
  }

  #refuseUnknownKeys(
    schema: TObject,
    values: Readonly<Record<string, unknown>>,
    source: SourceDocument,
  ): void {
    for (const path of keysUnknownToReference(schema, values, source)) {
      this.#refuseForReference(
        source,
        path,
        "other programs that read this format refuse this key",
      );
    }
  }

  #refuseForReference({ originOf }: SourceDocument, path: KeyPath, reason: string): void {
    const { file, line } = originOf(path);
    const place = { file, line, key: dottedKey(path) };
    this.#errors.push(new ConfigError("E_CONFIG_REFERENCE", place, reason));
  }

  /** Mistakes of the document end its inspection; anything else, that of the program. */
  #note(error: unknown): void {
    if (this.#options.signal.aborted) {
      throw error;
    }
    if (error instanceof UbiErrors) {
      this.#errors.push(...error.errors);
    } else if (error instanceof UbiError) {
      this.#errors.push(error);
    } else {
      throw error;
    }
  }
}

/** @throws UbiError E_CONFIG when no section tells it */
function kindOf({ table, files }: SourceDocument): InspectedKind {
  const kind = DOCUMENT_KINDS.find((section) => Object.hasOwn(table, section));
  if (kind === undefined && !Object.hasOwn(table, "encryption")) {
    const sections = DOCUMENT_KINDS.map((name) => `[${name}]`).join(", ");
    const reason = `no section tells what it is for: one of ${sections} is expected; or give --kind`;
    throw new ConfigError("E_CONFIG", { file: files[0] ?? "" }, reason);
  }
  return kind ?? "key";
}

/** A socket says that the document is for vhost; without one it may be for any command. */
function backendOf({ isWritten }: SourceDocument): DeviceConfigOptions["backend"] {
  return isWritten(["device", "vhost_socket"]) ? "vhost" : undefined;
}
