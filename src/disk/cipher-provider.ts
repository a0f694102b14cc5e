/**
 * Which code computes AES-256-XTS: the fastest that this machine has and that gives the known answers.
 * A provider asked for by name that cannot work is passed over with one line in the log.
 */
import { errnoText, UbiError } from "../errors.ts";
import { selfTestXts, XTS_PROVIDER_NUMBERS } from "../ffi/xts.ts";
import { log } from "../log.ts";

/** In order of preference. */
export const XTS_PROVIDERS = ["vaes512", "aesni", "isal", "portable"] as const;

export type XtsProvider = (typeof XTS_PROVIDERS)[number];

/** @throws UbiError E_CIPHER when the environment names an unknown provider, or when none works */
export function chooseProvider(preferred: XtsProvider | undefined): XtsProvider {
  const first = preferred ?? providerFromEnvironment();
  const order = first === undefined ? XTS_PROVIDERS : [first, ...XTS_PROVIDERS];
  for (const provider of order) {
    const result = selfTest(provider);
    if (result === 0) {
      return provider;
    }
    if (provider === first || result === -EIO) {
      log.warn("cipher provider passed over", { provider, reason: errnoText(result) });
    }
  }
  throw new UbiError("E_CIPHER", "no cipher provider works on this machine");
}

/** @throws UbiError E_CIPHER */
export function parseProvider(name: string, where: string): XtsProvider {
  const provider = XTS_PROVIDERS.find((known) => known === name);
  if (provider === undefined) {
    throw new UbiError(
      "E_CIPHER",
      `unknown cipher provider "${name}" in ${where}; use one of ${XTS_PROVIDERS.join(", ")}`,
    );
  }
  return provider;
}

// --- internal ---

const EIO = 5;

const results = new Map<XtsProvider, number>();

function selfTest(provider: XtsProvider): number {
  const result = results.get(provider) ?? selfTestXts(XTS_PROVIDER_NUMBERS[provider]);
  results.set(provider, result);
  return result;
}

function providerFromEnvironment(): XtsProvider | undefined {
  const name = process.env.UBIBLK_XTS_PROVIDER;
  return name === undefined || name === "" ? undefined : parseProvider(name, "UBIBLK_XTS_PROVIDER");
}
