/** The rows of disks with lazy stripes. */
import { lazyCostRows } from "./lazy-cost-rows.ts";
import { lazyFetchRows } from "./lazy-fetch-rows.ts";
import { lazyLatencyRows } from "./lazy-latency-rows.ts";
import type { Row } from "./result.ts";
import type { DataFiles } from "./servers.ts";

export function lazyRows(files: DataFiles): readonly Row[] {
  return [...lazyFetchRows(files), ...lazyLatencyRows(files), ...lazyCostRows(files)];
}
