/** What computes AES-256-XTS here, and how fast: every provider that works is measured for a moment. */
import { XtsCipher } from "../disk/cipher.ts";
import {
  chooseProvider,
  providerProblem,
  XTS_PROVIDERS,
  type XtsProvider,
} from "../disk/cipher-provider.ts";
import { assert, UbiError } from "../errors.ts";
import { Arena } from "../ffi/arena.ts";
import { clockNs } from "../ffi/event.ts";
import { XTS_KEY_BYTES } from "../ffi/xts.ts";
import type { Finding } from "./finding.ts";

export function* examineCiphers(): Generator<Finding> {
  let chosen: XtsProvider | undefined;
  try {
    chosen = chooseProvider(undefined);
  } catch (error) {
    if (!(error instanceof UbiError)) {
      throw error;
    }
    const advice = "unset UBIBLK_XTS_PROVIDER, or name one of the providers";
    yield { check: "chosen", verdict: "fail", found: error.message, advice };
  }
  const asked = process.env.UBIBLK_XTS_PROVIDER ?? "";
  if (chosen !== undefined && asked !== "" && asked !== chosen) {
    const found = `UBIBLK_XTS_PROVIDER asks for ${asked}, which does not work here`;
    yield { check: "chosen", verdict: "warn", found, advice: `mend it, or use ${chosen}` };
  }
  for (const provider of XTS_PROVIDERS) {
    const problem = providerProblem(provider);
    yield problem === undefined
      ? speedFinding({
          provider,
          gigabytesPerSecond: measure(provider),
          isChosen: provider === chosen,
        })
      : problemFinding({ provider, ...problem });
  }
}

export function speedFinding(facts: {
  readonly provider: XtsProvider;
  readonly gigabytesPerSecond: number;
  readonly isChosen: boolean;
}): Finding {
  const { provider, gigabytesPerSecond, isChosen } = facts;
  const found = `${gigabytesPerSecond.toFixed(1)} GB/s a CPU${isChosen ? ", which disks use" : ""}`;
  return isChosen && gigabytesPerSecond < SLOW_GIGABYTES
    ? {
        check: provider,
        verdict: "warn",
        found,
        advice:
          "a fast disk waits for the cipher; use a CPU with AES instructions, and hand them on to guests",
      }
    : { check: provider, verdict: "ok", found };
}

/** What a machine lacks is no fault; a library that computes wrongly is one. */
export function problemFinding(facts: {
  readonly provider: XtsProvider;
  readonly reason: string;
  readonly isFault: boolean;
}): Finding {
  const { provider, reason, isFault } = facts;
  return isFault
    ? {
        check: provider,
        verdict: "fail",
        found: reason,
        advice: "do not use this machine for keys",
      }
    : { check: provider, verdict: "skip", found: reason };
}

// --- internal ---

const SLOW_GIGABYTES = 0.5;
const MEASURED_NS = 60e6;
const SECTORS = 128;
const SECTOR_BYTES = 512;

/** 10^9 bytes a second, of the fastest piece of 64 KiB: others on this machine cost time that is not the cipher's. */
function measure(provider: XtsProvider): number {
  const bytes = SECTORS * SECTOR_BYTES;
  using arena = new Arena(2 * bytes);
  const source = arena.bytes(bytes).address;
  const target = arena.bytes(bytes).address;
  using cipher = XtsCipher.create(crypto.getRandomValues(new Uint8Array(XTS_KEY_BYTES)), {
    provider,
  });
  assert(cipher.provider === provider, "a provider that works is taken when it is asked for");
  cipher.encrypt(0, SECTORS, source, target); // touches the memory
  const endNs = clockNs() + MEASURED_NS;
  let bestNs = Infinity;
  for (let beginNs = clockNs(); beginNs < endNs; ) {
    cipher.encrypt(0, SECTORS, source, target);
    const nowNs = clockNs();
    bestNs = Math.min(bestNs, nowNs - beginNs);
    beginNs = nowNs;
  }
  return bytes / bestNs;
}
