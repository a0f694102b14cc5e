import { expect, test } from "bun:test";
import { timesIn } from "./archive-note.ts";

const FINE = { isFile: () => true, mtimeNs: 5_000_000_000n, ctimeNs: 7_000_000_001n };

test("a file tells when it was written, also one whose mtime somebody set to a whole second", () => {
  expect(timesIn(FINE)).toEqual({ modifiedNs: 5_000_000_000n, changedNs: 7_000_000_001n });
});

test.each([
  { what: "a device", status: { ...FINE, isFile: () => false } },
  {
    what: "a file system that counts by the second",
    status: { ...FINE, ctimeNs: 7_000_000_000n },
  },
])("$what does not tell", ({ status }) => {
  expect(timesIn(status)).toBeUndefined();
});
