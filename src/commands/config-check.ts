/** `ubiblk config check`: tells what is wrong with configurations, and what they say. */
import { defineCommand } from "citty";
import { DOCUMENT_KINDS } from "../config/document-kinds.ts";
import { inspectDocument } from "../config/inspect-document.ts";
import { memoryNeed } from "../doctor/memory-need.ts";
import { UbiError, UbiErrors } from "../errors.ts";
import { type CheckedDocument, jsonOf, textOf } from "./config-report.ts";
import { hardenOrWarn } from "./hardening.ts";
import { interruptible } from "./interruption.ts";
import { writePieces } from "./standard-output.ts";

export default defineCommand({
  meta: {
    name: "check",
    description:
      "Checks configurations as the commands do that read them, and tells each value with its origin. Secrets are " +
      "read as well, which empties named pipes, unless --no-secrets is given. Nothing is locked or written, so that " +
      "the configuration of a disk that is served can be checked",
  },
  args: {
    file: {
      type: "positional",
      required: false,
      isRepeated: true,
      valueHint: "FILE",
      description: "configurations of any kind",
    },
    config: {
      type: "string",
      alias: "f",
      valueHint: "FILE",
      description: "one more",
    },
    kind: {
      type: "enum",
      options: [...DOCUMENT_KINDS],
      description: "kind of the configurations; otherwise their main section tells it",
    },
    backend: {
      type: "enum",
      options: ["vhost", "ublk"],
      description: "front end to check a disk for; vhost if there is a vhost_socket",
    },
    secrets: {
      type: "boolean",
      default: true,
      description: "read the secrets",
      negativeDescription: "read no secret: named pipes stay full",
    },
    reference: {
      type: "boolean",
      default: false,
      description: "refuse keys that other programs that read this format do not know",
    },
    json: { type: "boolean", default: false, description: "one line of JSON" },
  },
  run: ({ args }) =>
    check([...args._, ...(args.config === undefined ? [] : [args.config])], {
      kind: args.kind,
      backend: args.backend,
      mayReadSecrets: args.secrets,
      isForReference: args.reference,
      isJson: args.json,
    }),
});

// --- internal ---

interface CheckOptions {
  readonly kind: (typeof DOCUMENT_KINDS)[number] | undefined;
  readonly backend: "vhost" | "ublk" | undefined;
  readonly mayReadSecrets: boolean;
  readonly isForReference: boolean;
  readonly isJson: boolean;
}

async function check(paths: readonly string[], options: CheckOptions): Promise<void> {
  if (paths.length === 0) {
    throw new UbiError("E_USAGE", "FILE: missing; see ubiblk config check --help");
  }
  hardenOrWarn();
  const documents = await interruptible("the check", async (signal) => {
    const checked: CheckedDocument[] = [];
    for (const path of paths) {
      const report = await inspectDocument(path, { ...options, signal });
      checked.push({ report, memory: await memoryNeed(report) });
    }
    return checked;
  });
  const errors = documents.flatMap(({ report }) => report.errors);
  writePieces(1, options.isJson ? [jsonOf(documents)] : documents.map(textOf));
  if (errors.length > 0 && !options.isJson) {
    throw new UbiErrors(errors);
  }
  process.exit(errors.length === 0 ? 0 : 1); // a look at a dead file server does not hold up the end
}
