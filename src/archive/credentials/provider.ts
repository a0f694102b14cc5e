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

/**
 * Two variables of which one is nothing without the other; undefined when neither is set.
 * @throws UbiError E_CREDENTIALS
 */
export function pairOf(
  provider: CredentialProvider,
  variable: ProviderSurroundings["variable"],
  [one, other]: readonly [string, string],
): readonly [string, string] | undefined {
  const [first, second] = [variable(one), variable(other)];
  if (first === undefined && second === undefined) {
    return undefined;
  }
  if (first === undefined || second === undefined) {
    const [is, lacks] = first === undefined ? [other, one] : [one, other];
    throw providerError(provider, `${is} is set and ${lacks} is not; set both, or none`);
  }
  return [first, second];
}

/**
 * The address of a service where a variable names one. What is said and answered there is secret.
 * @param isNear whether a host is this machine, or as good as that
 * @throws UbiError E_CREDENTIALS, E_CONFIG_DANGER
 */
export function namedService(
  provider: CredentialProvider,
  name: string,
  {
    variable,
    mayConnectUnencrypted,
  }: Pick<ProviderSurroundings, "variable" | "mayConnectUnencrypted">,
  isNear: (hostname: string) => boolean,
): URL | undefined {
  const named = variable(name);
  if (named === undefined) {
    return undefined;
  }
  if (!URL.canParse(named)) {
    throw providerError(provider, `${name} is not a URL`);
  }
  const url = new URL(named);
  if (url.protocol !== "http:" && url.protocol !== "https:") {
    throw providerError(provider, `${name} is not the URL of a service: http or https is expected`);
  }
  if (url.protocol === "http:" && !isNear(url.hostname) && !mayConnectUnencrypted) {
    throw new UbiError(
      "E_CONFIG_DANGER",
      `credentials "${provider}": ${name} is http to another machine; use https, or set danger_zone.enabled with ` +
        "danger_zone.allow_unencrypted_connection",
    );
  }
  return url;
}
