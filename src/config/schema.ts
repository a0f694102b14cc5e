/**
 * The four kinds of config document, as TypeBox schemas: the single source of types, defaults,
 * ranges and unknown-key checks. A key with a default is not optional here: defaults are filled in
 * before the check. What a schema cannot say (rules between keys) stands in rules.ts.
 *
 * Annotations of ours: `path` (a relative value is joined to the root file's directory), `secret`
 * (a reference to a secret, with the sizes it accepts), `variants` (the keys that choose among the
 * members of a union), `unknownToReference` (a key that the reference implementation rejects).
 */
import { type Static, Type } from "@sinclair/typebox";

/** Sizes in bytes that a use of a secret accepts; `text` demands valid UTF-8, `header` what a header can have. */
export interface SecretSize {
  readonly bytesMin: number;
  readonly bytesMax: number;
  readonly text?: boolean;
  readonly header?: boolean;
}

/** Where credentials of an S3 service can be found other than in secrets of the document. */
export const CREDENTIAL_PROVIDERS = [
  "environment",
  "profile",
  "web_identity",
  "container",
  "instance",
] as const;
export type CredentialProvider = (typeof CREDENTIAL_PROVIDERS)[number];

/** Of a secret after decoding; of an encrypted one, of its envelope. */
export const SECRET_BYTES_MAX = 8192;
const UINT32_MAX = 2 ** 32 - 1;
const closed = { additionalProperties: false } as const;
const ours = { unknownToReference: true } as const;

const path = () => Type.String({ minLength: 1, path: true });
const text = () => Type.String({ minLength: 1 });
const flag = (annotations: { readonly unknownToReference?: true } = {}) =>
  Type.Boolean({ default: false, ...annotations });
const count = (limits: { minimum: number; maximum: number; default: number }) =>
  Type.Integer(limits);
const milliseconds = (defaultMs: number) =>
  count({ minimum: 1, maximum: Number.MAX_SAFE_INTEGER, default: defaultMs });
const secret = (size: SecretSize) =>
  Type.Object({ ref: Type.String() }, { ...closed, secret: size });
const keyOf = (bytes: number) => secret({ bytesMin: bytes, bytesMax: bytes });
const credential = () => secret({ bytesMin: 1, bytesMax: SECRET_BYTES_MAX, text: true });
const sentCredential = () =>
  secret({ bytesMin: 1, bytesMax: SECRET_BYTES_MAX, text: true, header: true });

export const DeviceSection = Type.Object(
  {
    data_path: path(),
    metadata_path: Type.Optional(path()),
    vhost_socket: Type.Optional(path()),
    rpc_socket: Type.Optional(path()),
    device_id: Type.String({ default: "ubiblk" }),
    track_written: flag(),
    read_only: flag(ours),
  },
  closed,
);

export const TuningSection = Type.Object(
  {
    num_queues: count({ minimum: 1, maximum: 63, default: 1 }),
    queue_size: Type.Integer({
      minimum: 1,
      maximum: 32768,
      default: 64,
      why: "a virtqueue and an io_uring have 32768 entries at most",
    }),
    seg_size_max: count({ minimum: 1, maximum: 1 << 20, default: 65536 }),
    seg_count_max: count({ minimum: 1, maximum: 256, default: 4 }),
    cpus: Type.Optional(Type.Array(Type.Integer({ minimum: 0, maximum: UINT32_MAX }))),
    poll_timeout_us: count({ minimum: 0, maximum: 10_000_000, default: 1000 }),
    io_engine: Type.Union([Type.Literal("io_uring"), Type.Literal("sync")], {
      default: "io_uring",
    }),
    write_through: flag(),
    disable_discard: flag(ours),
    ublk_max_io_bytes: Type.Integer({
      minimum: 4096,
      maximum: 32 * 2 ** 20,
      default: 2 ** 20,
      ...ours,
    }),
  },
  { ...closed, default: {} },
);

const EncryptionSection = Type.Object({ xts_key: keyOf(64) }, closed);

export const DangerZoneSection = Type.Object(
  {
    enabled: flag(),
    allow_unencrypted_disk: flag(),
    allow_inline_plaintext_secrets: flag(),
    allow_secret_over_regular_file: flag(),
    allow_unencrypted_connection: flag(),
    allow_env_secrets: flag(),
    allow_plain_archive: flag(ours),
    allow_archive_keys_in_clear: flag(ours),
  },
  { ...closed, default: {} },
);

/** How a disk is filled, from whatever source. */
const fetchKeys = {
  background_bytes_per_second: Type.Optional(
    Type.Integer({ minimum: 1, maximum: Number.MAX_SAFE_INTEGER, ...ours }),
  ),
  prefetch: Type.Optional(Type.String({ minLength: 1, path: true, ...ours })),
  record: Type.Optional(Type.String({ minLength: 1, path: true, ...ours })),
};

const rawKeys = {
  image_path: path(),
  autofetch: flag(),
  copy_on_read: flag(),
};

const filesystemKeys = {
  storage: Type.Literal("filesystem"),
  path: path(),
  archive_kek: Type.Optional(keyOf(32)),
  autofetch: flag(),
};

