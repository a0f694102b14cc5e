/** The sections that every kind of document has: secrets, and what dangers are allowed. */
import { Type } from "@sinclair/typebox";
import { closed, flag, keyOf, ours, path, text } from "./schema-values.ts";

export const DangerZoneSection = Type.Object(
  {
    enabled: flag("The other flags of this section have an effect only with this one."),
    allow_unencrypted_disk: flag("Allows a device without [encryption]."),
    allow_inline_plaintext_secrets: flag("Allows source.inline without encrypted_by."),
    allow_secret_over_regular_file: flag(
      "Allows secrets, and files of credentials, that lie on the disk as regular files.",
    ),
    allow_unencrypted_connection: flag(
      "Allows connections of stripe servers without psk, and http to other machines.",
    ),
    allow_env_secrets: flag("Allows secrets and credentials in the environment."),
    allow_plain_archive: flag(
      "Allows an archive of an encrypted disk without --encrypt: its data lies there in the clear.",
      ours,
    ),
    allow_archive_keys_in_clear: flag(
      "Allows an encrypted archive without archive_kek: its keys lie beside its data.",
      ours,
    ),
    allow_remote_metrics: flag(
      "Allows a metrics_address that other machines reach: anybody can read it, and it is not encrypted.",
      ours,
    ),
  },
  {
    ...closed,
    default: {},
    description: "Dangers that this document allows. All are refused otherwise.",
  },
);

/** One `[secrets.NAME]` table. `source` holds exactly one of its keys. */
export const SecretSection = Type.Object(
  {
    source: Type.Object(
      {
        file: Type.Optional(
          path({
            description:
              "Named pipe, device or file that holds the secret. A regular file needs allow_secret_over_regular_file.",
            examples: ["/run/ubiblk/NAME.pipe"],
          }),
        ),
        inline: Type.Optional(
          Type.String({
            description:
              "The secret itself. Without encrypted_by it needs allow_inline_plaintext_secrets.",
            examples: ["oKGio6Slpqeo..."],
          }),
        ),
        env: Type.Optional(
          text({
            description: "Environment variable that holds the secret. Needs allow_env_secrets.",
            examples: ["UBIBLK_KEY"],
          }),
        ),
        credential: Type.Optional(
          text({
            description:
              "Credential of the service: a file in the folder that CREDENTIALS_DIRECTORY names (LoadCredential= of systemd).",
            examples: ["NAME"],
            ...ours,
          }),
        ),
      },
      {
        ...closed,
        minProperties: 1,
        maxProperties: 1,
        description: "Where the secret comes from: exactly one of these keys.",
      },
    ),
    encoding: Type.Union([Type.Literal("plaintext"), Type.Literal("base64")], {
      default: "plaintext",
      description: "How the bytes of the secret, or of its envelope, are written.",
    }),
    encrypted_by: Type.Optional(
      keyOf(32, {
        description: "Key of exactly 32 bytes (KEK) that this secret is encrypted with.",
        examples: ["kek"],
      }),
    ),
    pipe_timeout_ms: Type.Integer({
      minimum: 1,
      maximum: 86_400_000,
      default: 300_000,
      description:
        "How long the writer of a pipe, and each next piece of data, is waited for, in milliseconds.",
      ...ours,
    }),
  },
  { ...closed, description: "A key or password, to which other sections refer by its NAME." },
);
