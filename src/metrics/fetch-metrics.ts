/** How far a lazy disk is: its stripes, and the fetch of those that are still in the source. */
import { amountOf, recordOf } from "../top/json-reader.ts";
import {
  type Answers,
  type MetricFamily,
  type MetricSample,
  sampleOf,
  samplesBy,
  statesOf,
} from "./family.ts";

const SOURCE_STATES = ["none", "open", "retrying", "closed"] as const;

export const FETCH_FAMILIES: readonly MetricFamily[] = [
  gauge("ubiblk_stripes", "Stripes of the disk.", (answers) => stripes(answers, "total")),
  gauge("ubiblk_stripes_fetched", "Stripes that are on the disk durably.", (answers) =>
    stripes(answers, "fetched"),
  ),
  gauge("ubiblk_stripes_in_source", "Stripes that the stripe source has.", (answers) =>
    stripes(answers, "source"),
  ),
  gauge("ubiblk_stripes_unfetched", "Stripes that are only in the source.", (answers) =>
    fetch(answers, "unfetched"),
  ),
  gauge("ubiblk_stripes_written", "Stripes that the metadata marks as written.", (answers) =>
    fetch(answers, "written"),
  ),
  gauge("ubiblk_stripes_zero", "Fetched stripes that were zeros and take no space.", (answers) =>
    fetch(answers, "zero_stripes"),
  ),
  gauge("ubiblk_stripes_failed", "Stripes that were given up and not tried since.", (answers) =>
    fetch(answers, "failed"),
  ),
  gauge("ubiblk_stripes_in_flight", "Stripes that are being fetched now.", (answers) =>
    fetch(answers, "in_flight"),
  ),
  {
    ...gauge("ubiblk_stripe_size_bytes", "Size of a stripe.", (answers) =>
      fetch(answers, "stripe_bytes"),
    ),
    unit: "bytes",
  },
  {
    name: "ubiblk_fetches",
    type: "counter",
    help: "Fetches begun: a guest waits (demand), is likely to ask next (ahead), or nobody does (background).",
    samples: (answers) =>
      samplesBy("cause", {
        demand: amountOf(fetchOf(answers).demand_fetches),
        ahead: amountOf(fetchOf(answers).ahead_fetches),
        background: amountOf(fetchOf(answers).background_fetches),
      }),
  },
  {
    name: "ubiblk_fetched_bytes",
    type: "counter",
    unit: "bytes",
    help: "Bytes read from the stripe source.",
    samples: (answers) => fetch(answers, "source_bytes"),
  },
  {
    name: "ubiblk_fetch_retries",
    type: "counter",
    help: "Attempts to fetch that were repeated.",
    samples: (answers) => fetch(answers, "retries"),
  },
  {
    name: "ubiblk_fetch_failures",
    type: "counter",
    help: "Fetches that were given up; guests who waited for one got an error.",
    samples: (answers) => fetch(answers, "failures"),
  },
  gauge(
    "ubiblk_fetch_bytes_per_second",
    "Bytes of stripes that became durable, over the last 10 seconds or so.",
    (answers) => fetch(answers, "bytes_per_second"),
  ),
  {
    ...gauge(
      "ubiblk_fetch_eta_seconds",
      "Time until all stripes are there at this speed; absent while that is not known.",
      (answers) => fetch(answers, "eta_seconds"),
    ),
    unit: "seconds",
  },
  gauge(
    "ubiblk_fetch_limit_bytes_per_second",
    "Rate limit of the background; absent for none.",
    (answers) => fetch(answers, "limit_bytes_per_second"),
  ),
  gauge("ubiblk_fetch_paused", "1 while the background stands still, else 0.", (answers) => {
    const { paused } = fetchOf(answers);
    return typeof paused === "boolean" ? sampleOf(paused ? 1 : 0) : [];
  }),
  gauge("ubiblk_source_state", "How the stripe source is: 1 for the state it is in.", (answers) =>
    statesOf("state", SOURCE_STATES, fetchOf(answers).source_state),
  ),
];

// --- internal ---

function gauge(name: string, help: string, samples: MetricFamily["samples"]): MetricFamily {
  return { name, type: "gauge", help, samples };
}

function fetchOf(answers: Answers): Readonly<Record<string, unknown>> {
  return recordOf(recordOf(answers.get("status")?.status).fetch);
}

function fetch(answers: Answers, key: string): readonly MetricSample[] {
  return sampleOf(amountOf(fetchOf(answers)[key]));
}

/** Of a disk: a stripe server tells its stripes with `from_source` instead of `fetched`. */
function stripes(answers: Answers, key: "total" | "fetched" | "source"): readonly MetricSample[] {
  const counts = recordOf(recordOf(answers.get("status")?.status).stripes);
  return counts.fetched === undefined ? [] : sampleOf(amountOf(counts[key]));
}
