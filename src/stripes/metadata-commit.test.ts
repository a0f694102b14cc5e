import { expect, test } from "bun:test";
import { STRIPE_FLAG } from "../formats/metadata.ts";
import { MetadataCommit } from "./metadata-commit.ts";

const { FETCHED, WRITTEN, HAS_SOURCE } = STRIPE_FLAG;
/** Three groups of 508 stripes. */
const STRIPES = 1200;

test("all stripes added since the last flush share base flush, sector writes and metadata flush", () => {
  const { commit, log } = started();
  for (const stripe of [5, 6, 7, 600]) {
    commit.addFetched(stripe, 0, 0);
  }
  commit.add(8, WRITTEN);
  commit.advance(0);
  expect(log.splice(0)).toEqual(["flush base"]);
  commit.baseFlushed(true);
  expect(log.splice(0)).toEqual(["write 1", "write 2"]);
  commit.sectorWritten(1, true);
  commit.sectorWritten(0, true);
  expect(log.splice(0)).toEqual(["flush metadata"]);
  commit.metadataFlushed(true);
  expect(log).toEqual(["5=1", "6=1", "7=1", "600=1", "8=2"]);
});

test("what is added while a round is under way belongs to the next", () => {
  const { commit, log } = started();
  commit.addFetched(5, 0, 0);
  commit.advance(0);
  commit.addFetched(6, 0, 0);
  commit.advance(0);
  finishRound(commit);
  expect(log.splice(0)).toEqual(["flush base", "write 1", "flush metadata", "5=1"]);
  commit.advance(0);
  expect(log).toEqual(["flush base"]);
});

test("WRITTEN alone needs no base flush, and a bit that is set needs nothing", () => {
  const { commit, log, flags } = started();
  flags[4] = HAS_SOURCE | FETCHED | WRITTEN;
  commit.add(3, WRITTEN);
  commit.add(4, WRITTEN);
  commit.advance(0);
  expect(log.splice(0)).toEqual(["write 1"]);
  commit.sectorWritten(0, true);
  commit.metadataFlushed(true);
  expect(log).toEqual(["flush metadata", "3=2", "4=0"]);
});

test("stripes that are added between rounds: theirs and those that waited are written with them", () => {
  const { commit, log } = started();
  commit.add(1199, WRITTEN);
  expect(commit.isBetweenRounds).toBe(true);
  const flags = new Uint8Array(2000);
  flags.set(commit.flags);
  commit.grow(flags);
  commit.add(1999, WRITTEN);
  commit.advance(0);
  expect(commit.isBetweenRounds).toBe(false);
  expect(log.splice(0)).toEqual(["write 3", "write 4"]);
  commit.sectorWritten(0, true);
  commit.sectorWritten(1, true);
  commit.metadataFlushed(true);
  expect(log).toEqual(["flush metadata", "1199=2", "1999=2"]);
  expect([flags[1199], flags[1999]]).toEqual([HAS_SOURCE | WRITTEN, WRITTEN]);
});

test("more dirty sectors than places are written one after another", () => {
  const { commit, log } = started();
  for (const stripe of [0, 508, 1016]) {
    commit.add(stripe, WRITTEN);
  }
  commit.advance(0);
  expect(log.splice(0)).toEqual(["write 1", "write 2"]);
  commit.sectorWritten(0, true);
  expect(log.splice(0)).toEqual(["write 3"]);
});

test("a failed base flush fails the stripes with data, at once, and nobody else", () => {
  const { commit, log, flags } = started();
  commit.addFetched(5, WRITTEN, 0);
  commit.add(600, WRITTEN);
  commit.advance(0);
  commit.baseFlushed(false);
  expect(log).toEqual(["flush base", "5 failed=3 base", "write 2"]);
  expect(flags[5]).toBe(HAS_SOURCE);
});

test("a sync of somebody else that failed meanwhile counts like an own one", () => {
  const { commit, log, base } = started();
  commit.addFetched(5, 0, 0);
  commit.advance(0);
  base.failures = 1;
  commit.baseFlushed(true);
  expect(log).toEqual(["flush base", "5 failed=1 base"]);
});

test("a failed metadata write is done again after a pause that doubles, all sectors of the round", () => {
  const { commit, log } = started();
  commit.add(3, WRITTEN);
  commit.advance(1000);
  commit.sectorWritten(0, false);
  expect(commit.dueMs).toBe(1100);
  commit.advance(1099);
  commit.advance(1100);
  commit.sectorWritten(0, true);
  commit.metadataFlushed(false);
  expect(commit.dueMs).toBe(1300);
  commit.advance(1300);
  commit.sectorWritten(0, true);
  commit.metadataFlushed(true);
  const once = ["write 1", "flush metadata"];
  expect(log).toEqual(["write 1", ...once, ...once, "3=2"]);
});

test("after the last retry the stripes fail, their bits are taken back, and later ones go on", () => {
  const { commit, log, flags } = started();
  commit.addFetched(5, 0, 0);
  commit.advance(0);
  commit.add(5, WRITTEN);
  commit.baseFlushed(true);
  for (let i = 0; i < 3; i++) {
    commit.sectorWritten(0, false);
    commit.advance(commit.dueMs);
  }
  commit.sectorWritten(0, false);
  expect(log.at(-1)).toBe("5 failed=3 metadata");
  expect(flags[5]).toBe(HAS_SOURCE);
  expect(commit.uncommitted).toBe(0);
  commit.addFetched(6, 0, 0);
  commit.advance(0);
  finishRound(commit);
  expect(log.at(-1)).toBe("6=1");
});

// --- internal ---

function started() {
  const log: string[] = [];
  const flags = new Uint8Array(STRIPES).fill(HAS_SOURCE);
  const base = { failures: 0 };
  const commit = new MetadataCommit({
    flags,
    places: [new Uint8Array(512), new Uint8Array(512)].reverse(),
    host: {
      flushBase: () => log.push("flush base"),
      baseFailures: () => base.failures,
      writeSector: (_place, sector) => log.push(`write ${sector}`),
      flushMetadata: () => log.push("flush metadata"),
      committed: (stripe, bits) => log.push(`${stripe}=${bits}`),
      failed: (stripe, bits, isBase) =>
        log.push(`${stripe} failed=${bits} ${isBase ? "base" : "metadata"}`),
    },
  });
  return { commit, log, flags, base };
}

function finishRound(commit: MetadataCommit): void {
  commit.baseFlushed(true);
  commit.sectorWritten(0, true);
  commit.metadataFlushed(true);
}
