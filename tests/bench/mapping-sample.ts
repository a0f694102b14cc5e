/**
 * Encodes and parses the map of an encrypted archive of that many stripes through a folder, as archiver and reader do;
 * prints the times and the memory of the process. Started by mapping-row.ts.
 */
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { newArchiveKeys } from "../../src/archive/archive-keys.ts";
import { encodeMapping, encodeMetadata, openArchive } from "../../src/archive/archive-manifest.ts";
import { openStore } from "../../src/archive/open-store.ts";
import { StripeMap } from "../../src/archive/stripe-map.ts";

const STRIPE_SECTORS = 2048;
const stripes = Number(process.argv[2]);
const folder = mkdtempSync(join(tmpdir(), "ubiblk-mapping-"));
try {
  const store = await openStore({ kind: "filesystem", role: "write", path: folder });
  const keys = newArchiveKeys(true);
  const common = { stripeSectors: STRIPE_SECTORS, keys };
  const kek = crypto.getRandomValues(new Uint8Array(32));
  await store.put(
    "metadata.json",
    encodeMetadata({ ...common, kek, compression: { kind: "none" } }),
  );

  const map = filledMap(stripes);
  const sizeBytes = stripes * STRIPE_SECTORS * 512;
  const encodeSeconds = await secondsOf(async () => {
    await store.put("stripe-mapping", encodeMapping({ ...common, map, sizeBytes }));
  });
  let end = 0;
  const parseSeconds = await secondsOf(async () => {
    end = (await openArchive(store, kek)).map.stripeEnd;
  });
  if (end !== stripes) {
    throw new Error(`${end} stripes were read, not ${stripes}`);
  }
  const peak = /^VmHWM:\s+(\d+) kB/m.exec(readFileSync("/proc/self/status", "utf8"))?.[1];
  console.log(JSON.stringify({ encodeSeconds, parseSeconds, peakMib: Number(peak) / 1024 }));
} finally {
  rmSync(folder, { recursive: true, force: true });
}

// --- internal ---

function filledMap(count: number): StripeMap {
  const filled = StripeMap.create(count);
  const hash = new Uint8Array(32);
  for (let stripe = 0; stripe < count; stripe++) {
    if (stripe % 1000 === 0) {
      crypto.getRandomValues(hash);
    }
    hash[stripe % 32] = (hash[stripe % 32] ?? 0) + 1;
    filled.setStored(stripe, hash);
  }
  return filled;
}

async function secondsOf(work: () => Promise<void>): Promise<number> {
  const beginMs = performance.now();
  await work();
  return (performance.now() - beginMs) / 1000;
}
