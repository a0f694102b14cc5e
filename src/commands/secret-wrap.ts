/** `ubiblk secret wrap`: makes the envelope that a secret with `encrypted_by` is. */
import { defineCommand } from "citty";
import { base64Size } from "../config/base64.ts";
import { ENVELOPE_OVERHEAD_BYTES, KEK_BYTES } from "../config/envelope.ts";
import { loadSecrets } from "../config/load-secrets.ts";
import { resolveNamedSecrets } from "../config/resolve-secrets.ts";
import { SECRET_BYTES_MAX } from "../config/schema.ts";
import { sealSecret } from "../config/secret-envelope.ts";
import { UbiError } from "../errors.ts";
import { log } from "../log.ts";
import { hardenOrWarn } from "./hardening.ts";
import { interruptible } from "./interruption.ts";
import {
  checkKekSize,
  readKek,
  readSecretInput,
  SECRET_ENCODINGS,
  type SecretEncoding,
  secretEncoding,
} from "./secret-input.ts";
import { envelopeLine, secretTable } from "./secret-text.ts";
import { writePieces } from "./standard-output.ts";

export default defineCommand({
  meta: {
    name: "wrap",
    description:
      "Encrypts a secret, which is read from standard input, with a key-encryption key (KEK), and prints the envelope " +
      "in base64. The name of the secret is authenticated with it: it opens under that name only",
  },
  args: {
    name: {
      type: "string",
      required: true,
      valueHint: "NAME",
      description: "NAME of [secrets.NAME]",
    },
    kek: {
      type: "string",
      valueHint: "FILE",
      description: `file or pipe with the KEK: ${KEK_BYTES} bytes, or base64 of them`,
    },
    config: {
      type: "string",
      alias: "f",
      valueHint: "FILE",
      description: "or a configuration that has the KEK in its [secrets]",
    },
    "kek-name": {
      type: "string",
      valueHint: "KEK",
      description: "name of the KEK there (default: what encrypted_by of NAME says, else kek)",
    },
    input: {
      type: "string",
      valueHint: "FILE",
      description: "file or pipe with the secret (default: standard input)",
    },
    encoding: {
      type: "enum",
      options: [...SECRET_ENCODINGS],
      default: "plaintext",
      description: "how the secret comes in: its bytes, or base64",
    },
    table: {
      type: "boolean",
      default: false,
      description: "print the whole table [secrets.NAME] for the configuration",
    },
  },
  run: ({ args }) =>
    wrap({
      name: args.name,
      kekPath: args.kek,
      configPath: args.config,
      kekName: args["kek-name"],
      inputPath: args.input,
      encoding: secretEncoding(args.encoding),
      isTable: args.table,
    }),
});

// --- internal ---

/** The envelope counts as the size of the secret. */
const WRAPPED_BYTES_MAX = SECRET_BYTES_MAX - ENVELOPE_OVERHEAD_BYTES;
/** Of keys. Whoever wraps the text of one most likely meant its bytes. */
const KEY_SIZES = [32, 64];

interface WrapOptions {
  readonly name: string;
  readonly kekPath: string | undefined;
  readonly configPath: string | undefined;
  readonly kekName: string | undefined;
  readonly inputPath: string | undefined;
  readonly encoding: SecretEncoding;
  readonly isTable: boolean;
}

interface NamedKek {
  readonly name: string;
  readonly kek: Uint8Array;
}

async function wrap(options: WrapOptions): Promise<void> {
  hardenOrWarn();
  checkFlags(options);
  await interruptible("the wrapping", async (signal) => {
    const { name, inputPath: path, encoding } = options;
    const { kek, name: kekName } = await findKek(options, signal);
    try {
      const secret = await readSecretInput({ path, encoding, what: "the secret", signal });
      try {
        checkSecret(secret, encoding);
        const envelope = sealSecret(secret, { name, kek });
        const text = options.isTable
          ? secretTable({ name, envelope, kekName })
          : envelopeLine(envelope);
        writePieces(1, [text]);
      } finally {
        secret.fill(0);
      }
    } finally {
      kek.fill(0);
    }
  });
}

function checkFlags({ name, kekPath, configPath }: WrapOptions): void {
  if (name === "") {
    throw new UbiError("E_USAGE", "--name: empty; give the NAME of [secrets.NAME]");
  }
  if ((kekPath === undefined) === (configPath === undefined)) {
    const message = "give either --kek FILE or --config FILE, which say where the KEK is";
    throw new UbiError("E_USAGE", message);
  }
}

async function findKek(options: WrapOptions, signal: AbortSignal): Promise<NamedKek> {
  if (options.kekPath !== undefined) {
    return { name: options.kekName ?? "kek", kek: await readKek(options.kekPath, signal) };
  }
  const document = await loadSecrets(options.configPath ?? "", signal);
  const declared = document.secrets.declaration(options.name)?.encrypted_by?.ref;
  const name = options.kekName ?? declared ?? "kek";
  using resolved = await resolveNamedSecrets(document, [name], signal);
  const { bytes } = resolved.get({ ref: name });
  checkKekSize(bytes, name);
  return { name, kek: bytes.slice() };
}

function checkSecret(secret: Uint8Array, encoding: SecretEncoding): void {
  if (secret.length > WRAPPED_BYTES_MAX) {
    const message = `the secret is too large: at most ${WRAPPED_BYTES_MAX} bytes can be wrapped`;
    throw new UbiError("E_SECRET_SIZE", message);
  }
  if (encoding === "base64") {
    return;
  }
  const decoded = base64Size(secret);
  if (decoded !== undefined && KEY_SIZES.includes(decoded)) {
    const what = `the secret looks like base64 of ${decoded} bytes, and is wrapped as it is written`;
    log.warn(`${what}; give --encoding base64 to wrap the bytes`);
  }
  if (secret.at(-1) === 0x0a) {
    log.warn("the secret ends in a newline, which is part of it");
  }
}
