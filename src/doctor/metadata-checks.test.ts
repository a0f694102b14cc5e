import { expect, test } from "bun:test";
import { STRIPE_FLAG } from "../formats/metadata.ts";
import { contentFindings } from "./metadata-checks.ts";

const STRIPE_BYTES = 2 ** 20;
const { FETCHED, HAS_SOURCE } = STRIPE_FLAG;
const METADATA = {
  stripeShift: 11,
  stripeCount: 3,
  flags: Uint8Array.of(HAS_SOURCE, HAS_SOURCE | FETCHED, 0),
};

test("content: stripes, and how many of the source's are fetched", () => {
  const disk = { diskBytes: 3 * STRIPE_BYTES, hasSource: true };
  expect([...contentFindings(METADATA, disk)]).toEqual([
    {
      check: "content",
      verdict: "ok",
      found: "3 stripes of 1048576 bytes; 1 of 2 in the source are fetched",
    },
  ]);
});

test("content: of a disk of another size", () => {
  const disk = { diskBytes: 4 * STRIPE_BYTES, hasSource: true };
  const [, fit] = contentFindings(METADATA, disk);
  expect(fit).toMatchObject({ check: "fit", verdict: "fail" });
});

test("content: stripes to fetch without a source", () => {
  const [, source] = contentFindings(METADATA, { diskBytes: undefined, hasSource: false });
  expect(source).toMatchObject({ check: "source", verdict: "fail" });
  expect(source?.found).toStartWith("1 stripes are still to be fetched");
});
