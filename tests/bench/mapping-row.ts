/** The map of an archive of a million stripes: written and read, in a process of its own for its memory. */
import { join } from "node:path";
import { outputOf } from "../../scripts/command.ts";
import { median, type ResultLine, type Row, type RowResult, shortNumber } from "./result.ts";

const STRIPES = 1_000_000;
const SECONDS_MAX = 2;
const PEAK_MIB_MAX = 300;

const MAPPING = {
  id: "archive-mapping",
  title: `the map of an encrypted archive of ${STRIPES} stripes`,
};

export function mappingRow(): Row {
  return {
    ...MAPPING,
    run: async ({ repetitions, note }): Promise<RowResult> => {
      const samples: Sample[] = [];
      for (let turn = 0; turn < repetitions; turn++) {
        const sample = await takeSample();
        samples.push(sample);
        note(`${MAPPING.id} ${turn + 1}/${repetitions}: ${JSON.stringify(sample)}`);
      }
      const line = (what: string, limit: number, pick: (sample: Sample) => number) =>
        limitLine(what, median(samples.map(pick)), limit);
      return {
        ...MAPPING,
        lines: [
          line("encode, s", SECONDS_MAX, ({ encodeSeconds }) => encodeSeconds),
          line("parse, s", SECONDS_MAX, ({ parseSeconds }) => parseSeconds),
          line("peak memory, MiB", PEAK_MIB_MAX, ({ peakMib }) => peakMib),
        ],
        details: samples,
      };
    },
  };
}

// --- internal ---

interface Sample {
  readonly encodeSeconds: number;
  readonly parseSeconds: number;
  readonly peakMib: number;
}

async function takeSample(): Promise<Sample> {
  const script = join(import.meta.dir, "mapping-sample.ts");
  const output: unknown = JSON.parse(await outputOf([process.execPath, script, `${STRIPES}`]));
  const number = (key: string) => {
    const value = new Map(Object.entries(output ?? {})).get(key);
    if (typeof value !== "number") {
      throw new Error(`the sample lacks ${key}: ${JSON.stringify(output)}`);
    }
    return value;
  };
  return {
    encodeSeconds: number("encodeSeconds"),
    parseSeconds: number("parseSeconds"),
    peakMib: number("peakMib"),
  };
}

function limitLine(what: string, ours: number, limit: number): ResultLine {
  return {
    what,
    ours: shortNumber(ours),
    peer: "",
    ratio: "",
    goal: `<= ${limit}`,
    isMet: ours <= limit,
  };
}
