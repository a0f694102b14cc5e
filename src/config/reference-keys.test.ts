import { expect, test } from "bun:test";
import type { TSchema } from "@sinclair/typebox";
import {
  ArchiveDocument,
  DeviceDocument,
  SecretSection,
  ServerDocument,
  TargetDocument,
} from "./schema.ts";

/** The keys that the reference implementation accepts, section by section; a union has those of all its members. */
const STORE = [
  "storage",
  "path",
  "bucket",
  "prefix",
  "region",
  "access_key_id.ref",
  "secret_access_key.ref",
  "session_token.ref",
  "endpoint",
  "connections",
  "connect_timeout_ms",
  "operation_attempt_timeout_ms",
  "max_attempts",
  "rate_limited_retry.enabled",
  "rate_limited_retry.min_delay_ms",
  "rate_limited_retry.jitter_ms",
  "archive_kek.ref",
  "autofetch",
];
const REMOTE = [
  "address",
  "psk.identity",
  "psk.secret.ref",
  "autofetch",
  "connect_timeout_ms",
  "operation_attempt_timeout_ms",
  "connections",
];
const REFERENCE_KEYS: Readonly<Record<string, readonly string[]>> = {
  device: [
    "data_path",
    "metadata_path",
    "vhost_socket",
    "rpc_socket",
    "device_id",
    "track_written",
  ],
  tuning: [
    "num_queues",
    "queue_size",
    "seg_size_max",
    "seg_count_max",
    "cpus",
    "poll_timeout_us",
    "io_engine",
    "write_through",
  ],
  encryption: ["xts_key.ref"],
  danger_zone: [
    "enabled",
    "allow_unencrypted_disk",
    "allow_inline_plaintext_secrets",
    "allow_secret_over_regular_file",
    "allow_unencrypted_connection",
    "allow_env_secrets",
  ],
  stripe_source: ["type", "image_path", "copy_on_read", ...STORE, ...REMOTE],
  target: STORE,
  archive: STORE,
  server: REMOTE,
  secrets: ["source.file", "source.inline", "source.env", "encoding", "encrypted_by.ref"],
};

const membersOf = (schema: TSchema): readonly TSchema[] =>
  schema.variants === undefined ? [schema] : schema.anyOf;

/** Every key below a section that holds a value, dotted, but those that only this program knows. */
const referenceKeysOf = (section: TSchema, prefix = ""): readonly string[] => {
  if (section.unknownToReference === true) {
    return [];
  }
  const keys = membersOf(section).flatMap((member) =>
    Object.entries<TSchema>(member.properties ?? {}).flatMap(([name, inner]) =>
      inner.properties === undefined && inner.unknownToReference !== true
        ? [`${prefix}${name}`]
        : referenceKeysOf(inner, `${prefix}${name}.`),
    ),
  );
  return [...new Set(keys)].sort();
};

const SECTIONS: Readonly<Record<string, TSchema>> = {
  ...DeviceDocument.properties,
  ...TargetDocument.properties,
  ...ArchiveDocument.properties,
  ...ServerDocument.properties,
  secrets: SecretSection,
};

test("a section knows every key of the reference, and marks every other as unknown to it", () => {
  for (const [name, section] of Object.entries(SECTIONS)) {
    const expected = [...new Set(REFERENCE_KEYS[name] ?? [])].sort();
    expect({ name, keys: referenceKeysOf(section) }).toEqual({ name, keys: expected });
  }
});

test("a section that the reference does not know is marked itself: it is refused without keys as well", () => {
  const unknown = Object.keys(SECTIONS).filter((name) => REFERENCE_KEYS[name] === undefined);
  expect(unknown.filter((name) => SECTIONS[name]?.unknownToReference !== true)).toEqual([]);
});

test("no section of the reference is missing", () => {
  expect(Object.keys(REFERENCE_KEYS).filter((name) => SECTIONS[name] === undefined)).toEqual([]);
});
