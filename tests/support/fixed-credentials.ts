/** Credentials that never change, for stores that tests open. */
import { CredentialKeeper } from "../../src/archive/credentials/credential-keeper.ts";
import type { SharedCredentials } from "../../src/archive/credentials/shared-credentials.ts";

export interface TestCredentials {
  readonly accessKeyId: string;
  readonly secretAccessKey: string;
  readonly sessionToken?: string | undefined;
}

export function fixedCredentials(credentials: TestCredentials): SharedCredentials {
  const { accessKeyId, secretAccessKey, sessionToken } = credentials;
  const token = sessionToken === undefined ? {} : { sessionToken };
  const found = { credentials: { accessKeyId, secretAccessKey, ...token }, canChange: false };
  return new CredentialKeeper("test", found, undefined).shared;
}
