/** What all places have in common where a machine may offer credentials. */
import type { CredentialProvider } from "../../config/schema.ts";
import type { FileSourcePolicy } from "../../config/secret-sources.ts";
import { UbiError } from "../../errors.ts";
import type { FoundCredentials } from "./credential-source.ts";

/** What a provider may use, and what it may not. */
export interface ProviderSurroundings {
  /** A variable of the environment; an empty one is none. */
  readonly variable: (name: string) => string | undefined;
  /** Makes a variable that holds a secret invisible to children. */
  readonly hide: (name: string) => void;
  readonly homeFolder: string;
  /** Of the bucket. */
  readonly region: string;
  /** To be trusted instead of the system's. */
  readonly caCertificates: string | undefined;
  readonly mayReadEnvironment: boolean;
  readonly mayConnectUnencrypted: boolean;
  readonly files: FileSourcePolicy;
  readonly signal: AbortSignal;
}

/** `absent`: nothing is set up there, as `why` tells; the next place is asked. */
export type ProviderAnswer =
  | ({ readonly kind: "found" } & FoundCredentials)
  | { readonly kind: "absent"; readonly why: string };

/** @throws UbiError E_CREDENTIALS, E_CONFIG_DANGER, E_SECRET_READ when something is set up and does not work */
export type Provider = (surroundings: ProviderSurroundings) => Promise<ProviderAnswer>;

export function absent(why: string): ProviderAnswer {
  return { kind: "absent", why };
}

/** Of a provider that is set up and does not work. */
export function providerError(provider: CredentialProvider, what: string): UbiError {
  return new UbiError("E_CREDENTIALS", `credentials "${provider}": ${what}`);
}
