/**
 * What the keys of documents hold: builders for the schemas of sections. Each key has a description
 * (one or two sentences with unit and effect); one without a default has an example as well. Both
 * are shown to users, by editors and in samples.
 */
import { Type } from "@sinclair/typebox";

/** Sizes in bytes that a use of a secret accepts; `text` demands valid UTF-8, `header` what a header can have. */
export interface SecretSize {
  readonly bytesMin: number;
  readonly bytesMax: number;
  readonly text?: boolean;
  readonly header?: boolean;
}

/** The annotation of a key that the reference implementation rejects. */
interface Ours {
  readonly unknownToReference?: true;
}

/** What is told of a key without a default. */
interface About extends Ours {
  readonly description: string;
  readonly examples: readonly string[];
}

export const closed = { additionalProperties: false } as const;
export const ours = { unknownToReference: true } as const;

/** Of a secret after decoding; of an encrypted one, of its envelope. */
export const SECRET_BYTES_MAX = 8192;
export const UINT32_MAX = 2 ** 32 - 1;

export const path = (about: About) => Type.String({ minLength: 1, path: true, ...about });
export const text = (about: About) => Type.String({ minLength: 1, ...about });
export const flag = (description: string, annotations: Ours = {}) =>
  Type.Boolean({ default: false, description, ...annotations });
export const milliseconds = (defaultMs: number, description: string) =>
  Type.Integer({ minimum: 1, maximum: Number.MAX_SAFE_INTEGER, default: defaultMs, description });

/** A reference to a secret; the example is a name. */
export const secret = (size: SecretSize, { examples, ...about }: About) => {
  const description = "The NAME of a [secrets.NAME].";
  const ref = Type.String({ description, examples });
  return Type.Object({ ref }, { ...closed, secret: size, ...about });
};
export const keyOf = (bytes: number, about: About) =>
  secret({ bytesMin: bytes, bytesMax: bytes }, about);

/** Beside the path of a Unix socket: who may connect to it. */
export const socketMode = () =>
  Type.Optional(
    Type.String({
      pattern: "^0?[0-7]{3}$",
      why: 'an octal mode such as "0660" is expected',
      description:
        "Mode of the socket's file, octal; to connect takes the right to write. Without the key 0660.",
      examples: ["0660"],
      ...ours,
    }),
  );
export const socketOwner = () =>
  Type.Optional(
    text({
      description:
        "User that the socket's file is given to, by name or number. Without the key that of the process.",
      examples: ["root"],
      ...ours,
    }),
  );
export const socketGroup = () =>
  Type.Optional(
    text({
      description:
        "Group that the socket's file is given to, by name or number. Without the key that of the process.",
      examples: ["kvm"],
      ...ours,
    }),
  );
