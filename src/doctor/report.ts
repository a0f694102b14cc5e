/** The report as text and as JSON: pure. */
import { oneLine } from "../log.ts";
import type { SubjectFinding, Verdict } from "./finding.ts";

export type Counts = Readonly<Record<Verdict, number>>;

export function countFindings(findings: readonly SubjectFinding[]): Counts {
  const counts = { ok: 0, warn: 0, fail: 0, skip: 0 };
  for (const { verdict } of findings) {
    counts[verdict] += 1;
  }
  return counts;
}

/**
 * The lines of a finding, under a line with its subject where that is another one than before.
 *
 *     io_uring
 *       ok    set-up              kernel 6.1 or later: work is done in the thread that asked
 *       warn  registered buffers  refused: ENOMEM (out of memory)
 *             raise the limit on locked memory
 */
export function findingLines(finding: SubjectFinding, subjectBefore: string | undefined): string {
  const { subject, check, verdict, found, advice } = finding;
  const head = subject === subjectBefore ? "" : `${subject}\n`;
  const line = `  ${verdict.padEnd(6)}${oneLine(check).padEnd(CHECK_WIDTH)}  ${oneLine(found)}\n`;
  const shownAdvice = advice === undefined ? "" : `        -> ${oneLine(advice)}\n`;
  return head + line + shownAdvice;
}

/** `12 ok, 1 warning, 0 failed, 2 not checked`. */
export function summaryText({ ok, warn, fail, skip }: Counts): string {
  const warnings = warn === 1 ? "1 warning" : `${warn} warnings`;
  return `${ok} ok, ${warnings}, ${fail} failed, ${skip} not checked`;
}

/** One line of JSON. */
export function reportJson(findings: readonly SubjectFinding[], version: string): string {
  const checks = findings.map(({ subject, check, verdict, found, advice }) => ({
    subject,
    check,
    verdict,
    found,
    advice: advice ?? null,
  }));
  return `${JSON.stringify({ version, counts: countFindings(findings), checks })}\n`;
}

/** What makes the exit code 1, in a line; undefined when nothing does. */
export function failureText(
  findings: readonly SubjectFinding[],
  isStrict: boolean,
): string | undefined {
  const failed = namesOf(findings, "fail");
  if (failed.length > 0) {
    return `${failed.length === 1 ? "a check" : `${failed.length} checks`} failed: ${shortList(failed)}`;
  }
  const warned = isStrict ? namesOf(findings, "warn") : [];
  return warned.length === 0 ? undefined : `warnings, with --strict: ${shortList(warned)}`;
}

// --- internal ---

const CHECK_WIDTH = 20;
const NAMES_MAX = 5;

function namesOf(findings: readonly SubjectFinding[], wanted: Verdict): readonly string[] {
  return findings
    .filter(({ verdict }) => verdict === wanted)
    .map(({ subject, check }) => `${subject} ${oneLine(check)}`);
}

function shortList(names: readonly string[]): string {
  const rest = names.length - NAMES_MAX;
  const shown = names.slice(0, NAMES_MAX).join(", ");
  return rest > 0 ? `${shown} and ${rest} more` : shown;
}
