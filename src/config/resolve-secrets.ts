/**
 * Reads the secrets that a program needs, after everything else of its document was found right: a
 * mistake elsewhere never costs an operator the pipe that a key was written to.
 */
import { assert, UbiError } from "../errors.ts";
import { base64Size } from "./base64.ts";
import type { DeclaredSecrets, SecretDeclaration, SecretUse } from "./declared-secrets.ts";
import { KEK_BYTES } from "./envelope.ts";
import type { Findings } from "./findings.ts";
import { isHeaderText } from "./header-text.ts";
import { hideVariable } from "./hidden-variables.ts";
import { adoptedSecret, keepSecret } from "./kept-secrets.ts";
import { type DangerFlag, SECRET_BYTES_MAX, type SecretSize } from "./schema.ts";
import { Secret } from "./secret.ts";
import { openSecret } from "./secret-envelope.ts";
import {
  type FileSourcePolicy,
  fileOf,
  inspectFileSource,
  readSecretSource,
} from "./secret-sources.ts";

/** A key of a document that names a secret: `config.encryption.xtsKey`. */
export interface SecretReference {
  readonly ref: string;
}

/** The sections of documents whose secrets a program can ask for. */
export type SecretUser = "encryption" | "stripe_source" | "target" | "archive" | "server";

/** Secrets that can be read once more from where they came from, KEKs included. */
export interface SecretOrigin {
  /** False when all of them stand in the document or in the environment. */
  readonly canChange: boolean;
  /** How long all writers of pipes may take together. */
  readonly waitMsMax: number;
  /** @throws UbiErrors with every secret that could not be had; the signal's reason */
  readonly read: (signal: AbortSignal) => Promise<ResolvedSecrets>;
}

/** The document that secrets were read for. */
interface SecretDocument {
  readonly originOf: (names: ReadonlySet<string>) => SecretOrigin;
  readonly isAllowed: (flag: DangerFlag) => boolean;
}

/** The bytes of the secrets asked for. Disposing wipes them all. */
export class ResolvedSecrets {
  readonly #secrets: ReadonlyMap<string, Secret>;
  readonly #document: SecretDocument | undefined;

  constructor(secrets: ReadonlyMap<string, Secret>, document?: SecretDocument) {
    this.#secrets = secrets;
    this.#document = document;
  }

  /** Where some of these come from; undefined when they were not read from anywhere. It outlives this object. */
  originOf(references: readonly SecretReference[]): SecretOrigin | undefined {
    return this.#document?.originOf(new Set(references.map(({ ref }) => ref)));
  }

  /** Whether their document's danger zone allows something, for other secrets than its own. */
  isAllowed(flag: DangerFlag): boolean {
    return this.#document?.isAllowed(flag) ?? false;
  }

  /** The secret that a key refers to; its section was asked for when these were resolved. */
  get(reference: SecretReference): Secret {
    const secret = this.#secrets.get(reference.ref);
    assert(secret !== undefined, `secret ${reference.ref} was among those that were asked for`);
    return secret;
  }

  [Symbol.dispose](): void {
    for (const secret of this.#secrets.values()) {
      secret.wipe();
    }
  }
}

/**
 * Reads, decodes, unwraps and checks the sizes of the secrets that `users` refer to, and nothing
 * else. Variables that were read are removed from `process.env`. (Whoever
 * starts a child has to give it `env: process.env`: by default Bun passes the original environment.)
 *
 * @param signal ends the wait for the writer of a pipe
 * @throws UbiErrors with every secret that could not be had; the signal's reason; nothing stays in memory then.
 */
export async function resolveSecrets(
  document: { readonly secrets: DeclaredSecrets },
  users: readonly SecretUser[],
  signal?: AbortSignal,
): Promise<ResolvedSecrets> {
  const uses = document.secrets.uses.filter((use) => users.some((user) => user === use.path[0]));
  return await readUses(document.secrets, uses, { signal, mayAdopt: true });
}

/**
 * `resolveSecrets` for a tool that works on secrets themselves: those of these names, used or not.
 *
 * @throws UbiErrors as `resolveSecrets`, and E_SECRET_REFERENCE for names that are not declared
 */
export async function resolveNamedSecrets(
  { secrets }: { readonly secrets: DeclaredSecrets },
  names: readonly string[],
  signal?: AbortSignal,
): Promise<ResolvedSecrets> {
  const findings = secrets.newFindings();
  for (const name of names) {
    secrets.checkReference(["secrets"], name, findings);
  }
  findings.finish();
  const size = { bytesMin: 1, bytesMax: SECRET_BYTES_MAX };
  const uses = names.map((name) => ({ path: ["secrets", name], name, size }));
  return await readUses(secrets, uses, { signal });
}

