/**
 * Loads a document of any kind: reads the files, checks everything that needs no secret, and reports
 * all mistakes at once. Secrets are only looked at as declarations here; see resolve-secrets.ts.
 */
import type { Static, TObject, TSchema } from "@sinclair/typebox";
import { Check } from "@sinclair/typebox/value";
import { assert } from "../errors.ts";
import { DANGER_ZONE_OFF, DangerGate } from "./danger-zone.ts";
import { DeclaredSecrets, type SecretDeclaration, type SecretUse } from "./declared-secrets.ts";
import { Findings, type TellWarning } from "./findings.ts";
import { nearestName } from "./nearest-name.ts";
import { DangerZoneSection, SecretSection } from "./schema.ts";
import { annotatedValues, checkSection, secretSizeOf } from "./section-check.ts";
import { joinPath, readSourceDocument, type SourceDocument } from "./source-files.ts";
import { emptyTable, isTable, type TomlTable, typeName } from "./toml.ts";

/** What tells the kinds of documents apart. */
const MAIN_SECTIONS = ["device", "target", "archive", "server", "encryption"] as const;

export interface LoadRules<Schema extends TObject> {
  readonly schema: Schema;
  /** Sections whose relative paths stay relative to the working directory. */
  readonly unresolvedSections?: readonly string[];
  /** The schema has some sections of the document only: others may stand in it, and use its secrets. */
  readonly isPart?: boolean;
  /** Rules between keys. A section that does not fit its schema is absent from `sections`. */
  readonly check: (context: RuleContext<Schema>) => void;
}

export interface RuleContext<Schema extends TObject> {
  readonly sections: Partial<Static<Schema>>;
  /** A value that fits its schema, or its default, whatever else is wrong in its section; undefined for none. */
  readonly fitting: (section: string, key: string) => unknown;
  /** Whether the section stands in the document, well-formed or not. */
  readonly isPresent: (section: string) => boolean;
  readonly gate: DangerGate;
  readonly findings: Findings;
}

export interface LoadedDocument<Schema extends TObject> {
  readonly values: Static<Schema>;
  readonly secrets: DeclaredSecrets;
  /** What the document allows, and uses of it. */
  readonly gate: DangerGate;
  /** Those that the document was read from, then all paths in it: what no tool may write over. */
  readonly files: readonly string[];
  /** Told already. */
  readonly warnings: readonly string[];
}

/**
 * Loads and checks the document at `path`.
 *
 * @param signal ends the wait for the writer of a pipe
 * @throws UbiErrors with every mistake found; the signal's reason
 */
export async function loadDocument<Schema extends TObject>(
  path: string,
  rules: LoadRules<Schema>,
  signal?: AbortSignal,
): Promise<LoadedDocument<Schema>> {
  return checkDocument(await readSourceDocument(path, signal), rules);
}

/**
 * Checks a document whose files were read.
 *
 * @param tell gets the warnings; the log, if nobody else
 * @throws UbiErrors with every mistake found.
 */
export function checkDocument<Schema extends TObject>(
  source: SourceDocument,
  rules: LoadRules<Schema>,
  tell?: TellWarning,
): LoadedDocument<Schema> {
  const checker = new DocumentChecker(source, rules, tell);
  return checker.check();
}

// --- internal ---

/** They have the same keys. */
const STORE_SECTIONS: readonly string[] = ["target", "archive"];

class DocumentChecker<Schema extends TObject> {
  readonly #rules: LoadRules<Schema>;
  readonly #source: SourceDocument;
  readonly #tell: TellWarning | undefined;
  readonly #findings: Findings;
  readonly #sections = emptyTable();
  readonly #fitting = new Map<string, TomlTable>();
  readonly #paths: string[] = [];

  constructor(source: SourceDocument, rules: LoadRules<Schema>, tell?: TellWarning) {
    this.#rules = rules;
    this.#source = source;
    this.#tell = tell;
    this.#findings = new Findings(source.originOf, tell);
    for (const warning of source.warnings) {
      this.#findings.note(warning);
    }
  }

