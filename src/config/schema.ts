/**
 * The four kinds of config document, as TypeBox schemas: the single source of types, defaults,
 * ranges, unknown-key checks and of what users are told about a key. A key with a default is not
 * optional here: defaults are filled in before the check. What a schema cannot say (rules between
 * keys) stands in section-rules.ts.
 *
 * Annotations of ours: `path` (a relative value is joined to the root file's directory), `secret`
 * (a reference to a secret, with the sizes it accepts), `variants` (the keys that choose among the
 * members of a union), `unknownToReference` (a key that the reference implementation rejects).
 */
import { type Static, Type } from "@sinclair/typebox";
import { DeviceSection, EncryptionSection, TuningSection } from "./schema-device.ts";
import { LimitsSection } from "./schema-limits.ts";
import { ServerSection } from "./schema-remote.ts";
import { DangerZoneSection, SecretSection } from "./schema-secrets.ts";
import { archiveStore, StripeSourceSection } from "./schema-source.ts";
import { closed } from "./schema-values.ts";

export { DeviceSection, TuningSection } from "./schema-device.ts";
export { LimitsSection } from "./schema-limits.ts";
export { ServerSection } from "./schema-remote.ts";
export { DangerZoneSection, SecretSection } from "./schema-secrets.ts";
export {
  CREDENTIAL_PROVIDERS,
  type CredentialProvider,
  StripeSourceSection,
} from "./schema-source.ts";
export { SECRET_BYTES_MAX, type SecretSize } from "./schema-values.ts";

export const INCLUDES_MAX = 64;
/** The files of a root file's `include`, which is taken out before its sections are looked at. */
export const IncludeList = Type.Array(
  Type.String({ minLength: 1, description: "A relative path without .., optional with ? behind." }),
  {
    maxItems: INCLUDES_MAX,
    description:
      "Files whose keys are joined with those of this one. With a ? behind it a file may be absent.",
    examples: [["secrets.toml", "tuning.toml?"]],
  },
);

export const ArchiveStoreSection = archiveStore("Where an archive lies that is read.");
const TargetSection = archiveStore("Where an archive is written to.");

const shared = {
  danger_zone: DangerZoneSection,
  secrets: Type.Record(Type.String(), SecretSection, {
    default: {},
    description: "Keys and passwords by name.",
  }),
};

export const DeviceDocument = Type.Object(
  {
    device: DeviceSection,
    tuning: TuningSection,
    limits: LimitsSection,
    encryption: Type.Optional(EncryptionSection),
    stripe_source: Type.Optional(StripeSourceSection),
    ...shared,
  },
  { ...closed, description: "A disk: for all commands with --config." },
);
/** A device document for a program that only needs the key: `[encryption]` is what must be there. */
export const KeyDocument = Type.Object(
  {
    ...DeviceDocument.properties,
    device: Type.Optional(DeviceSection),
    encryption: EncryptionSection,
  },
  { ...closed, description: "The key of a disk: for `ubiblk xts`." },
);
export const TargetDocument = Type.Object(
  { target: TargetSection, ...shared },
  {
    ...closed,
    description: "Where an archive is written to: for --target-config of `ubiblk archive`.",
  },
);
export const ArchiveDocument = Type.Object(
  { archive: ArchiveStoreSection, ...shared },
  {
    ...closed,
    description:
      "Where an archive is read from: for --source of `ubiblk export-archive` and others.",
  },
);
export const ServerDocument = Type.Object(
  { server: ServerSection, ...shared },
  {
    ...closed,
    description: "A stripe server: for --listen-config and --server-config.",
  },
);
/** What documents of all kinds have. */
export const SecretsDocument = Type.Object(shared, closed);

export type DangerFlag = Exclude<keyof Static<typeof DangerZoneSection>, "enabled">;

/** Keys as documents write them become names as code writes them: `data_path` to `dataPath`. */
export type Settings<T> = T extends readonly (infer Item)[]
  ? readonly Settings<Item>[]
  : T extends object
    ? { readonly [Key in keyof T as Key extends string ? CamelCase<Key> : Key]: Settings<T[Key]> }
    : T;

type CamelCase<Name extends string> = Name extends `${infer Head}_${infer Tail}`
  ? `${Head}${Capitalize<CamelCase<Tail>>}`
  : Name;
