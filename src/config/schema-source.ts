/** Where stripes come from and where archives lie: the sections that describe stores and sources. */
import { Type } from "@sinclair/typebox";
import { remoteKeys } from "./schema-remote.ts";
import {
  closed,
  flag,
  keyOf,
  milliseconds,
  ours,
  path,
  SECRET_BYTES_MAX,
  type SecretSize,
  secret,
  text,
  UINT32_MAX,
} from "./schema-values.ts";

/** Where credentials of an S3 service can be found other than in secrets of the document. */
export const CREDENTIAL_PROVIDERS = [
  "environment",
  "profile",
  "web_identity",
  "container",
  "instance",
] as const;
export type CredentialProvider = (typeof CREDENTIAL_PROVIDERS)[number];

const CREDENTIAL: SecretSize = { bytesMin: 1, bytesMax: SECRET_BYTES_MAX, text: true };
const SENT_CREDENTIAL: SecretSize = { ...CREDENTIAL, header: true };

const autofetch = () => flag("Fetches all stripes in the background, not only those asked for.");

/** How a disk is filled, from whatever source. */
const fetchKeys = {
  background_bytes_per_second: Type.Optional(
    Type.Integer({
      minimum: 1,
      maximum: Number.MAX_SAFE_INTEGER,
      description: "Rate limit of the background fetch, in bytes a second. Absent: none.",
      examples: [104_857_600],
      ...ours,
    }),
  ),
  prefetch: Type.Optional(
    path({
      description: "List of ranges that the background fetches first, also without autofetch.",
      examples: ["/var/lib/ubiblk/boot.ranges"],
      ...ours,
    }),
  ),
  record: Type.Optional(
    path({
      description: "File to which a list of what the guest asks for is written, for prefetch.",
      examples: ["/var/lib/ubiblk/vm1/recorded.ranges"],
      ...ours,
    }),
  ),
};

const rawKeys = {
  image_path: path({
    description: "The image file or block device that the disk is filled from.",
    examples: ["/var/lib/ubiblk/images/debian.raw"],
  }),
  autofetch: autofetch(),
  copy_on_read: flag("Keeps what is read. Otherwise only stripes that are written are copied."),
};

const archiveKek = () =>
  keyOf(32, {
    description: "Key of exactly 32 bytes that the archive's own keys are wrapped with.",
    examples: ["kek"],
  });

const filesystemKeys = {
  storage: Type.Literal("filesystem", { description: "The archive is a folder." }),
  path: path({ description: "Folder of the archive.", examples: ["/archives/debian"] }),
  archive_kek: Type.Optional(archiveKek()),
  autofetch: autofetch(),
};

/** Who is asked for an archive in a bucket, and as whom. */
const bucketKeys = {
  storage: Type.Literal("s3", { description: "The archive lies in a bucket of an S3 service." }),
  bucket: text({ description: "Name of the bucket.", examples: ["backups"] }),
  prefix: Type.Optional(
    Type.String({
      description: "Stands in front of all object names, with a / between. No part may be . or ..",
      examples: ["debian"],
    }),
  ),
  region: Type.Optional(
    text({
      description: "Region of the bucket. Absent: AWS_REGION of the environment, or us-east-1.",
      examples: ["eu-central-1"],
    }),
  ),
  credentials: Type.Optional(
    Type.Array(Type.Union(CREDENTIAL_PROVIDERS.map((name) => Type.Literal(name))), {
      minItems: 1,
      uniqueItems: true,
      description:
        "Places where the machine has credentials, asked in this order. Takes the place of the three secrets.",
      examples: [["container", "instance"]],
      ...ours,
    }),
  ),
  access_key_id: Type.Optional(
    secret(SENT_CREDENTIAL, {
      description: "Access key id of the service. Required without credentials.",
      examples: ["s3_id"],
    }),
  ),
  secret_access_key: Type.Optional(
    secret(CREDENTIAL, {
      description: "Secret access key of the service. Required without credentials.",
      examples: ["s3_secret"],
    }),
  ),
  session_token: Type.Optional(
    secret(SENT_CREDENTIAL, {
      description: "Session token of temporary credentials.",
      examples: ["s3_token"],
    }),
  ),
  endpoint: Type.Optional(
    text({
      description:
        "URL of an S3-compatible service. Absent: AWS. http to another machine needs allow_unencrypted_connection.",
      examples: ["https://minio.example:9000"],
    }),
  ),
  force_path_style: flag("The bucket stands in the path of a URL, never in the host name.", ours),
  ca_file: Type.Optional(
    path({
      description: "PEM file of the certificate authorities to trust instead of the system's.",
      examples: ["/etc/ubiblk/ca.pem"],
      ...ours,
    }),
  ),
};

