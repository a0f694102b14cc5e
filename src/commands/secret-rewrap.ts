/** `ubiblk secret rewrap`: envelopes for another key-encryption key, or for another name. */
import { defineCommand } from "citty";
import type { SecretDeclaration } from "../config/declared-secrets.ts";
import { KEK_BYTES } from "../config/envelope.ts";
import { readKekFile } from "../config/kek-file.ts";
import { loadSecrets, type SecretsOfDocument } from "../config/load-secrets.ts";
import { resolveNamedSecrets } from "../config/resolve-secrets.ts";
import { openSecret, sealSecret } from "../config/secret-envelope.ts";
import { UbiError } from "../errors.ts";
import { log, toldLine } from "../log.ts";
import { exchangeInFiles } from "./document-exchange.ts";
import { hardenOrWarn } from "./hardening.ts";
import { interruptible } from "./interruption.ts";
import { checkKekSize, readKek, readSecretInput } from "./secret-input.ts";
import { envelopeLine, secretTable } from "./secret-text.ts";
import { writePieces } from "./standard-output.ts";

export default defineCommand({
  meta: {
    name: "rewrap",
    description:
      "Encrypts secrets with another key-encryption key (KEK), under another name, or both. The envelope comes in base64 " +
      "on standard input; or all that a KEK encrypts is taken from a configuration, and the new tables are printed or put " +
      "in place",
  },
  args: {
    name: { type: "string", valueHint: "NAME", description: "NAME that the secret has now" },
    kek: {
      type: "string",
      valueHint: "FILE",
      description: `file or pipe with the KEK that it has now: ${KEK_BYTES} bytes, or base64 of them`,
    },
    config: {
      type: "string",
      alias: "f",
      valueHint: "FILE",
      description: "or a configuration that has secrets and KEK",
    },
    "kek-name": {
      type: "string",
      valueHint: "KEK",
      description: "with --config: name of the KEK whose secrets are taken, instead of --name",
    },
    "new-kek": {
      type: "string",
      valueHint: "FILE",
      description: "file or pipe with the new KEK (default: the KEK stays)",
    },
    "new-name": { type: "string", valueHint: "NAME", description: "new NAME of the secret" },
    input: {
      type: "string",
      valueHint: "FILE",
      description: "with --kek: file or pipe with the envelope (default: standard input)",
    },
    "in-place": {
      type: "boolean",
      default: false,
      description:
        "with --kek-name: exchange the envelopes in the configuration, and print nothing",
    },
  },
  run: ({ args }) =>
    rewrap({
      name: args.name,
      kekPath: args.kek,
      configPath: args.config,
      kekName: args["kek-name"],
      newKekPath: args["new-kek"],
      newName: args["new-name"],
      inputPath: args.input,
      isInPlace: args["in-place"],
    }),
});

// --- internal ---

interface RewrapOptions {
  readonly name: string | undefined;
  readonly kekPath: string | undefined;
  readonly configPath: string | undefined;
  readonly kekName: string | undefined;
  readonly newKekPath: string | undefined;
  readonly newName: string | undefined;
  readonly inputPath: string | undefined;
  readonly isInPlace: boolean;
}

async function rewrap(options: RewrapOptions): Promise<void> {
  hardenOrWarn();
  const problem = problemOf(options);
  if (problem !== undefined) {
    throw new UbiError("E_USAGE", problem);
  }
  const { kekPath, configPath } = options;
  await interruptible("the rewrapping", async (signal) => {
    if (kekPath === undefined) {
      await rewrapDocument(configPath ?? "", options, signal);
    } else {
      writePieces(1, [await envelopeOf(kekPath, options, signal)]);
    }
  });
}

/** What is wrong with the flags, which exclude each other. */
function problemOf(options: RewrapOptions): string | undefined {
  const { name, kekPath, configPath, kekName, newKekPath, newName, inputPath, isInPlace } = options;
  if ((kekPath === undefined) === (configPath === undefined)) {
    return "give either --kek FILE, for an envelope, or --config FILE";
  }
  if (newKekPath === undefined && newName === undefined) {
    return "give --new-kek FILE, --new-name NAME, or both";
  }
  if (name === "" || newName === "") {
    return "--name, --new-name: empty; give the NAME of [secrets.NAME]";
  }
  if (kekPath !== undefined) {
    return name === undefined || isInPlace
      ? `--${isInPlace ? "in-place: only with --config" : "name: missing"}`
      : onlyWith("--kek-name", kekName, "--config");
  }
  if ((name === undefined) === (kekName === undefined)) {
    return "with --config give either --name NAME or --kek-name KEK";
  }
  if (isInPlace && kekName === undefined) {
    return "--in-place: only with --config, --kek-name and --new-kek";
  }
  if (kekName !== undefined && newName !== undefined) {
    return "--new-name: for one secret only, which --name says";
  }
  return onlyWith("--input", inputPath, "--kek");
}

