/**
 * What a document says about its secrets, before any of their bytes is read: where each comes from,
 * what wraps it, and which keys of the document use it.
 */
import { statSync } from "node:fs";
import type { Static } from "@sinclair/typebox";
import { isCredential, isCredentialName } from "./credential-folder.ts";
import type { DangerGate } from "./danger-zone.ts";
import { Findings, type KeyOrigin, type TellWarning } from "./findings.ts";
import type { KeyPath } from "./key-positions.ts";
import { nearestName } from "./nearest-name.ts";
import type { DangerFlag, SecretSection, SecretSize } from "./schema.ts";

export type SecretDeclaration = Static<typeof SecretSection>;

/** One key of the document that refers to a secret. */
export interface SecretUse {
  readonly path: KeyPath;
  readonly name: string;
  readonly size: SecretSize;
}

export interface DeclaredSecretsOptions {
  /** In file order. */
  readonly declarations: ReadonlyMap<string, SecretDeclaration>;
  readonly uses: readonly SecretUse[];
  readonly originOf: (path: KeyPath) => KeyOrigin;
  /** Which flags of the danger zone are in force. */
  readonly isAllowed: (flag: DangerFlag) => boolean;
  /** Gets the warnings of findings; the log, if nobody else. */
  readonly tell?: TellWarning | undefined;
}

/** The secrets of a checked document; `resolveSecrets` reads those that a program needs. */
export class DeclaredSecrets {
  readonly uses: readonly SecretUse[];
  readonly isAllowed: (flag: DangerFlag) => boolean;
  readonly #declarations: ReadonlyMap<string, SecretDeclaration>;
  readonly #originOf: (path: KeyPath) => KeyOrigin;
  readonly #tell: TellWarning | undefined;

  constructor(options: DeclaredSecretsOptions) {
    this.uses = options.uses;
    this.isAllowed = options.isAllowed;
    this.#declarations = options.declarations;
    this.#originOf = options.originOf;
    this.#tell = options.tell;
  }

  get names(): readonly string[] {
    return [...this.#declarations.keys()];
  }

  declaration(name: string): SecretDeclaration | undefined {
    return this.#declarations.get(name);
  }

  newFindings(): Findings {
    return new Findings(this.#originOf, this.#tell);
  }

  /** The secret and the KEKs above it, outermost first; one that is not declared is left out. */
  chain(name: string): readonly string[] {
    const chain: string[] = [];
    let next: string | undefined = name;
    while (next !== undefined && this.#declarations.has(next) && !chain.includes(next)) {
      chain.unshift(next);
      next = this.#declarations.get(next)?.encrypted_by?.ref;
    }
    return chain;
  }

  /** Reports a name that no secret has, at the key that refers to it. */
  checkReference(path: KeyPath, name: string, findings: Findings): void {
    if (!this.#declarations.has(name)) {
      const nearest = nearestName(name, this.#declarations.keys());
      const hint = nearest === undefined ? "" : `; did you mean ${JSON.stringify(nearest)}?`;
      const message = `no secret is named ${JSON.stringify(name)}${hint}`;
      findings.error("E_SECRET_REFERENCE", path, message);
    }
  }

  /** Checks all references and permissions that need no bytes. */
  check(gate: DangerGate, findings: Findings): void {
    for (const use of this.uses) {
      this.checkReference([...use.path, "ref"], use.name, findings);
    }
    for (const [name, declaration] of this.#declarations) {
      const kek = declaration.encrypted_by?.ref;
      if (kek !== undefined) {
        this.checkReference(["secrets", name, "encrypted_by", "ref"], kek, findings);
      }
      this.#checkPermission(name, declaration, gate, findings);
    }
    this.#reportCycles(findings);
  }

  /** Warns of secrets without use. */
  reportUnused(findings: Findings): void {
    if (findings.hasErrors) {
      // A section with mistakes does not tell which secrets it uses.
      return;
    }
    const used = new Set(this.uses.flatMap((use) => this.chain(use.name)));
    for (const name of this.#declarations.keys()) {
      if (!used.has(name)) {
        findings.warn(["secrets", name], "nothing in this document uses this secret");
      }
    }
  }

  #checkPermission(
    name: string,
    { source, encrypted_by }: SecretDeclaration,
    gate: DangerGate,
    findings: Findings,
  ): void {
    const user = `secrets.${name}`;
    const path = ["secrets", name, "source"];
    if (source.inline !== undefined && encrypted_by === undefined) {
      if (!gate.allows("allow_inline_plaintext_secrets", user)) {
        findings.error("E_CONFIG_DANGER", [...path, "inline"], INLINE_REFUSED);
      }
    }
    if (source.env !== undefined && !gate.allows("allow_env_secrets", user)) {
      findings.error("E_CONFIG_DANGER", [...path, "env"], ENV_REFUSED);
    }
    if (source.credential !== undefined && !isCredentialName(source.credential)) {
      findings.error("E_CONFIG_VALUE", [...path, "credential"], CREDENTIAL_NAME_EXPECTED);
    }
    if (source.file !== undefined && needsPermission(source.file)) {
      // Noted for the report only: a file is refused when it is read, and only then.
      gate.allows("allow_secret_over_regular_file", user);
    }
  }

  #reportCycles(findings: Findings): void {
    const reported = new Set<string>();
    for (const start of this.#declarations.keys()) {
      const walked: string[] = [];
      let next: string | undefined = start;
      while (next !== undefined && !walked.includes(next) && !reported.has(next)) {
        walked.push(next);
        next = this.#declarations.get(next)?.encrypted_by?.ref;
      }
      if (next !== undefined && walked.includes(next)) {
        const members = [...walked.slice(walked.indexOf(next)), next];
        const chain = members.map((name) => JSON.stringify(name)).join(" -> ");
        const path = ["secrets", next, "encrypted_by"];
        findings.error("E_SECRET_REFERENCE", path, `circular references: ${chain}`);
      }
      for (const name of walked) {
        reported.add(name);
      }
    }
  }
}

// --- internal ---

function needsPermission(path: string): boolean {
  try {
    const stats = statSync(path);
    return stats.isFile() && !isCredential(path, stats);
  } catch {
    // Whatever is wrong with the path is reported when a program needs the secret.
    return false;
  }
}

const CREDENTIAL_NAME_EXPECTED =
  "not the name of a credential: it is a name of 1 to 255 bytes without / and :";
const INLINE_REFUSED =
  "an inline secret needs encrypted_by (a KEK), or danger_zone.enabled with " +
  "danger_zone.allow_inline_plaintext_secrets";
const ENV_REFUSED =
  "the environment is visible to other processes of the user and to children; use a pipe or an " +
  "encrypted secret, or set danger_zone.enabled with danger_zone.allow_env_secrets";
