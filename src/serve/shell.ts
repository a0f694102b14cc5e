/** The commands of the stripe shell: a line in, what it is answered with out. */
import { writeFileSync } from "node:fs";
import { errorText, UbiError } from "../errors.ts";
import { countStripes } from "../formats/metadata.ts";
import type { ShellDisk } from "./shell-disk.ts";

/** What a command has to say. */
export interface ShellAnswer {
  /** Written one behind the other. */
  readonly text: Iterable<string>;
  /** With `--json`: one object in one line. */
  readonly facts: () => Readonly<Record<string, unknown>>;
  readonly isFailure: boolean;
}

/** Runs one line; undefined when the shell is to end. */
export async function runShellLine(
  disk: ShellDisk,
  line: string,
): Promise<ShellAnswer | undefined> {
  const [name = "", ...words] = line.trim().split(/\s+/);
  if (name === "") {
    return { text: [], facts: () => ({}), isFailure: false };
  }
  if (name === "exit" || name === "quit") {
    return undefined;
  }
  const command = Object.hasOwn(COMMANDS, name) ? COMMANDS[name] : undefined;
  if (command === undefined) {
    const text = [`UNKNOWN_COMMAND: ${name}\n`, "Type help for the commands.\n"];
    return { text, facts: () => ({ command: name, error: "UNKNOWN_COMMAND" }), isFailure: true };
  }
  try {
    const answer = await command.run(disk, new Words(words));
    return { ...answer, facts: () => ({ command: name, ...answer.facts() }), isFailure: false };
  } catch (error) {
    if (!(error instanceof ShellFailure || error instanceof UbiError)) {
      throw error;
    }
    const told = errorText(error);
    return { text: [`${told}\n`], facts: () => ({ command: name, error: told }), isFailure: true };
  }
}

// --- internal ---

/** A command that cannot be done: its message is the whole answer. */
class ShellFailure extends Error {}

interface Command {
  readonly usage: string;
  readonly what: string;
  readonly run: (disk: ShellDisk, words: Words) => Answer | Promise<Answer>;
}

type Answer = Pick<ShellAnswer, "text" | "facts">;

const COMMANDS: Readonly<Record<string, Command>> = {
  help: {
    usage: "help",
    what: "Lists the commands.",
    run: () => help(),
  },
  exit: {
    usage: "exit | quit",
    what: "Ends the shell.",
    run: () => ({ text: [], facts: () => ({}) }),
  },
  stripe_header: {
    usage: "stripe_header <stripe_index>",
    what: "Shows the flags of a stripe, and whether it was written.",
    run: (disk, words) => stripeHeader(disk, words),
  },
  fetch_stripe: {
    usage: "fetch_stripe <stripe_index>",
    what: "Gets a stripe from the server and keeps it.",
    run: (disk, words) => fetchStripe(disk, words),
  },
  dump_stripe: {
    usage: "dump_stripe <stripe_index> <offset> <length>",
    what: "Shows bytes of a stripe that was fetched, in hexadecimal.",
    run: (disk, words) => dumpStripe(disk, words),
  },
  save: {
    usage: "save <stripe_index> <file>",
    what: "Writes a stripe to a file, getting it first if need be.",
    run: (disk, words) => save(disk, words),
  },
  list: {
    usage: "list",
    what: "Lists the stripes that the server has data for.",
    run: (disk) => list(disk),
  },
  status: {
    usage: "status",
    what: "Shows the server, the connection and the disk.",
    run: (disk) => status(disk),
  },
};

const U64_MAX = 2n ** 64n - 1n;
const HEX_PIECE_BYTES = 1 << 16;

/** The words behind a command, read from the left. */
class Words {
  readonly #words: readonly string[];
  #next = 0;

  constructor(words: readonly string[]) {
    this.#words = words;
  }

  text(): string {
    const word = this.#words[this.#next];
    if (word === undefined) {
      throw new ShellFailure("Invalid parameter error: MISSING_ARGUMENT");
    }
    this.#next += 1;
    return word;
  }

  /** Exact below 2^53; nothing that large is in range anywhere. */
  number(): number {
    const word = this.text();
    if (!/^\+?[0-9]+$/.test(word) || BigInt(word.replace("+", "")) > U64_MAX) {
      throw new ShellFailure(`Invalid parameter error: INVALID_NUMBER: ${word}`);
    }
    return Number(word);
  }
}

