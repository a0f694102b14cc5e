/** What is served, by what, and how: facts that seldom change. */
import { amountOf, recordOf, textOf } from "../top/json-reader.ts";
import { isOfStripeServer, versionOf } from "../top/reading.ts";
import { type Answers, type Labels, type MetricFamily, sampleOf } from "./family.ts";

const TEXT_LENGTH_MAX = 256;

/** The label by which a disk or a stripe server is known; none where it does not tell one. */
export function identityOf(answers: Answers): Labels {
  const device = textOf(deviceOf(answers).device_id, TEXT_LENGTH_MAX);
  const serves = textOf(recordOf(answers.get("status")?.status).serves, TEXT_LENGTH_MAX);
  return {
    ...(device === undefined ? {} : { device }),
    ...(serves === undefined ? {} : { serves }),
  };
}

export const DEVICE_FAMILIES: readonly MetricFamily[] = [
  {
    name: "ubiblk",
    type: "info",
    help: "What serves: its version, its role, and what enciphers the disk.",
    samples: (answers) => [{ labels: infoLabels(answers), value: 1 }],
  },
  {
    name: "ubiblk_capacity_bytes",
    type: "gauge",
    unit: "bytes",
    help: "Size of the disk.",
    samples: (answers) => sampleOf(amountOf(deviceOf(answers).capacity_bytes)),
  },
  {
    name: "ubiblk_queues",
    type: "gauge",
    help: "Queues that a guest may use.",
    samples: (answers) => sampleOf(amountOf(deviceOf(answers).queues)),
  },
  {
    name: "ubiblk_read_only",
    type: "gauge",
    help: "1 for a disk that the guest cannot write, else 0.",
    samples: (answers) => {
      const { read_only: isReadOnly } = deviceOf(answers);
      return typeof isReadOnly === "boolean" ? sampleOf(isReadOnly ? 1 : 0) : [];
    },
  },
];

// --- internal ---

function deviceOf(answers: Answers): Readonly<Record<string, unknown>> {
  return recordOf(answers.get("device")?.device);
}

function infoLabels(answers: Answers): Labels {
  const { cipher, front_end: frontEnd } = deviceOf(answers);
  const role = isOfStripeServer(answers) ? "stripe-server" : textOf(frontEnd, TEXT_LENGTH_MAX);
  return {
    version: versionOf(answers) ?? "",
    role: role ?? "",
    cipher: textOf(cipher, TEXT_LENGTH_MAX) ?? "",
  };
}
