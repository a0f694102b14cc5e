/** `ubiblk doctor`: looks whether this machine, and the disk of a configuration, are fit to serve. */
import { defineCommand } from "citty";
import packageJson from "../../package.json" with { type: "json" };
import type { CheckOptions } from "../doctor/check-context.ts";
import type { SubjectFinding } from "../doctor/finding.ts";
import { runProbe } from "../doctor/probe.ts";
import {
  countFindings,
  failureText,
  findingLines,
  reportJson,
  summaryText,
} from "../doctor/report.ts";
import { supervise } from "../doctor/supervisor.ts";
import { UbiError } from "../errors.ts";
import { integerArgument } from "./arguments.ts";
import { interruptible } from "./interruption.ts";
import { writePieces } from "./standard-output.ts";

export default defineCommand({
  meta: {
    name: "doctor",
    description:
      "Looks whether this machine, and the disk of a configuration, are fit to serve. Nothing is locked or written",
  },
  args: {
    config: {
      type: "string",
      alias: "f",
      valueHint: "FILE",
      description: "device configuration: its disk, sockets and stripe source are examined as well",
    },
    json: { type: "boolean", default: false, description: "one line of JSON" },
    strict: { type: "boolean", default: false, description: "warnings make the exit code 1, too" },
    offline: { type: "boolean", default: false, description: "ask nothing over the network" },
    secrets: {
      type: "boolean",
      default: false,
      description: "read secrets also from pipes, which a backend then has to be given anew",
    },
    timeout: {
      type: "string",
      default: "10",
      valueHint: "SECONDS",
      description: "how long a single check may take",
      integer: { minimum: 1, maximum: 3600 },
    },
    "probe-from": { type: "string", integer: { minimum: 0, maximum: 1000 } },
  },
  run: async ({ args }) => {
    const { config: configPath, offline, secrets } = args;
    const options = { configPath, isOffline: offline, maySpendSecrets: secrets };
    const from = integerArgument(args["probe-from"]);
    if (from !== undefined) {
      await runProbe({ ...options, from }, (message) =>
        writePieces(1, [`${JSON.stringify(message)}\n`]),
      );
      return;
    }
    const limitMs = integerArgument(args.timeout) * 1000;
    await interruptible("the examination", (signal) =>
      examine(options, { isJson: args.json, isStrict: args.strict, limitMs, signal }),
    );
  },
});

// --- internal ---

interface ReportOptions {
  readonly isJson: boolean;
  readonly isStrict: boolean;
  readonly limitMs: number;
  readonly signal: AbortSignal;
}

async function examine(
  options: CheckOptions,
  { isJson, isStrict, limitMs, signal }: ReportOptions,
): Promise<void> {
  const findings: SubjectFinding[] = [];
  const command = (from: number) => probeCommand(options, from);
  for await (const finding of supervise({ command, limitMs, signal })) {
    if (!isJson) {
      writePieces(1, [findingLines(finding, findings.at(-1)?.subject)]);
    }
    findings.push(finding);
  }
  writePieces(1, [
    isJson
      ? reportJson(findings, packageJson.version)
      : `\n${summaryText(countFindings(findings))}\n`,
  ]);
  const failure = failureText(findings, isStrict);
  if (failure !== undefined) {
    throw new UbiError("E_DOCTOR", `${failure}; do what the report says`);
  }
}

/** This command once more, as the half that examines. */
function probeCommand(options: CheckOptions, from: number): readonly string[] {
  const { configPath, isOffline, maySpendSecrets } = options;
  return [
    process.execPath,
    "doctor",
    "--log-level=error", // warnings are findings
    ...(configPath === undefined ? [] : [`--config=${configPath}`]),
    ...(isOffline ? ["--offline"] : []),
    ...(maySpendSecrets ? ["--secrets"] : []),
    `--probe-from=${from}`,
  ];
}