function help(): Answer {
  const text = ["Commands:\n"];
  for (const { usage, what } of Object.values(COMMANDS)) {
    text.push(`  ${usage}\n`, `      ${what}\n`);
  }
  return { text, facts: () => ({ commands: Object.values(COMMANDS).map(({ usage }) => usage) }) };
}

function stripeHeader(disk: ShellDisk, words: Words): Answer {
  const stripe = stripeOf(disk, words.number());
  const header = `0x${disk.flagsOf(stripe).toString(16).padStart(2, "0")}`;
  const isWritten = disk.isWritten(stripe);
  const text = `${header} ${isWritten ? "WRITTEN" : "NOT_WRITTEN"}\n`;
  return { text: [text], facts: () => ({ stripe, header, written: isWritten }) };
}

async function fetchStripe(disk: ShellDisk, words: Words): Promise<Answer> {
  const stripe = stripeOf(disk, words.number());
  await disk.fetch(stripe);
  return { text: ["FETCHED\n"], facts: () => ({ stripe, bytes: disk.stripeBytes }) };
}

async function dumpStripe(disk: ShellDisk, words: Words): Promise<Answer> {
  const index = words.number();
  const offset = words.number();
  const length = words.number();
  const stripe = stripeOf(disk, index);
  if (disk.isHeld(stripe) && !disk.isFetched(stripe)) {
    throw new ShellFailure("NOT_FETCHED_FROM_REMOTE");
  }
  if (offset + length > disk.stripeBytes) {
    throw new ShellFailure("INVALID_RANGE");
  }
  const bytes = disk.isFetched(stripe) ? await disk.bytesOf(stripe) : new Uint8Array(length);
  const start = disk.isFetched(stripe) ? offset : 0;
  const shown = bytes.subarray(start, start + length);
  return {
    text: hexLine(shown),
    facts: () => ({ stripe, offset, length, hex: Buffer.from(shown).toString("hex") }),
  };
}

async function save(disk: ShellDisk, words: Words): Promise<Answer> {
  const index = words.number();
  const file = words.text();
  const stripe = stripeOf(disk, index);
  const bytes = disk.isHeld(stripe) ? await disk.bytesOf(stripe) : new Uint8Array(disk.stripeBytes);
  try {
    writeFileSync(file, bytes, { mode: 0o600 });
  } catch (error) {
    throw new ShellFailure(`cannot write ${file}: ${errorText(error)}`);
  }
  return { text: ["SAVED\n"], facts: () => ({ stripe, file, bytes: bytes.length }) };
}

/** Runs of neighbours with the same flags; holes are left out. */
function list(disk: ShellDisk): Answer {
  const runs = heldRuns(disk);
  const lines = runs.map(({ first, last, header }) => {
    const stripes = first === last ? `${first}` : `${first}-${last}`;
    return `${stripes} ${header}\n`;
  });
  return { text: lines, facts: () => ({ runs }) };
}

function heldRuns(disk: ShellDisk) {
  const runs: { first: number; last: number; header: string }[] = [];
  const { flags } = disk;
  for (let first = 0; first < flags.length; ) {
    let last = first;
    while (last + 1 < flags.length && flags[last + 1] === flags[first]) {
      last += 1;
    }
    if (disk.isHeld(first)) {
      const header = `0x${disk.flagsOf(first).toString(16).padStart(2, "0")}`;
      runs.push({ first, last, header });
    }
    first = last + 1;
  }
  return runs;
}

function status(disk: ShellDisk): Answer {
  const { fetched, written, hasSource, unfetched } = countStripes(disk.flags);
  const facts = {
    server: disk.serverName,
    connected: disk.isConnected,
    stripe_bytes: disk.stripeBytes,
    stripe_count: disk.stripeCount,
    fetched,
    written,
    has_source: hasSource,
    unfetched,
    cached: disk.cachedCount,
  };
  const text = Object.entries(facts).map(([key, value]) => `${key}: ${value}\n`);
  return { text, facts: () => facts };
}

function stripeOf(disk: ShellDisk, index: number): number {
  if (index >= disk.stripeCount) {
    throw new ShellFailure("INVALID_STRIPE");
  }
  return index;
}

function* hexLine(bytes: Uint8Array): Generator<string> {
  for (let at = 0; at < bytes.length; at += HEX_PIECE_BYTES) {
    yield Buffer.from(bytes.subarray(at, at + HEX_PIECE_BYTES)).toString("hex");
  }
  yield "\n";
}