function onlyWith(flag: string, value: string | undefined, other: string): string | undefined {
  return value === undefined ? undefined : `${flag}: only with ${other}`;
}

async function envelopeOf(
  kekPath: string,
  { name = "", newName = name, newKekPath, inputPath: path }: RewrapOptions,
  signal: AbortSignal,
): Promise<string> {
  const kek = await readKek(kekPath, signal);
  try {
    const what = "the envelope";
    const envelope = await readSecretInput({ path, encoding: "base64", what, signal });
    const secret = openSecret(envelope, { name, kek }, kekPath);
    try {
      const newKek = newKekPath === undefined ? kek.slice() : await readKek(newKekPath, signal);
      return envelopeLine(sealOnce(secret, newName, newKek));
    } finally {
      secret.fill(0);
    }
  } finally {
    kek.fill(0);
  }
}

/** Wipes the KEK. */
function sealOnce(secret: Uint8Array, name: string, kek: Uint8Array): Uint8Array {
  try {
    return sealSecret(secret, { name, kek });
  } finally {
    kek.fill(0);
  }
}

async function rewrapDocument(
  path: string,
  options: RewrapOptions,
  signal: AbortSignal,
): Promise<void> {
  const document = await loadSecrets(path, signal);
  const names = namesOf(document, path, options);
  const kekName = document.secrets.declaration(names[0] ?? "")?.encrypted_by?.ref ?? "";
  const exchangeable = options.isInPlace ? names.map((name) => inlineOf(document, name)) : [];
  using resolved = await resolveNamedSecrets(document, [...names, kekName], signal);
  const kek =
    options.newKekPath === undefined
      ? resolved.get({ ref: kekName }).bytes.slice()
      : await readNewKek(options.newKekPath, document.secrets.declaration(kekName), signal);
  try {
    checkKekSize(kek, kekName);
    const wrapped = names.map((oldName) => {
      const name = options.newName ?? oldName;
      const secret = resolved.get({ ref: oldName }).bytes;
      return { name, envelope: sealSecret(secret, { name, kek }), kekName };
    });
    if (!options.isInPlace) {
      writePieces(1, [wrapped.map(secretTable).join("\n")]);
      return;
    }
    const exchanges = wrapped.map(({ name, envelope }, i) => ({
      what: `the envelope of ${JSON.stringify(name)}`,
      oldValue: exchangeable[i] ?? "",
      newValue: envelope.toBase64(),
    }));
    exchangeInFiles(document.files, exchanges);
    const next = `now let ${JSON.stringify(kekName)} be the new KEK`;
    const text = `rewrap: exchanged ${exchanges.length} envelopes in ${path}; ${next}`;
    writePieces(2, [toldLine("info", text)]);
  } finally {
    kek.fill(0);
  }
}

/** Warns where it will not be read as it is written. */
async function readNewKek(
  path: string,
  declaration: SecretDeclaration | undefined,
  signal: AbortSignal,
): Promise<Uint8Array> {
  const { kek, encoding } = await readKekFile(path, signal);
  const expected = declaration?.encrypted_by === undefined ? declaration?.encoding : undefined;
  if (expected !== undefined && encoding !== expected) {
    const advice = `change its encoding when ${path} takes its place`;
    log.warn(`${path} is written in ${encoding}, the document says ${expected}; ${advice}`);
  }
  return kek;
}

/** Those to rewrap: encrypted, and by one KEK. @throws UbiError E_SECRET_REFERENCE */
function namesOf(
  { secrets }: SecretsOfDocument,
  path: string,
  { name, kekName }: RewrapOptions,
): readonly string[] {
  const kekOf = (each: string) => secrets.declaration(each)?.encrypted_by?.ref;
  const names =
    name === undefined ? secrets.names.filter((each) => kekOf(each) === kekName) : [name];
  const isEncrypted = names.length > 0 && names.every((each) => kekOf(each) !== undefined);
  if (!isEncrypted) {
    const what =
      name === undefined
        ? `nothing is encrypted by ${JSON.stringify(kekName)}`
        : `${JSON.stringify(name)} is not encrypted`;
    throw new UbiError("E_SECRET_REFERENCE", `${path}: ${what} in [secrets]`);
  }
  return names;
}

/** @throws UbiError E_SECRET_OUTPUT for an envelope that does not stand in the document */
function inlineOf({ secrets }: SecretsOfDocument, name: string): string {
  const declaration = secrets.declaration(name);
  const inline = declaration?.source.inline;
  if (inline === undefined || declaration?.encoding !== "base64") {
    const advice = "exchange it by hand: without --in-place the new tables are printed";
    const what = `the envelope of ${JSON.stringify(name)} does not stand in the document in base64`;
    throw new UbiError("E_SECRET_OUTPUT", `${what}; ${advice}`);
  }
  return inline;
}
