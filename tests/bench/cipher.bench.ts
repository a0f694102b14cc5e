/**
 * The cipher alone, on one core: each provider that works here, called from TypeScript as the queue
 * workers call it. `bun tests/bench/cipher.bench.ts` prints a table and, with `--json`, the figures.
 */
import { XtsCipher } from "../../src/disk/cipher.ts";
import { XTS_PROVIDERS, type XtsProvider } from "../../src/disk/cipher-provider.ts";
import { Arena } from "../../src/ffi/arena.ts";
import { threadCpuNs } from "../../src/ffi/event.ts";
import { median, type ResultLine, type Row, shortNumber } from "./result.ts";

interface CipherRow {
  readonly provider: XtsProvider;
  readonly direction: "encrypt" | "decrypt";
  readonly requestBytes: number;
  readonly placement: "in place" | "apart";
  /** 10^9 bytes per second of CPU time; the median of the samples. */
  readonly gbPerSecond: number;
  readonly nsPerRequest: number;
}

interface CipherBenchOptions {
  readonly samples?: number;
  readonly sampleMs?: number;
}

/** Measures all combinations, interleaved, so that a busy moment of the machine hits all alike. */
function measureCipher(options: CipherBenchOptions = {}): readonly CipherRow[] {
  const { samples = 7, sampleMs = 20 } = options;
  using arena = new Arena(2 * REQUEST_BYTES_MAX);
  const buffers = {
    source: arena.bytes(REQUEST_BYTES_MAX).address,
    target: arena.bytes(REQUEST_BYTES_MAX).address,
  };
  const cases = workingProviders().flatMap((cipher) => casesOf(cipher, buffers));
  const results = cases.map((): number[] => []);
  for (let sample = -1; sample < samples; sample += 1) {
    for (const [i, each] of cases.entries()) {
      const nsPerRequest = measure(each, sampleMs);
      if (sample >= 0) {
        results[i]?.push(nsPerRequest); // the first round warms up the compiler
      }
    }
  }
  return cases.map(({ cipher: _, source: _source, target: _target, ...row }, i) => {
    const nsPerRequest = median(results[i] ?? []);
    return { ...row, nsPerRequest, gbPerSecond: row.requestBytes / nsPerRequest };
  });
}

/** The row of `npm run bench`: requests of 4 KiB beside their goals; everything else is in the details. */
export function cipherRows(): readonly Row[] {
  const id = "cipher";
  const title = "cipher alone, one core";
  return [
    {
      id,
      title,
      run: async ({ repetitions }) => {
        const details = measureCipher({ samples: repetitions });
        return { id, title, lines: details.filter(isGoalSize).map(lineOf), details };
      },
    },
  ];
}

// --- internal ---

/** 10^9 bytes per second at 4 KiB requests. */
const GOALS: Readonly<Partial<Record<XtsProvider, number>>> = {
  vaes512: 11,
  vaes256: 7,
  aesni: 4.5,
};

function isGoalSize(row: CipherRow): boolean {
  return row.requestBytes === 4096 && row.provider in GOALS;
}

function lineOf(row: CipherRow): ResultLine {
  const goal = GOALS[row.provider] ?? 0;
  return {
    what: `${row.provider} ${row.direction} 4 KiB ${row.placement}, GB/s`,
    ours: shortNumber(row.gbPerSecond),
    peer: "",
    ratio: "",
    goal: `>= ${goal}`,
    isMet: row.gbPerSecond >= goal,
  };
}

const REQUEST_BYTES = [4096, 131_072] as const;
const REQUEST_BYTES_MAX = 131_072;
const SECTOR_BYTES = 512;

type Case = Omit<CipherRow, "gbPerSecond" | "nsPerRequest"> & {
  readonly cipher: XtsCipher;
  readonly source: number;
  readonly target: number;
};

/** A provider that fell back to another one is left out. */
function workingProviders(): readonly (XtsCipher & { readonly provider: XtsProvider })[] {
  const key = Uint8Array.from({ length: 64 }, (_, i) => i);
  return XTS_PROVIDERS.flatMap((provider) => {
    const cipher = XtsCipher.create(key, { provider });
    return isOf(cipher, provider) ? [cipher] : [];
  });
}

function isOf(
  cipher: XtsCipher,
  provider: XtsProvider,
): cipher is XtsCipher & { readonly provider: XtsProvider } {
  return cipher.provider === provider;
}

function casesOf(
  cipher: XtsCipher & { readonly provider: XtsProvider },
  buffers: { readonly source: number; readonly target: number },
): readonly Case[] {
  const { source, target } = buffers;
  return REQUEST_BYTES.flatMap((requestBytes) =>
    (["encrypt", "decrypt"] as const).flatMap((direction) =>
      (["in place", "apart"] as const).map((placement) => ({
        provider: cipher.provider,
        direction,
        requestBytes,
        placement,
        cipher,
        source: placement === "apart" ? source : target,
        target,
      })),
    ),
  );
}

/** CPU time of one request in nanoseconds. */
function measure(each: Case, sampleMs: number): number {
  const { cipher, source, target } = each;
  const count = each.requestBytes / SECTOR_BYTES;
  const batch = 2 ** 20 / each.requestBytes; // a megabyte between two looks at the clock
  const isEncrypt = each.direction === "encrypt";
  const startNs = threadCpuNs();
  let requests = 0;
  let elapsedNs = 0;
  while (elapsedNs < sampleMs * 1e6) {
    for (let i = 0; i < batch; i += 1) {
      const sector = requests + i;
      const result = isEncrypt
        ? cipher.encrypt(sector, count, source, target)
        : cipher.decrypt(sector, count, source, target);
      if (result !== 0) {
        throw new Error(`the cipher failed with ${result}`);
      }
    }
    requests += batch;
    elapsedNs = threadCpuNs() - startNs;
  }
  return elapsedNs / requests;
}

function tableOf(rows: readonly CipherRow[]): string {
  const lines = rows.map((row) => [
    row.provider.padEnd(9),
    row.direction,
    `${row.requestBytes / 1024} KiB`.padStart(8),
    row.placement.padEnd(9),
    row.gbPerSecond.toFixed(2).padStart(6),
    row.nsPerRequest.toFixed(0).padStart(8),
  ]);
  const heading = `provider   direction      size  placement    GB/s  ns/request`;
  return [heading, ...lines.map((line) => line.join("  "))].join("\n");
}

if (import.meta.main) {
  const rows = measureCipher();
  console.log(process.argv.includes("--json") ? JSON.stringify(rows) : tableOf(rows));
}
