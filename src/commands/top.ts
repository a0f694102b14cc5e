/** `ubiblk top`: a live view of running backends, over their RPC sockets. */
import { defineCommand } from "citty";
import { UbiError } from "../errors.ts";
import { runTop, type TopSettings } from "../top/index.ts";
import { integerArgument } from "./arguments.ts";
import { writePieces } from "./standard-output.ts";

const INTERVAL_SECONDS_MIN = 0.01;
const INTERVAL_SECONDS_MAX = 86_400;
const COLUMNS_DEFAULT = 80;
const COLUMNS_MIN = 20;
const COLUMNS_MAX = 1_000;

export default defineCommand({
  meta: {
    name: "top",
    description: "Shows what the queues of running backends do, and how far their fetches are",
  },
  args: {
    sockets: {
      type: "positional",
      required: false,
      isRepeated: true,
      valueHint: "SOCKET",
      description: "RPC sockets, beside those of --socket",
    },
    socket: {
      type: "string",
      valueHint: "PATH",
      description:
        "RPC socket; also several with commas, or a pattern such as '/run/ubiblk/*/rpc.sock'",
    },
    interval: {
      type: "string",
      default: "1",
      valueHint: "SECONDS",
      description: "time between two samples",
    },
    once: { type: "boolean", description: "write one sample and end; the same as --count 1" },
    count: {
      type: "string",
      valueHint: "N",
      description: "write this many samples and end",
      integer: { minimum: 1, maximum: 2 ** 32 },
    },
    json: { type: "boolean", description: "write each sample as one line of JSON" },
  },
  run: async ({ args }) => {
    if (args.once === true && args.count !== undefined) {
      throw new UbiError("E_USAGE", "--once and --count: one at a time");
    }
    const sockets = [...(args.socket === undefined ? [] : [args.socket]), ...args._];
    if (sockets.length === 0) {
      throw new UbiError("E_USAGE", "--socket: missing; see ubiblk top --help");
    }
    const count = args.once === true ? 1 : integerArgument(args.count);
    await runTop({
      sockets,
      intervalSeconds: secondsOf(args.interval),
      count,
      output: outputFor(args.json === true, count),
      isColoured: isTerminal() && (process.env.NO_COLOR ?? "") === "",
      columns: columnsOfText(),
      write: writeText,
    });
  },
});

// --- internal ---

/** A number of seconds as people and programs write it: `2`, `0.5`, `.5`, `1e-1`. */
function secondsOf(text: string): number {
  const isNumber = /^\+?(\d+\.?\d*|\.\d+)(e[+-]?\d{1,3})?$/i.test(text);
  const seconds = isNumber ? Number(text) : Number.NaN;
  if (!(seconds >= INTERVAL_SECONDS_MIN && seconds <= INTERVAL_SECONDS_MAX)) {
    const limits = `from ${INTERVAL_SECONDS_MIN} to ${INTERVAL_SECONDS_MAX} seconds`;
    throw new UbiError("E_USAGE", `--interval: ${JSON.stringify(text)} is not ${limits}`);
  }
  return seconds;
}

function isTerminal(): boolean {
  return process.stdout.isTTY === true && process.env.TERM !== "dumb";
}

function outputFor(isJson: boolean, count: number | undefined): TopSettings["output"] {
  if (isJson) {
    return "json";
  }
  return isTerminal() && count === undefined ? "live" : "text";
}

/** Without a terminal, the width is that of the variable COLUMNS, or 80. */
function columnsOfText(): number {
  const columns = process.stdout.columns ?? Number(process.env.COLUMNS);
  return columns >= COLUMNS_MIN && columns <= COLUMNS_MAX ? Math.floor(columns) : COLUMNS_DEFAULT;
}

/** False when the reader has gone: what stands behind a piece is then not asked for. */
function writeText(text: string): boolean {
  let isTaken = false;
  const pieces = function* (): Iterable<string> {
    yield text;
    isTaken = true;
  };
  writePieces(1, pieces());
  return isTaken;
}
