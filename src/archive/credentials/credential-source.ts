/** Where credentials come from: secrets of a document, or what the machine offers. */
import { isHeaderText } from "../../config/header-text.ts";
import type { SecretOrigin, SecretReference } from "../../config/resolve-secrets.ts";
import { assert } from "../../errors.ts";
import type { Credentials } from "./credentials.ts";

export interface FoundCredentials {
  readonly credentials: Credentials;
  /** False when reading again always brings the same. */
  readonly canChange: boolean;
}

export interface CredentialSource {
  /** How long a reading can take. */
  readonly readMsMax: number;
  /**
   * Reads all anew.
   * @throws UbiErrors, UbiError E_SECRET*, E_STORE; the signal's reason
   */
  readonly read: (signal: AbortSignal) => Promise<FoundCredentials>;
}

/** The keys of a section that refer to secrets. */
export interface CredentialReferences {
  readonly accessKeyId: SecretReference;
  readonly secretAccessKey: SecretReference;
  readonly sessionToken: SecretReference | undefined;
}

/** The part of `ResolvedSecrets` that holds bytes. */
interface SecretBytes {
  get(reference: SecretReference): { readonly bytes: Uint8Array };
}

/** @param secrets were read for these keys, and so found to be what can be sent */
export function credentialsIn(secrets: SecretBytes, references: CredentialReferences): Credentials {
  const text = ({ ref }: SecretReference) =>
    new TextDecoder("utf-8", { fatal: true }).decode(secrets.get({ ref }).bytes);
  const sent = (reference: SecretReference) => {
    const value = text(reference);
    assert(isHeaderText(value), "what a header cannot have was refused when it was read");
    return value;
  };
  const { accessKeyId, secretAccessKey, sessionToken } = references;
  return {
    accessKeyId: sent(accessKeyId),
    secretAccessKey: text(secretAccessKey),
    ...(sessionToken === undefined ? {} : { sessionToken: sent(sessionToken) }),
  };
}

export function namedIn(references: CredentialReferences): readonly SecretReference[] {
  const { accessKeyId, secretAccessKey, sessionToken } = references;
  return [accessKeyId, secretAccessKey, ...(sessionToken === undefined ? [] : [sessionToken])];
}

/** Secrets of a document. A pipe among them needs a writer each time. */
export function secretSource(
  origin: SecretOrigin,
  references: CredentialReferences,
): CredentialSource {
  return {
    readMsMax: origin.waitMsMax,
    read: async (signal) => {
      using secrets = await origin.read(signal);
      const { canChange } = origin;
      return { credentials: credentialsIn(secrets, references), canChange };
    },
  };
}
