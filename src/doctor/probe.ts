/**
 * The half that examines, in a process of its own: a file system that is gone, or a check that crashes, takes this
 * process with it and not the report. It says what it begins with before it does, and what it found, a line of JSON
 * each (supervisor.ts reads them).
 */
import { errorText, UbiError } from "../errors.ts";
import { CheckContext, type CheckOptions } from "./check-context.ts";
import type { Finding, Subject } from "./finding.ts";
import { SUBJECTS } from "./subjects.ts";

/** A line: the subject that begins, by its number, or something that was found about it. */
export type ProbeMessage =
  | { readonly kind: "begin"; readonly subject: number }
  | { readonly kind: "found"; readonly finding: Finding }
  | { readonly kind: "done" };

/** Examines the subjects from number `from` on, and passes on what they tell. */
export async function runProbe(
  options: CheckOptions & { readonly from: number },
  send: (message: ProbeMessage) => void,
): Promise<void> {
  const context = new CheckContext(options);
  for (let number = options.from; number < SUBJECTS.length; number += 1) {
    const subject = SUBJECTS[number];
    if (subject !== undefined && (await isOfInterest(subject, context))) {
      send({ kind: "begin", subject: number });
      await examine(subject, context, send);
    }
  }
  send({ kind: "done" });
}

// --- internal ---

async function isOfInterest(subject: Subject, context: CheckContext): Promise<boolean> {
  if (subject.isOfConfig !== true) {
    return true;
  }
  if (context.options.configPath === undefined) {
    return false;
  }
  try {
    await context.config();
    return true;
  } catch {
    return false; // told by the subject "configuration"
  }
}

async function examine(
  subject: Subject,
  context: CheckContext,
  send: (message: ProbeMessage) => void,
): Promise<void> {
  try {
    const examination = await subject.load();
    for await (const finding of examination(context)) {
      send({ kind: "found", finding });
    }
  } catch (error) {
    send({ kind: "found", finding: unexpected(error) });
  }
}

/** Checks expect what can be wrong with a machine; what they do not expect is told all the same. */
function unexpected(error: unknown): Finding {
  if (error instanceof UbiError && error.code === "E_NATIVE_LIBRARY") {
    return { check: "all", verdict: "skip", found: "needs the native library" };
  }
  const found = error instanceof UbiError ? `${error.code}: ${error.message}` : errorText(error);
  return { check: "all", verdict: "fail", found };
}
