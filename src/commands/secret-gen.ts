/** `ubiblk secret gen`: a new key from the system's random source. */
import { randomBytes } from "node:crypto";
import { defineCommand } from "citty";
import { KEK_BYTES } from "../config/envelope.ts";
import { SECRET_BYTES_MAX } from "../config/schema.ts";
import { UbiError } from "../errors.ts";
import { integerArgument } from "./arguments.ts";
import { hardenOrWarn } from "./hardening.ts";
import { SECRET_OUTPUT_FLAGS, secretDestination, writeSecret } from "./secret-output.ts";

/** What keys are for, and how many bytes they have then. */
const KINDS: Readonly<Record<string, number>> = { "xts-key": 64, kek: KEK_BYTES, psk: 32 };

export default defineCommand({
  meta: {
    name: "gen",
    description:
      "Makes a new secret from the system's random source: the key of a disk (64 bytes), a key-encryption key (32), " +
      "or the key that a stripe server and its clients share (32)",
  },
  args: {
    kind: {
      type: "enum",
      options: Object.keys(KINDS),
      description: "what it is for, which says how long it is",
    },
    bytes: {
      type: "string",
      valueHint: "N",
      description: "how long it is, instead of --kind",
      integer: { minimum: 1, maximum: SECRET_BYTES_MAX },
    },
    ...SECRET_OUTPUT_FLAGS,
  },
  run: ({ args }) => {
    hardenOrWarn();
    const sizeBytes = sizeOf(args.kind, integerArgument(args.bytes));
    const destination = secretDestination(args);
    const secret = randomBytes(sizeBytes);
    try {
      writeSecret(secret, destination);
    } finally {
      secret.fill(0);
    }
  },
});

// --- internal ---

function sizeOf(kind: string | undefined, bytes: number | undefined): number {
  const size = kind === undefined ? bytes : KINDS[kind];
  if (size === undefined || (kind !== undefined && bytes !== undefined)) {
    const kinds = Object.keys(KINDS).join(", ");
    throw new UbiError("E_USAGE", `give either --kind (${kinds}) or --bytes N`);
  }
  return size;
}
