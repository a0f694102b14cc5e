/** `ubiblk stripe-shell`: looks at the stripes that a stripe server serves. */
import { createInterface } from "node:readline";
import { defineCommand } from "citty";
import { loadServerConfig, resolveSecrets, type ServerConfig } from "../config/index.ts";
import { assert } from "../errors.ts";
import { TlsContext } from "../ffi/tls.ts";
import { RemoteClient } from "../remote/remote-client.ts";
import { parseServerAddress, type ServerAddress } from "../remote/server-address.ts";
import { runShellLine } from "../serve/shell.ts";
import { ShellDisk } from "../serve/shell-disk.ts";
import { hardenOrWarn } from "./hardening.ts";
import { writePieces } from "./standard-output.ts";

export default defineCommand({
  meta: { name: "stripe-shell" },
  args: {
    "server-config": {
      type: "string",
      required: true,
      valueHint: "FILE",
      description: "configuration with [server]: its address and key",
    },
    command: {
      type: "string",
      alias: "c",
      valueHint: "COMMANDS",
      description: 'commands with ";" between them, instead of those of standard input',
    },
    json: {
      type: "boolean",
      default: false,
      description: "answers each command with one line of JSON",
    },
  },
  run: ({ args }) => runShell(args["server-config"], { commands: args.command, isJson: args.json }),
});

// --- internal ---

const HISTORY_LINES = 100;
/** Terminals without editing. */
const PLAIN_TERMINALS: readonly string[] = ["dumb", "cons25", "emacs"];

interface ShellOptions {
  readonly commands: string | undefined;
  readonly isJson: boolean;
}

async function runShell(configPath: string, options: ShellOptions): Promise<void> {
  hardenOrWarn();
  const { server, tls } = await openServer(configPath);
  using disk = await ShellDisk.open(() =>
    RemoteClient.connect({
      address: addressOf(server),
      tls,
      connectTimeoutMs: server.connectTimeoutMs,
      operationTimeoutMs: server.operationAttemptTimeoutMs,
    }),
  );
  if (options.commands === undefined) {
    await converse(disk, options.isJson);
  } else if (!(await runAll(disk, options.commands.split(";"), options.isJson))) {
    process.exitCode = 1;
  }
  tls?.[Symbol.dispose]();
}

async function openServer(
  configPath: string,
): Promise<{ readonly server: ServerConfig["server"]; readonly tls: TlsContext | undefined }> {
  const config = await loadServerConfig(configPath);
  const { psk } = config.server;
  if (psk === undefined) {
    return { server: config.server, tls: undefined };
  }
  using secrets = await resolveSecrets(config, ["server"]);
  const identity = new TextEncoder().encode(psk.identity);
  const tls = new TlsContext("client", { identity, secret: secrets.get(psk.secret).bytes });
  return { server: config.server, tls };
}

function addressOf({ address, unixSocket }: ServerConfig["server"]): ServerAddress {
  if (address !== undefined) {
    return parseServerAddress(address);
  }
  assert(unixSocket !== undefined, "a checked document has one of them");
  return { kind: "unix", path: unixSocket };
}

/** Whether none of them failed. `exit` ends them. */
async function runAll(
  disk: ShellDisk,
  lines: readonly string[],
  isJson: boolean,
): Promise<boolean> {
  let isFine = true;
  for (const line of lines) {
    const outcome = await runLine(disk, line, isJson);
    if (outcome === "end") {
      break;
    }
    isFine &&= outcome === "done";
  }
  return isFine;
}

async function runLine(
  disk: ShellDisk,
  line: string,
  isJson: boolean,
): Promise<"done" | "failed" | "end"> {
  const answer = await runShellLine(disk, line);
  if (answer === undefined) {
    return "end";
  }
  const isSilent = line.trim() === "";
  if (!isSilent) {
    writePieces(1, isJson ? [`${JSON.stringify(answer.facts())}\n`] : answer.text);
  }
  return answer.isFailure ? "failed" : "done";
}

/** To the end of standard input. Ctrl-C gives a new line; what it finds under way goes on. */
async function converse(disk: ShellDisk, isJson: boolean): Promise<void> {
  const isTerminal = process.stdin.isTTY === true;
  const isEdited = isTerminal && !PLAIN_TERMINALS.includes(process.env.TERM ?? "");
  const lines = createInterface({
    input: process.stdin,
    ...(isTerminal ? { output: process.stdout } : {}),
    terminal: isEdited,
    historySize: HISTORY_LINES,
    prompt: isTerminal ? "> " : "",
  });
  const prompt = () => {
    if (isTerminal) {
      lines.prompt();
    }
  };
  lines.on("SIGINT", () => {
    writePieces(1, ["^C\n"]);
    for (const name of ["e", "u"]) {
      lines.write(null, { ctrl: true, name }); // forgets what was typed: to its end, then all before
    }
    prompt();
  });
  prompt();
  for await (const line of lines) {
    if ((await runLine(disk, line, isJson)) === "end") {
      break;
    }
    prompt();
  }
  lines.close();
}
