/** `ubiblk secret unwrap`: the secret that an envelope holds. */
import { defineCommand } from "citty";
import { loadSecrets } from "../config/load-secrets.ts";
import { resolveNamedSecrets } from "../config/resolve-secrets.ts";
import { openSecret } from "../config/secret-envelope.ts";
import { UbiError } from "../errors.ts";
import { hardenOrWarn } from "./hardening.ts";
import { interruptible } from "./interruption.ts";
import { readKek, readSecretInput } from "./secret-input.ts";
import {
  SECRET_OUTPUT_FLAGS,
  type SecretDestination,
  secretDestination,
  writeSecret,
} from "./secret-output.ts";

export default defineCommand({
  meta: {
    name: "unwrap",
    description:
      "Decrypts a secret: of an envelope in base64 on standard input, with its key-encryption key (KEK); or of a " +
      "configuration, as a program that uses it would read it",
  },
  args: {
    name: {
      type: "string",
      required: true,
      valueHint: "NAME",
      description: "NAME of [secrets.NAME], which the envelope was made for",
    },
    kek: {
      type: "string",
      valueHint: "FILE",
      description: "file or pipe with the KEK: 32 bytes, or base64 of them",
    },
    config: {
      type: "string",
      alias: "f",
      valueHint: "FILE",
      description: "or a configuration that has the secret and its KEK",
    },
    input: {
      type: "string",
      valueHint: "FILE",
      description: "with --kek: file or pipe with the envelope (default: standard input)",
    },
    ...SECRET_OUTPUT_FLAGS,
  },
  run: ({ args }) => {
    const { name, kek: kekPath, config: configPath, input: inputPath } = args;
    return unwrap({ name, kekPath, configPath, inputPath }, secretDestination(args));
  },
});

// --- internal ---

interface UnwrapOptions {
  readonly name: string;
  readonly kekPath: string | undefined;
  readonly configPath: string | undefined;
  readonly inputPath: string | undefined;
}

async function unwrap(options: UnwrapOptions, destination: SecretDestination): Promise<void> {
  hardenOrWarn();
  const { kekPath, configPath, inputPath } = options;
  if ((kekPath === undefined) === (configPath === undefined)) {
    throw new UbiError("E_USAGE", "give either --kek FILE, for an envelope, or --config FILE");
  }
  if (configPath !== undefined && inputPath !== undefined) {
    throw new UbiError("E_USAGE", "--input: not with --config, which has the secret");
  }
  await interruptible("the unwrapping", async (signal) => {
    const secret =
      kekPath === undefined
        ? await fromDocument(configPath ?? "", options.name, signal)
        : await fromEnvelope(kekPath, options, signal);
    try {
      writeSecret(secret, destination);
    } finally {
      secret.fill(0);
    }
  });
}

async function fromDocument(path: string, name: string, signal: AbortSignal): Promise<Uint8Array> {
  const document = await loadSecrets(path, signal);
  using resolved = await resolveNamedSecrets(document, [name], signal);
  return resolved.get({ ref: name }).bytes.slice();
}

async function fromEnvelope(
  kekPath: string,
  { name, inputPath: path }: UnwrapOptions,
  signal: AbortSignal,
): Promise<Uint8Array> {
  const kek = await readKek(kekPath, signal);
  try {
    const what = "the envelope";
    const envelope = await readSecretInput({ path, encoding: "base64", what, signal });
    return openSecret(envelope, { name, kek }, kekPath);
  } finally {
    kek.fill(0);
  }
}
