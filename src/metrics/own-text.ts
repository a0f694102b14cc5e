/**
 * The metrics of this process, from what it would answer to RPC commands. A text that was made a moment ago is given
 * again, so that clients who ask all the time cost little more than their connections.
 */
import type { AnswerRequest, RpcAnswer } from "../rpc/answer-lines.ts";
import { identityOf } from "./device-metrics.ts";
import type { Answers } from "./family.ts";
import { METRIC_COMMANDS, type MetricFormat, metricText } from "./text.ts";

export const TEXT_AGE_MAX_MS = 100;

export class OwnText {
  readonly #answer: AnswerRequest;
  readonly #nowMs: () => number;
  readonly #made = new Map<MetricFormat, { readonly text: string; readonly atMs: number }>();

  constructor(answer: AnswerRequest, nowMs: () => number) {
    this.#answer = answer;
    this.#nowMs = nowMs;
  }

  text(format: MetricFormat): string {
    const atMs = this.#nowMs();
    const last = this.#made.get(format);
    if (last !== undefined && atMs - last.atMs < TEXT_AGE_MAX_MS) {
      return last.text;
    }
    const answers = ownAnswers(this.#answer);
    const target = { labels: identityOf(answers), answers };
    const text = metricText([target], { format, processPrefix: "" });
    this.#made.set(format, { text, atMs });
    return text;
  }
}

// --- internal ---

/** What a process answers now, and at once; commands that it does not know are left out. */
function ownAnswers(answer: AnswerRequest): Answers {
  const answers = new Map<string, RpcAnswer>();
  for (const command of METRIC_COMMANDS) {
    const told = answer({ command, members: {} });
    if (told !== undefined && !(told instanceof Promise)) {
      answers.set(command, told);
    }
  }
  return answers;
}
