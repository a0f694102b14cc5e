/** Which stripes are archived, and from where. */
import { expect, test } from "bun:test";
import { STRIPE_FLAG } from "../formats/metadata.ts";
import { planStripes, STRIPE_FROM } from "./stripe-plan.ts";

const { FETCHED, WRITTEN, HAS_SOURCE } = STRIPE_FLAG;
const { NOWHERE, DISK, SOURCE } = STRIPE_FROM;

const placesOf = (flags: readonly number[], isWriteTracked: boolean): readonly number[] => [
  ...planStripes(Uint8Array.from(flags), isWriteTracked).from,
];

test("with tracked writes: stripes of the source and written ones, and no others", () => {
  const flags: number[] = Array.from({ length: 16 }, (_, n) => (n < 4 ? HAS_SOURCE : 0));
  flags[8] = WRITTEN;
  const plan = planStripes(Uint8Array.from(flags), true);
  const archived = [...plan.from].flatMap((place, stripe) => (place === NOWHERE ? [] : [stripe]));
  expect(archived).toEqual([0, 1, 2, 3, 8]);
  expect(plan).toMatchObject({ diskStripes: 1, sourceStripes: 4 });
});

test("without tracked writes: stripes that have no source may hold data and are archived", () => {
  expect(placesOf([0, WRITTEN, HAS_SOURCE, HAS_SOURCE | FETCHED], false)).toEqual([
    DISK,
    DISK,
    SOURCE,
    DISK,
  ]);
});

test("written but not fetched: the source has the data, the disk not yet", () => {
  expect(placesOf([HAS_SOURCE | WRITTEN], true)).toEqual([SOURCE]);
  expect(placesOf([HAS_SOURCE | WRITTEN | FETCHED], true)).toEqual([DISK]);
});

test("bits of a later version change nothing", () => {
  expect(placesOf([0xf8, 0xf8 | HAS_SOURCE], true)).toEqual([NOWHERE, SOURCE]);
});
