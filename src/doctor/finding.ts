/** What a check tells, and what it needs for it. */
import type { CheckContext } from "./check-context.ts";

/** `skip`: it was not looked at, and `found` says why. */
export type Verdict = "ok" | "warn" | "fail" | "skip";

export interface Finding {
  /** What was looked at, in a word or two. */
  readonly check: string;
  readonly verdict: Verdict;
  readonly found: string;
  /** What to do about it. */
  readonly advice?: string | undefined;
}

/** A finding as it is reported, under the subject that was examined. */
export interface SubjectFinding extends Finding {
  readonly subject: string;
}

type Examination = (context: CheckContext) => AsyncIterable<Finding> | Iterable<Finding>;

/** A part of the machine, or of the configuration, that is examined as a whole: what hangs costs its rest. */
export interface Subject {
  readonly name: string;
  /** Its code is loaded when its turn comes: without the native library some of it cannot be. */
  readonly load: () => Promise<Examination>;
  /** Left out when no configuration is given, or when it does not load. */
  readonly isOfConfig?: boolean;
  /** Nothing that follows can be examined without it. */
  readonly isVital?: boolean;
}
