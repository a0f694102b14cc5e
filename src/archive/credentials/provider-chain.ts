/** The places of `credentials`, asked in their order: the first where something is set up counts, and has to work. */
import { homedir } from "node:os";
import { hideVariable, variableOf } from "../../config/hidden-variables.ts";
import type { CredentialProvider, DangerFlag } from "../../config/schema.ts";
import { UbiError } from "../../errors.ts";
import { log } from "../../log.ts";
import { containerCredentials } from "./container-provider.ts";
import type { CredentialSource, FoundCredentials } from "./credential-source.ts";
import { environmentCredentials } from "./environment-provider.ts";
import { instanceCredentials } from "./instance-provider.ts";
import { profileCredentials } from "./profile-provider.ts";
import type { Provider, ProviderSurroundings } from "./provider.ts";
import { webIdentityCredentials } from "./web-identity-provider.ts";

export interface ChainSettings {
  readonly providers: readonly CredentialProvider[];
  readonly region: string;
  readonly caCertificates: string | undefined;
  readonly isAllowed: (flag: DangerFlag) => boolean;
}

export function providerChain(settings: ChainSettings): CredentialSource {
  const warned = new Set<string>();
  const warn = (message: string) => {
    if (!warned.has(message)) {
      warned.add(message);
      log.warn(message);
    }
  };
  return {
    readMsMax: READ_MS_MAX,
    read: (signal) =>
      withDeadline(signal, (bounded) =>
        askAll(settings.providers, surroundingsOf(settings, warn, bounded)),
      ),
  };
}

/** @throws UbiError E_CREDENTIALS that says of each place what is missing there */
export async function askAll(
  providers: readonly CredentialProvider[],
  surroundings: ProviderSurroundings,
): Promise<FoundCredentials> {
  const reasons: string[] = [];
  for (const name of providers) {
    const answer = await PROVIDERS[name](surroundings);
    if (answer.kind === "found") {
      return answer;
    }
    reasons.push(`${name}: ${answer.why}`);
  }
  throw new UbiError("E_CREDENTIALS", `no place has credentials: ${reasons.join("; ")}`);
}

// --- internal ---

const READ_MS_MAX = 60_000;

const PROVIDERS: Readonly<Record<CredentialProvider, Provider>> = {
  environment: environmentCredentials,
  profile: profileCredentials,
  web_identity: webIdentityCredentials,
  container: containerCredentials,
  instance: instanceCredentials,
};

function surroundingsOf(
  { region, caCertificates, isAllowed }: ChainSettings,
  warn: (message: string) => void,
  signal: AbortSignal,
): ProviderSurroundings {
  return {
    variable: (name) => variableOf(name) || undefined,
    hide: hideVariable,
    homeFolder: homedir(),
    region,
    caCertificates,
    mayReadEnvironment: isAllowed("allow_env_secrets"),
    mayConnectUnencrypted: isAllowed("allow_unencrypted_connection"),
    files: {
      mayReadRegularFiles: isAllowed("allow_secret_over_regular_file"),
      warn,
      signal,
    },
    signal,
  };
}

/** Whatever the places do, it has an end. */
async function withDeadline<T>(
  signal: AbortSignal,
  work: (signal: AbortSignal) => Promise<T>,
): Promise<T> {
  const controller = new AbortController();
  const timer = setTimeout(() => {
    const message = `no place gave credentials within ${READ_MS_MAX} ms`;
    controller.abort(new UbiError("E_CREDENTIALS", message));
  }, READ_MS_MAX);
  try {
    return await work(AbortSignal.any([signal, controller.signal]));
  } finally {
    clearTimeout(timer);
  }
}