const s3Keys = {
  storage: Type.Literal("s3"),
  bucket: text(),
  prefix: Type.Optional(Type.String()),
  region: Type.Optional(text()),
  credentials: Type.Optional(
    Type.Array(Type.Union(CREDENTIAL_PROVIDERS.map((name) => Type.Literal(name))), {
      minItems: 1,
      uniqueItems: true,
      ...ours,
    }),
  ),
  access_key_id: Type.Optional(sentCredential()),
  secret_access_key: Type.Optional(credential()),
  session_token: Type.Optional(sentCredential()),
  endpoint: Type.Optional(text()),
  force_path_style: flag(ours),
  ca_file: Type.Optional(Type.String({ minLength: 1, path: true, ...ours })),
  storage_class: Type.Optional(Type.String({ minLength: 1, ...ours })),
  server_side_encryption: Type.Optional(Type.String({ minLength: 1, ...ours })),
  checksums: Type.Union([Type.Literal("always"), Type.Literal("when_required")], {
    default: "always",
    ...ours,
  }),
  connections: Type.Integer({
    minimum: 1,
    maximum: 128,
    default: 16,
    why: "more connections to one service are of no use",
  }),
  connect_timeout_ms: milliseconds(5000),
  operation_attempt_timeout_ms: milliseconds(20_000),
  max_attempts: count({ minimum: 1, maximum: UINT32_MAX, default: 3 }),
  rate_limited_retry: Type.Object(
    {
      enabled: flag(),
      min_delay_ms: count({ minimum: 0, maximum: Number.MAX_SAFE_INTEGER, default: 0 }),
      jitter_ms: count({ minimum: 0, maximum: Number.MAX_SAFE_INTEGER, default: 0 }),
    },
    { ...closed, default: {} },
  ),
  archive_kek: Type.Optional(keyOf(32)),
  autofetch: flag(),
};

const remoteKeys = {
  address: text(),
  psk: Type.Optional(
    Type.Object({ identity: text(), secret: secret({ bytesMin: 16, bytesMax: 512 }) }, closed),
  ),
  autofetch: flag(),
  connect_timeout_ms: milliseconds(5000),
  operation_attempt_timeout_ms: milliseconds(20_000),
  connections: count({ minimum: 1, maximum: 65_535, default: 16 }),
};

export const StripeSourceSection = Type.Union(
  [
    Type.Object({ type: Type.Literal("raw"), ...rawKeys, ...fetchKeys }, closed),
    Type.Object({ type: Type.Literal("archive"), ...filesystemKeys, ...fetchKeys }, closed),
    Type.Object({ type: Type.Literal("archive"), ...s3Keys, ...fetchKeys }, closed),
    Type.Object({ type: Type.Literal("remote"), ...remoteKeys, ...fetchKeys }, closed),
  ],
  { variants: ["type", "storage"] },
);

export const ArchiveStoreSection = Type.Union(
  [Type.Object(filesystemKeys, closed), Type.Object(s3Keys, closed)],
  { variants: ["storage"] },
);

export const ServerSection = Type.Object(
  {
    ...remoteKeys,
    address: Type.Optional(text()),
    unix_socket: Type.Optional(Type.String({ minLength: 1, path: true, ...ours })),
    rpc_socket: Type.Optional(Type.String({ minLength: 1, path: true, ...ours })),
    max_connections: Type.Integer({ minimum: 1, maximum: 4096, default: 256, ...ours }),
    idle_timeout_ms: Type.Integer({
      minimum: 1,
      maximum: Number.MAX_SAFE_INTEGER,
      default: 3_600_000,
      ...ours,
    }),
  },
  closed,
);

/** One `[secrets.NAME]` table. `source` holds exactly one of its three keys. */
export const SecretSection = Type.Object(
  {
    source: Type.Object(
      {
        file: Type.Optional(path()),
        inline: Type.Optional(Type.String()),
        env: Type.Optional(text()),
      },
      { ...closed, minProperties: 1, maxProperties: 1 },
    ),
    encoding: Type.Union([Type.Literal("plaintext"), Type.Literal("base64")], {
      default: "plaintext",
    }),
    encrypted_by: Type.Optional(keyOf(32)),
    /** How long a pipe without a writer is waited for. */
    pipe_timeout_ms: Type.Integer({
      minimum: 1,
      maximum: 86_400_000,
      default: 300_000,
      ...ours,
    }),
  },
  closed,
);

const shared = {
  danger_zone: DangerZoneSection,
  secrets: Type.Record(Type.String(), SecretSection, { default: {} }),
};

export const DeviceDocument = Type.Object(
  {
    device: DeviceSection,
    tuning: TuningSection,
    encryption: Type.Optional(EncryptionSection),
    stripe_source: Type.Optional(StripeSourceSection),
    ...shared,
  },
  closed,
);
/** A device document for a program that only needs the key: `[encryption]` is what must be there. */
export const KeyDocument = Type.Object(
  {
    ...DeviceDocument.properties,
    device: Type.Optional(DeviceSection),
    encryption: EncryptionSection,
  },
  closed,
);
export const TargetDocument = Type.Object({ target: ArchiveStoreSection, ...shared }, closed);
export const ArchiveDocument = Type.Object({ archive: ArchiveStoreSection, ...shared }, closed);
export const ServerDocument = Type.Object({ server: ServerSection, ...shared }, closed);

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