// --- internal ---

async function readUses(
  declared: DeclaredSecrets,
  uses: readonly SecretUse[],
  {
    signal,
    mayAdopt = false,
  }: { readonly signal?: AbortSignal | undefined; readonly mayAdopt?: boolean },
): Promise<ResolvedSecrets> {
  const resolver = new Resolver(declared, signal);
  try {
    if (!(mayAdopt && resolver.adoptAll(new Set(uses.map((use) => use.name))))) {
      await resolver.readAll(new Set(uses.flatMap((use) => declared.chain(use.name))));
    }
    for (const use of uses) {
      resolver.checkUse(use);
    }
    resolver.findings.finish();
    const secrets = resolver.take(new Set(uses.map((use) => use.name)));
    for (const [name, secret] of secrets) {
      keepSecret(declared, name, secret.bytes);
    }
    return new ResolvedSecrets(secrets, {
      originOf: (names) => originOf(declared, uses, names),
      isAllowed: declared.isAllowed,
    });
  } finally {
    resolver.wipe();
  }
}

function originOf(
  declared: DeclaredSecrets,
  uses: readonly SecretUse[],
  names: ReadonlySet<string>,
): SecretOrigin {
  const wanted = uses.filter(({ name }) => names.has(name));
  const chain = new Set(wanted.flatMap(({ name }) => declared.chain(name)));
  const fromFiles = [...chain]
    .map((name) => declared.declaration(name))
    .filter((declaration) => declaration !== undefined && isFromFile(declaration));
  return {
    canChange: fromFiles.length > 0,
    waitMsMax: fromFiles.reduce((sum, each) => sum + (each?.pipe_timeout_ms ?? 0), 0),
    read: (signal) => readUses(declared, wanted, { signal }),
  };
}

function isFromFile({ source }: SecretDeclaration): boolean {
  return source.file !== undefined || source.credential !== undefined;
}

class Resolver {
  readonly findings: Findings;
  readonly #declared: DeclaredSecrets;
  readonly #policy: FileSourcePolicy;
  readonly #secrets = new Map<string, Secret>();