/** How objects of a bucket are sent and asked for. */
const transferKeys = {
  storage_class: Type.Optional(
    text({
      description: "Storage class of objects that are written. Absent: the bucket's.",
      examples: ["STANDARD_IA"],
      ...ours,
    }),
  ),
  server_side_encryption: Type.Optional(
    text({
      description: "How the service encrypts objects that are written. Absent: as it likes.",
      examples: ["AES256"],
      ...ours,
    }),
  ),
  checksums: Type.Union([Type.Literal("always"), Type.Literal("when_required")], {
    default: "always",
    description: "when_required leaves out the CRC-32 of objects, for services without it.",
    ...ours,
  }),
  connections: Type.Integer({
    minimum: 1,
    maximum: 128,
    default: 16,
    why: "more connections to one service are of no use",
    description: "Requests to the service at a time, of all threads together.",
  }),
  connect_timeout_ms: milliseconds(
    5000,
    "How long a connection to the service may take, in milliseconds.",
  ),
  operation_attempt_timeout_ms: milliseconds(
    20_000,
    "How long the service may take until its answer begins, in milliseconds, at each attempt.",
  ),
  max_attempts: Type.Integer({
    minimum: 1,
    maximum: UINT32_MAX,
    default: 3,
    description: "How often a request is made at most before it counts as failed.",
  }),
  rate_limited_retry: Type.Object(
    {
      enabled: flag("Waits as below after HTTP 429, 500, 502, 503 and 504."),
      min_delay_ms: Type.Integer({
        minimum: 0,
        maximum: Number.MAX_SAFE_INTEGER,
        default: 0,
        description: "The shortest wait in milliseconds. Above 0 when enabled.",
      }),
      jitter_ms: Type.Integer({
        minimum: 0,
        maximum: Number.MAX_SAFE_INTEGER,
        default: 0,
        description: "Up to this many milliseconds are added at random.",
      }),
    },
    {
      ...closed,
      default: {},
      description: "Waits of a fixed length before retries, for services that limit the rate.",
    },
  ),
};

const s3Keys = {
  ...bucketKeys,
  ...transferKeys,
  archive_kek: Type.Optional(archiveKek()),
  autofetch: autofetch(),
};

const rawType = Type.Literal("raw", { description: "Stripes come from an image." });
const archiveType = Type.Literal("archive", { description: "Stripes come from an archive." });
const remoteType = Type.Literal("remote", { description: "Stripes come from a stripe server." });

export const StripeSourceSection = Type.Union(
  [
    Type.Object({ type: rawType, ...rawKeys, ...fetchKeys }, closed),
    Type.Object({ type: archiveType, ...filesystemKeys, ...fetchKeys }, closed),
    Type.Object({ type: archiveType, ...s3Keys, ...fetchKeys }, closed),
    Type.Object({ type: remoteType, ...remoteKeys, ...fetchKeys }, closed),
  ],
  {
    variants: ["type", "storage"],
    description: "Where the stripes of a lazy disk come from. Needs device.metadata_path.",
  },
);

/** Of `[target]`, which is written to, and `[archive]`, which is read. */
export const archiveStore = (description: string) =>
  Type.Union([Type.Object(filesystemKeys, closed), Type.Object(s3Keys, closed)], {
    variants: ["storage"],
    description,
  });
