import { afterEach, expect, test } from "bun:test";
import { stopOrder } from "./stop-apart.ts";

const VARIABLE = "UBIBLK_UBLK_STOP";

afterEach(() => {
  delete process.env[VARIABLE];
});

test("without the variable there is nothing to stop", () => {
  expect(stopOrder()).toBeUndefined();
});

test("an order of whoever started this process is taken", () => {
  process.env[VARIABLE] = `12:${process.ppid}`;
  expect(stopOrder()).toEqual({ id: 12, serverPid: process.ppid });
});

for (const text of ["", "12", "12:", ":1", `12:${process.ppid + 1}`, `-1:${process.ppid}`, "x:y"]) {
  test(`${JSON.stringify(text)}: not an order of a server that lives`, () => {
    process.env[VARIABLE] = text;
    expect(stopOrder).toThrow("which only a server may do");
  });
}
