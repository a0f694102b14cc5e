/** What a process costs its machine, under the names that are usual for that. */
import { amountOf, recordOf } from "../top/json-reader.ts";
import { type Answers, type MetricFamily, type MetricSample, sampleOf } from "./family.ts";

export const PROCESS_FAMILIES: readonly MetricFamily[] = [
  {
    name: "process_cpu_seconds",
    type: "counter",
    unit: "seconds",
    help: "Total user and system CPU time spent in seconds.",
    samples: (answers) => amount(answers, "cpu_seconds"),
  },
  {
    name: "process_resident_memory_bytes",
    type: "gauge",
    unit: "bytes",
    help: "Resident memory size in bytes.",
    samples: (answers) => amount(answers, "resident_bytes"),
  },
  {
    name: "process_start_time_seconds",
    type: "gauge",
    unit: "seconds",
    help: "Start time of the process since unix epoch in seconds.",
    samples: (answers) => amount(answers, "start_time_seconds"),
  },
  {
    name: "process_open_fds",
    type: "gauge",
    help: "Number of open file descriptors.",
    samples: (answers) => amount(answers, "open_files"),
  },
  {
    name: "process_max_fds",
    type: "gauge",
    help: "Maximum number of open file descriptors.",
    samples: (answers) => amount(answers, "open_files_max"),
  },
];

// --- internal ---

function amount(answers: Answers, key: string): readonly MetricSample[] {
  return sampleOf(amountOf(recordOf(answers.get("process")?.process)[key]));
}
