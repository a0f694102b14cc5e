/**
 * Secrets as they were read, for a process that is to serve the disk in place of this one: a pipe gives its key only once.
 * Nothing is kept unless the program asks for it. Each lies in a mapping of its own, which no collector copies.
 */
import { UbiError } from "../errors.ts";
import { Arena } from "../ffi/arena.ts";
import type { DeclaredSecrets } from "./declared-secrets.ts";
import { hiddenVariables, rememberVariable } from "./hidden-variables.ts";

/** A secret, or a variable of the environment with one, on its way to another process. */
export interface KeptSecret {
  readonly kind: "secret" | "variable";
  readonly name: string;
  /** By which a declaration is known again; empty for a variable. */
  readonly declaration: string;
  readonly bytes: Uint8Array;
}

/** From here on what is read is kept. */
export function keepSecrets(): void {
  kept ??= new Map();
}

/** What was kept, and the variables that secrets were read from. The bytes are live. */
export function keptSecrets(): readonly KeptSecret[] {
  const variables = [...hiddenVariables()].map(([name, value]): KeptSecret => {
    const bytes = new TextEncoder().encode(value);
    return { kind: "variable", name, declaration: "", bytes };
  });
  return [...(kept?.values() ?? []), ...variables];
}

/** Secrets that another process kept: no other ones are to be had at the start. */
export function adoptSecrets(secrets: readonly KeptSecret[]): void {
  adopted = new Map();
  for (const secret of secrets) {
    if (secret.kind === "secret") {
      adopted.set(secret.name, secret);
    } else {
      rememberVariable(secret.name, new TextDecoder().decode(secret.bytes));
    }
  }
}

/** The secrets that were adopted have been taken by all who need them: they are wiped. */
export function forgetAdoptedSecrets(): void {
  for (const { bytes } of adopted?.values() ?? []) {
    bytes.fill(0);
  }
  adopted = undefined;
}

// --- internal to this folder ---

/** Keeps a secret that was read. */
export function keepSecret(declared: DeclaredSecrets, name: string, bytes: Uint8Array): void {
  if (kept === undefined) {
    return;
  }
  const before = kept.get(name);
  before?.bytes.fill(0);
  const place =
    before !== undefined && before.bytes.length === bytes.length
      ? before.bytes
      : new Arena(bytes.length).bytes(bytes.length).view;
  place.set(bytes);
  const declaration = digestOf(declared, name);
  kept.set(name, { kind: "secret", name, declaration, bytes: place });
}

/**
 * A copy of an adopted secret; undefined when none were adopted, and it is to be read.
 * @throws UbiError E_UPGRADE when it is none of them, or was declared in another way
 */
export function adoptedSecret(declared: DeclaredSecrets, name: string): Uint8Array | undefined {
  if (adopted === undefined) {
    return undefined;
  }
  const secret = adopted.get(name);
  const quoted = JSON.stringify(name);
  if (secret === undefined) {
    const message = `the process that serves the disk has read no secret ${quoted}; that needs a restart`;
    throw new UbiError("E_UPGRADE", message);
  }
  if (secret.declaration !== digestOf(declared, name)) {
    throw new UbiError(
      "E_UPGRADE",
      `secret ${quoted} is declared in another way than when it was read; that needs a restart`,
    );
  }
  return secret.bytes.slice();
}

// --- internal ---

let kept: Map<string, KeptSecret> | undefined;
let adopted: Map<string, KeptSecret> | undefined;

/** Of what the document says of a secret and of the KEKs above it. */
function digestOf(declared: DeclaredSecrets, name: string): string {
  const chain = declared.chain(name).map((each) => [each, declared.declaration(each)]);
  return new Bun.CryptoHasher("sha256").update(JSON.stringify(chain)).digest("hex");
}
