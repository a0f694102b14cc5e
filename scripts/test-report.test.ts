import { expect, test } from "bun:test";
import { parseReport } from "./test-report.ts";

test("report with a group: its cases carry the group's name and their outcome", () => {
  const cases = parseReport(`<testsuites><testsuite name="a.test.ts">
    <testcase name="adds &lt;two&gt; &amp; more" classname="" time="0" assertions="1" />
    <testsuite name="group">
      <testcase name="breaks" classname="group" time="0">
        <failure type="AssertionError" message="x&#10;">trace</failure>
      </testcase>
      <testcase name="waits (skipped: no disk)" classname="group" time="0">
        <skipped />
      </testcase>
    </testsuite></testsuite></testsuites>`);
  expect(cases).toEqual([
    { name: "adds <two> & more", outcome: "passed" },
    { name: "group > breaks", outcome: "failed" },
    { name: "group > waits (skipped: no disk)", outcome: "skipped" },
  ]);
});

test("report of a process that died: no cases", () => {
  expect(parseReport("")).toEqual([]);
});