  constructor(declared: DeclaredSecrets, signal: AbortSignal | undefined) {
    this.#declared = declared;
    this.findings = declared.newFindings();
    this.#policy = {
      signal,
      mayReadRegularFiles: declared.isAllowed("allow_secret_over_regular_file"),
      warn: (message) => this.findings.note(message),
    };
  }

  /** Takes what another process has read. False when none has. @throws UbiError E_UPGRADE */
  adoptAll(names: ReadonlySet<string>): boolean {
    for (const name of names) {
      const bytes = adoptedSecret(this.#declared, name);
      if (bytes === undefined) {
        return false;
      }
      this.#secrets.set(name, new Secret(name, bytes));
    }
    return names.size > 0;
  }

  /** `names` come in an order in which a KEK stands before what it wraps. */
  async readAll(names: ReadonlySet<string>): Promise<void> {
    for (const name of names) {
      await this.#attempt(name, "source", () => this.#inspect(name));
    }
    if (this.findings.hasErrors) {
      return;
    }
    for (const name of names) {
      await this.#attempt(name, "source", () => this.#read(name));
    }
    for (const name of names) {
      const variable = this.#declared.declaration(name)?.source.env;
      if (variable !== undefined) {
        hideVariable(variable);
      }
    }
    for (const name of names) {
      await this.#attempt(name, "encrypted_by", () => this.#unwrap(name));
    }
  }

  checkUse({ path, name, size }: SecretUse): void {
    const secret = this.#secrets.get(name);
    if (secret === undefined) {
      return;
    }
    const { length } = secret;
    if (length < size.bytesMin || length > size.bytesMax) {
      const expected = sizeText(size.bytesMin, size.bytesMax);
      const message = `secret ${JSON.stringify(name)} has ${length} bytes; ${expected}`;
      this.findings.error("E_SECRET_SIZE", path, message + this.#sizeHint(secret, size));
    } else if (size.text === true && !isText(secret.bytes)) {
      const message = `secret ${JSON.stringify(name)} is not valid UTF-8`;
      this.findings.error("E_SECRET", path, message);
    } else if (size.header === true && !isHeaderText(new TextDecoder().decode(secret.bytes))) {
      const what = "has a character that no access key or token has";
      const message = `secret ${JSON.stringify(name)} ${what}${this.#newlineHint(secret)}`;
      this.findings.error("E_SECRET", path, message);
    }
  }

  /** Hands out the secrets that are used; the others (KEKs) stay to be wiped. */
  take(names: ReadonlySet<string>): ReadonlyMap<string, Secret> {
    const taken = new Map<string, Secret>();
    for (const name of names) {
      const secret = this.#secrets.get(name);
      assert(secret !== undefined, `secret ${name} was resolved`);
      taken.set(name, secret);
      this.#secrets.delete(name);
    }
    return taken;
  }

  wipe(): void {
    for (const secret of this.#secrets.values()) {
      secret.wipe();
    }
  }

  async #attempt(name: string, key: string, action: () => void | Promise<void>): Promise<void> {
    try {
      await action();
    } catch (error) {
      // That all is to end is no fault of this secret.
      if (!(error instanceof UbiError) || this.#policy.signal?.aborted === true) {
        throw error;
      }
      this.#drop(name);
      this.findings.error(error.code, ["secrets", name, key], error.message);
    }
  }

  #inspect(name: string): void {
    const declaration = this.#declared.declaration(name);
    const file = declaration === undefined ? undefined : fileOf(declaration.source);
    if (file !== undefined) {
      inspectFileSource(file, this.#policy);
    }
  }

  async #read(name: string): Promise<void> {
    const declaration = this.#declared.declaration(name);
    assert(declaration !== undefined, `secret ${name} is declared`);
    const bytes = await readSecretSource(name, declaration, this.#policy);
    if (bytes.length === 0) {
      throw new UbiError("E_SECRET_SIZE", "the secret is empty");
    }
    this.#secrets.set(name, new Secret(name, bytes));
    const { encoding, encrypted_by } = declaration;
    if (encoding === "plaintext" && encrypted_by === undefined && endsInNewline(bytes)) {
      const message = "the plaintext ends in a newline, which is part of the secret";
      this.findings.warn(["secrets", name, "source"], message);
    }
  }

  #unwrap(name: string): void {
    const kekName = this.#declared.declaration(name)?.encrypted_by?.ref;
    const secret = this.#secrets.get(name);
    const kek = kekName === undefined ? undefined : this.#secrets.get(kekName);
    if (secret === undefined || kekName === undefined) {
      return;
    }
    if (kek === undefined) {
      // Its KEK failed and was reported; the envelope itself is of no use.
      this.#drop(name);
      return;
    }
    if (kek.length !== KEK_BYTES) {
      const sizes = `${kek.length} bytes; a KEK has exactly ${KEK_BYTES}`;
      const hint = this.#sizeHint(kek, { bytesMin: KEK_BYTES, bytesMax: KEK_BYTES });
      throw new UbiError("E_SECRET_SIZE", `KEK ${JSON.stringify(kekName)} has ${sizes}${hint}`);
    }
    const key = { name, kek: kek.bytes };
    const content = openSecret(secret.bytes, key, JSON.stringify(kekName));
    secret.wipe();
    this.#secrets.set(name, new Secret(name, content));
    if (content.length === 0) {
      throw new UbiError("E_SECRET_SIZE", "the secret is empty");
    }
  }

  /** A secret that failed is forgotten, so that what depends on it is not reported as well. */
  #drop(name: string): void {
    this.#secrets.get(name)?.wipe();
    this.#secrets.delete(name);
  }

  /** What a secret of the wrong size probably is, where it is taken as it was written. */
  #sizeHint(secret: Secret, { bytesMin, bytesMax }: SecretSize): string {
    const decoded = this.#isAsWritten(secret) ? base64Size(secret.bytes) : undefined;
    return decoded !== undefined && decoded >= bytesMin && decoded <= bytesMax
      ? ` (it looks like base64 of ${decoded} bytes: set encoding = "base64")`
      : this.#newlineHint(secret);
  }

  #newlineHint(secret: Secret): string {
    return this.#isAsWritten(secret) && endsInNewline(secret.bytes)
      ? " (it ends in a newline, which counts: write it without one)"
      : "";
  }

  /** Its bytes are those of its source. */
  #isAsWritten(secret: Secret): boolean {
    const declaration = this.#declared.declaration(secret.name);
    return declaration?.encoding === "plaintext" && declaration.encrypted_by === undefined;
  }
}

function sizeText(bytesMin: number, bytesMax: number): string {
  return bytesMin === bytesMax
    ? `exactly ${bytesMin} are expected`
    : `${bytesMin} to ${bytesMax} are expected`;
}

function endsInNewline(bytes: Uint8Array): boolean {
  return bytes.at(-1) === 0x0a;
}

function isText(bytes: Uint8Array): boolean {
  try {
    new TextDecoder("utf-8", { fatal: true }).decode(bytes);
    return true;
  } catch {
    return false;
  }
}
