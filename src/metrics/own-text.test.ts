import { expect, test } from "bun:test";
import type { AnswerRequest } from "../rpc/answer-lines.ts";
import { OwnText, TEXT_AGE_MAX_MS } from "./own-text.ts";

test("text: made of what the process answers, with its device; what it does not know is left out", () => {
  const own = new OwnText(answersOf({ version: "1.2.3", device: { device_id: "d" } }), () => 0);
  expect(own.text("prometheus")).toContain('ubiblk_info{device="d",version="1.2.3",');
  expect(own.text("prometheus")).not.toContain("process_");
  expect(own.text("openmetrics")).toEndWith("# EOF\n");
});

test("an answer that takes its time: left out", () => {
  const later: AnswerRequest = ({ command }) => Promise.resolve({ [command]: {} });
  expect(new OwnText(later, () => 0).text("prometheus")).not.toContain("_total");
});

test("text that is asked for again at once: not made anew, until its time is over", () => {
  let asked = 0;
  let nowMs = 1000;
  const count: AnswerRequest = ({ command }) => {
    asked += command === "version" ? 1 : 0;
    return undefined;
  };
  const own = new OwnText(count, () => nowMs);
  own.text("openmetrics");
  nowMs += TEXT_AGE_MAX_MS - 1;
  own.text("openmetrics");
  expect(asked).toBe(1);
  own.text("prometheus");
  expect(asked).toBe(2);
  nowMs += 1;
  own.text("openmetrics");
  expect(asked).toBe(3);
});

// --- internal ---

function answersOf(values: Readonly<Record<string, unknown>>): AnswerRequest {
  return ({ command }) => (command in values ? { [command]: values[command] } : undefined);
}