  check(): LoadedDocument<Schema> {
    this.#refuseEmpty();
    this.#refuseOtherKind();
    this.#checkSectionNames();
    this.#checkSections();
    const gate = this.#dangerGate();
    const declarations = this.#checkSecrets();
    const { originOf } = this.#source;
    const uses = this.#secretUses();
    const isAllowed = gate.isAllowed.bind(gate);
    const tell = this.#tell;
    const secrets = new DeclaredSecrets({ declarations, uses, originOf, isAllowed, tell });
    secrets.check(gate, this.#findings);
    if (this.#rules.isPart !== true) {
      secrets.reportUnused(this.#findings);
    }
    this.#rules.check({
      sections: this.#checkedSections(),
      fitting: (section, key) => this.#fitting.get(section)?.[key],
      isPresent: (section) => this.#source.table[section] !== undefined,
      gate,
      findings: this.#findings,
    });
    gate.report(["danger_zone"], this.#findings);
    this.#findings.finish();
    const values: unknown = { ...this.#sections, secrets: Object.fromEntries(declarations) };
    assert(Check(this.#rules.schema, values), "a document without errors fits its schema");
    const files = [...this.#source.files, ...this.#paths];
    return { values, secrets, gate, files, warnings: this.#findings.warnings };
  }

  /** A file that was never filled: that is told, and not all that it lacks. */
  #refuseEmpty(): void {
    const { required = [] } = this.#rules.schema;
    const wanted = MAIN_SECTIONS.find((section) => required.includes(section));
    if (wanted !== undefined && Object.keys(this.#source.table).length === 0) {
      const message = "missing: the document is empty";
      this.#findings.error("E_CONFIG", [wanted], message);
      this.#findings.finish();
    }
  }

  /** Of a document of another kind only that is told: all else in it would be found wrong as well. */
  #refuseOtherKind(): void {
    const { required = [], properties } = this.#rules.schema;
    const wanted = MAIN_SECTIONS.find((section) => required.includes(section));
    const { table } = this.#source;
    const found = MAIN_SECTIONS.find(
      (section) => !Object.hasOwn(properties, section) && Object.hasOwn(table, section),
    );
    if (wanted === undefined || found === undefined || Object.hasOwn(table, wanted)) {
      return;
    }
    const areAlike = STORE_SECTIONS.includes(wanted) && STORE_SECTIONS.includes(found);
    const hint = areAlike ? `; in a copy of it, rename [${found}] to [${wanted}]` : "";
    const message = `unknown section: a document with [${wanted}] is wanted here, this is one with [${found}]`;
    this.#findings.error("E_CONFIG_KEY", [found], message + hint);
    this.#findings.finish();
  }

  #checkSectionNames(): void {
    if (this.#rules.isPart === true) {
      return;
    }
    const known = Object.keys(this.#rules.schema.properties);
    for (const section of Object.keys(this.#source.table)) {
      if (!known.includes(section)) {
        const nearest = nearestName(section, known);
        const hint =
          nearest === undefined ? `known are ${known.join(", ")}` : `did you mean ${nearest}?`;
        this.#findings.error("E_CONFIG_KEY", [section], `unknown section; ${hint}`);
      }
    }
  }

  #checkSections(): void {
    const properties: Readonly<Record<string, TSchema>> = this.#rules.schema.properties;
    for (const [name, schema] of Object.entries(properties)) {
      const isRequired = this.#rules.schema.required?.includes(name) === true;
      const absent = schema.default === undefined ? undefined : emptyTable();
      const section = this.#source.table[name] ?? absent;
      if (name === "secrets") {
        continue;
      }
      if (section === undefined) {
        if (isRequired) {
          this.#findings.error("E_CONFIG", [name], `missing: the section [${name}] is required`);
        }
        continue;
      }
      const { whole, fitting } = checkSection(schema, section, [name], this.#findings);
      this.#fitting.set(name, fitting);
      if (whole !== undefined) {
        this.#resolvePaths(schema, whole, name);
        this.#sections[name] = whole;
      }
    }
  }

  #checkedSections(): Partial<Static<Schema>> {
    const sections: Partial<Static<Schema>> = {};
    // Each section was checked against its part of the schema before it was put here.
    return Object.assign(sections, this.#sections);
  }

  #resolvePaths(schema: TSchema, section: TomlTable, name: string): void {
    const isUnresolved = this.#rules.unresolvedSections?.includes(name) === true;
    for (const { table, key, value, path } of annotatedValues(schema, section, [name], "path")) {
      if (typeof value !== "string") {
        continue;
      }
      if (!isUnresolved) {
        table[key] = joinPath(this.#source.directory, value);
      } else if (!value.startsWith("/")) {
        this.#findings.warn(path, "this path is relative to the working directory");
      }
      this.#paths.push(String(table[key]));
    }
  }

  #dangerGate(): DangerGate {
    const zone = this.#sections.danger_zone;
    return new DangerGate(Check(DangerZoneSection, zone) ? zone : DANGER_ZONE_OFF);
  }

  #checkSecrets(): ReadonlyMap<string, SecretDeclaration> {
    const declarations = new Map<string, SecretDeclaration>();
    const secrets = this.#source.table.secrets ?? emptyTable();
    if (!isTable(secrets)) {
      const message = `a table is expected, not ${typeName(secrets)}`;
      this.#findings.error("E_CONFIG_VALUE", ["secrets"], message);
      return declarations;
    }
    for (const [name, secret] of Object.entries(secrets)) {
      const path = ["secrets", name];
      const { whole: checked } = checkSection(SecretSection, secret, path, this.#findings);
      if (checked !== undefined) {
        this.#resolvePaths(SecretSection, checked, "secrets");
        assert(Check(SecretSection, checked), "a section without errors fits its schema");
        declarations.set(name, checked);
      }
    }
    return declarations;
  }

  #secretUses(): readonly SecretUse[] {
    const uses: SecretUse[] = [];
    for (const [name, section] of Object.entries(this.#sections)) {
      const schema: TSchema | undefined = this.#rules.schema.properties[name];
      if (schema !== undefined && isTable(section)) {
        for (const found of annotatedValues(schema, section, [name], "secret")) {
          const reference = isTable(found.value) ? found.value.ref : undefined;
          assert(typeof reference === "string", "a checked reference holds a name");
          uses.push({ path: found.path, name: reference, size: secretSizeOf(found.schema) });
        }
      }
    }
    return uses;
  }
}
