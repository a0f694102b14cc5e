/** `ubiblk init`: makes a disk that can be served at once. */
import { defineCommand } from "citty";
import { UbiError } from "../errors.ts";
import type { DiskRequest } from "../init/disk-request.ts";
import { makeDisk } from "../init/make-disk.ts";
import { existingFiles } from "../init/place-check.ts";
import { hardenOrWarn } from "./hardening.ts";
import { INIT_FLAGS, type InitFlags } from "./init-flags.ts";
import { requestOf } from "./init-request.ts";
import { madeJson, madeText, planText } from "./init-summary.ts";
import { askForFlags, askYesNo } from "./init-wizard.ts";
import { interruptible } from "./interruption.ts";
import { writePieces } from "./standard-output.ts";
import { isOnTerminal, terminal } from "./terminal-lines.ts";

export default defineCommand({
  meta: {
    name: "init",
    description:
      "Makes a disk that can be served at once: its file, key, metadata and configuration, in one folder. " +
      "On a terminal it asks for what the flags leave open when there is no --size",
  },
  args: INIT_FLAGS,
  run: ({ args }) => init(args),
});

// --- internal ---

async function init(flags: InitFlags): Promise<void> {
  hardenOrWarn();
  const isAsking = flags.size === undefined && flags.disk === undefined && !flags.json;
  const request = isAsking && isOnTerminal() ? await askForRequest(flags) : await requestOf(flags);
  const made = await interruptible("init", (signal) => makeDisk(request, signal));
  writePieces(1, [flags.json ? madeJson(made) : madeText(made)]);
}

async function askForRequest(given: InitFlags): Promise<DiskRequest> {
  const request = await requestOf(await askForFlags(given, terminal));
  terminal.say(`\n${planText(request)}\n`);
  const existing = request.isForced ? [] : existingFiles(request);
  if (existing.length > 0) {
    const question = `There already: ${existing.join(", ")}. Replace them, and lose what is on that disk?`;
    if (!(await askYesNo(terminal, question, false))) {
      throw nothingMade();
    }
  } else if (!(await askYesNo(terminal, "Make it?", true))) {
    throw nothingMade();
  }
  return { ...request, isForced: request.isForced || existing.length > 0 };
}

function nothingMade(): UbiError {
  return new UbiError("E_INTERRUPTED", "nothing was made");
}
