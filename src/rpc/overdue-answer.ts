/** What is told of requests that have taken too long, and of threads that do not answer. */
import type { OverdueRequest, OverdueRequests } from "../device/overdue-requests.ts";
import type { RpcAnswer } from "./answer-lines.ts";
import { requestObject } from "./request-object.ts";

export type OverdueFacts = Pick<
  OverdueRequests,
  "find" | "isOverdue" | "silentThreads" | "thresholdNs"
>;

/** Requests of all queues that are listed. */
const LISTED_MAX = 256;

export function overdueAnswer(
  facts: OverdueFacts,
  nowNs: number,
  found = facts.find(nowNs),
): RpcAnswer {
  return {
    count: found.length,
    requests: found.slice(0, LISTED_MAX).map((request) => overdueObject(request, nowNs)),
    silent_threads: facts.silentThreads,
    threshold_ns: Number.isFinite(facts.thresholdNs) ? facts.thresholdNs : null,
  };
}

/** Beside the answer to `status`, and only when there is something to tell: that answer else is as it always was. */
export function overdueInStatus(facts: OverdueFacts, nowNs: number): { overdue?: RpcAnswer } {
  const found = facts.find(nowNs);
  const isWell = facts.silentThreads.length === 0 && found.length === 0;
  return isWell ? {} : { overdue: overdueAnswer(facts, nowNs, found) };
}

// --- internal ---

function overdueObject(request: OverdueRequest, nowNs: number): RpcAnswer {
  const { queue, waitsFor } = request;
  const about =
    waitsFor.kind === "stripe"
      ? {
          stripe: waitsFor.stripe,
          stripe_failed_tries: waitsFor.failedTries,
          stripe_step: waitsFor.step,
        }
      : {};
  const all = { ...requestObject(request, nowNs), ...about, queue, waits_for: waitsFor.kind };
  return Object.fromEntries(Object.entries(all).sort(([a], [b]) => (a < b ? -1 : 1)));
}
