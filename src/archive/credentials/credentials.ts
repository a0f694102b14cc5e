/** What a request is signed with, and the bytes in which threads hand it to each other. */
import { type Static, Type } from "@sinclair/typebox";
import { Check } from "@sinclair/typebox/value";
import { assert, UbiError } from "../../errors.ts";

const CredentialsSchema = Type.Object({
  accessKeyId: Type.String({ minLength: 1 }),
  secretAccessKey: Type.String({ minLength: 1 }),
  sessionToken: Type.Optional(Type.String({ minLength: 1 })),
  /** By the clock of this machine; absent: they have no end that is known. */
  expiresAtMs: Type.Optional(Type.Number()),
});

/** Never log it. */
export type Credentials = Readonly<Static<typeof CredentialsSchema>>;

/** Three texts of 8192 bytes, of which many characters may need an escape. */
export const CREDENTIALS_BYTES_MAX = 64 * 1024;

/** @throws UbiError E_STORE when they are larger than any service makes them */
export function encodeCredentials(credentials: Credentials): Uint8Array {
  const bytes = new TextEncoder().encode(JSON.stringify(credentials));
  if (bytes.length > CREDENTIALS_BYTES_MAX) {
    bytes.fill(0);
    throw new UbiError("E_STORE", "the credentials are too large: 64 KiB is more than any have");
  }
  return bytes;
}

export function decodeCredentials(bytes: Uint8Array): Credentials {
  const value: unknown = JSON.parse(new TextDecoder().decode(bytes));
  assert(Check(CredentialsSchema, value), "credentials are handed over as they were encoded");
  return value;
}

export function areSame(one: Credentials, other: Credentials): boolean {
  return (
    one.accessKeyId === other.accessKeyId &&
    one.secretAccessKey === other.secretAccessKey &&
    one.sessionToken === other.sessionToken &&
    one.expiresAtMs === other.expiresAtMs
  );
}

/** The texts that no message may show. */
export function secretsOf({ secretAccessKey, sessionToken }: Credentials): readonly string[] {
  return [secretAccessKey, sessionToken ?? ""];
}
