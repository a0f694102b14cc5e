/**
 * Which code computes AES-256-XTS: the fastest that this machine has and that gives the known answers.
 * A provider asked for by name that cannot work is passed over with one line in the log.
 *
 * Environment: `UBIBLK_XTS_PROVIDER` asks for a provider; `UBIBLK_ISAL_PATH` is an absolute path of
 * libisal_crypto; `UBIBLK_XTS_HIDE`, for tests, lists providers to treat as if this CPU lacked them.
 */
import { errorText, UbiError } from "../errors.ts";
import {
  loadIsal,
  loadPortableXts,
  probeXts,
  selfTestXts,
  XTS_PROVIDER_NUMBERS,
} from "../ffi/xts.ts";
import { log } from "../log.ts";

/** In order of preference. */
export const XTS_PROVIDERS = ["vaes512", "vaes256", "aesni", "isal", "portable"] as const;

export type XtsProvider = (typeof XTS_PROVIDERS)[number];

/**
 * The provider to use: the preferred one, else the environment's, else the first in order that works.
 * @throws UbiError E_CIPHER when the environment names an unknown provider, or when none works
 */
export function chooseProvider(preferred: XtsProvider | undefined): XtsProvider {
  const asked = preferred ?? providerFromEnvironment();
  const order = asked === undefined ? XTS_PROVIDERS : [asked, ...XTS_PROVIDERS];
  const failures: string[] = [];
  for (const provider of order) {
    const failure = providerProblem(provider);
    if (failure === undefined) {
      if (failures.length > 0) {
        log.warn(`cipher provider ${failures.join("; ")}; using ${provider}`);
      }
      return provider;
    }
    // A CPU that lacks what nobody asked for is no news; a wrong answer always is.
    if (failures.length === 0 && (provider === asked || failure.isFault)) {
      failures.push(`${provider} cannot be used: ${failure.reason}`);
    }
  }
  throw new UbiError("E_CIPHER", `no cipher provider works here (${failures.join("; ")})`);
}

/** Why a provider cannot be used here; undefined when it can: it gave the known answers. */
export function providerProblem(provider: XtsProvider): Failure | undefined {
  if ((process.env.UBIBLK_XTS_HIDE ?? "").split(",").includes(provider)) {
    return { reason: "hidden", isFault: false };
  }
  if (!outcomes.has(provider)) {
    outcomes.set(provider, loadFailureOf(provider) ?? testFailureOf(provider));
  }
  return outcomes.get(provider);
}

/** @throws UbiError E_CIPHER */
export function parseProvider(name: string, where: string): XtsProvider {
  const provider = XTS_PROVIDERS.find((known) => known === name);
  if (provider === undefined) {
    throw new UbiError(
      "E_CIPHER",
      `unknown cipher provider ${JSON.stringify(name)} in ${where}; use one of ${XTS_PROVIDERS.join(", ")}`,
    );
  }
  return provider;
}

// --- internal ---

interface Failure {
  readonly reason: string;
  /** It is there and ought to work. */
  readonly isFault: boolean;
}

const EIO = 5;

/** Both sets of reasons, by errno: of loading libisal_crypto, and of using any provider. */
const ISAL_REASONS: Readonly<Record<number, string>> = {
  1: "it is not a file of root or of this user that nobody else may write, or LD_LIBRARY_PATH is not absolute",
  2: "libisal_crypto.so.2 is not found",
  8: "it is not a library that loads",
  22: "UBIBLK_ISAL_PATH is not an absolute path",
  36: "UBIBLK_ISAL_PATH is too long",
  38: "it is too old, functions are missing from it",
  95: "this CPU lacks AES-NI",
};
const REASONS: Readonly<Record<number, string>> = {
  5: "it failed the test with known answers",
  12: "memory is short",
  95: "this CPU lacks it",
};

/** Outcomes of this thread, so that each provider is tested once. */
const outcomes = new Map<XtsProvider, Failure | undefined>();

function loadFailureOf(provider: XtsProvider): Failure | undefined {
  if (probeXts(XTS_PROVIDER_NUMBERS[provider]) === 0) {
    return undefined; // perhaps loaded by another thread: the library is one for all
  }
  if (provider === "isal") {
    const result = loadIsal(process.env.UBIBLK_ISAL_PATH ?? "");
    return result === 0 ? undefined : failure(result, ISAL_REASONS);
  }
  if (provider === "portable") {
    try {
      loadPortableXts();
    } catch (error) {
      return { reason: errorText(error), isFault: true };
    }
  }
  return undefined;
}

function testFailureOf(provider: XtsProvider): Failure | undefined {
  const result = selfTestXts(XTS_PROVIDER_NUMBERS[provider]);
  return result === 0 ? undefined : failure(result, REASONS);
}

function failure(result: number, reasons: Readonly<Record<number, string>>): Failure {
  return { reason: reasons[-result] ?? `error ${-result}`, isFault: result === -EIO };
}

function providerFromEnvironment(): XtsProvider | undefined {
  const name = process.env.UBIBLK_XTS_PROVIDER;
  return name === undefined || name === "" ? undefined : parseProvider(name, "UBIBLK_XTS_PROVIDER");
}
