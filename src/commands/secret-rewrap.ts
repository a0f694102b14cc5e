/** `ubiblk secret rewrap`: envelopes for another key-encryption key, or for another name. */
import { defineCommand } from "citty";
import { KEK_BYTES } from "../config/envelope.ts";
import { loadSecrets } from "../config/load-secrets.ts";
import { resolveNamedSecrets } from "../config/resolve-secrets.ts";
import { openSecret, sealSecret } from "../config/secret-envelope.ts";
import { UbiError } from "../errors.ts";
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
      "on standard input; or all that a KEK encrypts is taken from a configuration, and the new tables are printed",
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
      description: "or a configuration that has secrets and KEK; it is not changed",
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
}

async function rewrap(options: RewrapOptions): Promise<void> {
  hardenOrWarn();
  const problem = problemOf(options);
  if (problem !== undefined) {
    throw new UbiError("E_USAGE", problem);
  }
  const { kekPath, configPath } = options;
  await interruptible("the rewrapping", async (signal) => {
    const text =
      kekPath === undefined
        ? await tablesOf(configPath ?? "", options, signal)
        : await envelopeOf(kekPath, options, signal);
    writePieces(1, [text]);
  });
}

/** What is wrong with the flags, which exclude each other. */
function problemOf(options: RewrapOptions): string | undefined {
  const { name, kekPath, configPath, kekName, newKekPath, newName, inputPath } = options;
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
    return name === undefined ? "--name: missing" : onlyWith("--kek-name", kekName, "--config");
  }
  if ((name === undefined) === (kekName === undefined)) {
    return "with --config give either --name NAME or --kek-name KEK";
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

async function tablesOf(
  path: string,
  options: RewrapOptions,
  signal: AbortSignal,
): Promise<string> {
  const { secrets } = await loadSecrets(path);
  const kekOf = (name: string) => secrets.declaration(name)?.encrypted_by?.ref;
  const names =
    options.name === undefined
      ? secrets.names.filter((name) => kekOf(name) === options.kekName)
      : [options.name];
  const kekName = options.kekName ?? kekOf(options.name ?? "");
  if (kekName === undefined || names.length === 0) {
    const what =
      options.name === undefined ? `nothing is` : `${JSON.stringify(options.name)} is not`;
    const by = options.kekName === undefined ? "" : ` by ${JSON.stringify(options.kekName)}`;
    throw new UbiError("E_SECRET_REFERENCE", `${path}: ${what} encrypted${by} in [secrets]`);
  }
  using resolved = await resolveNamedSecrets({ secrets }, [...names, kekName], signal);
  const kek =
    options.newKekPath === undefined
      ? resolved.get({ ref: kekName }).bytes.slice()
      : await readKek(options.newKekPath, signal);
  try {
    checkKekSize(kek, kekName);
    return names
      .map((name) => {
        const newName = options.newName ?? name;
        const envelope = sealSecret(resolved.get({ ref: name }).bytes, { name: newName, kek });
        return secretTable({ name: newName, envelope, kekName });
      })
      .join("\n");
  } finally {
    kek.fill(0);
  }
}
