import { afterEach, beforeEach, expect, test } from "bun:test";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Arena } from "../ffi/arena.ts";
import { openImage, openRawSource } from "./open-raw-source.ts";

const STRIPE = 32 * 1024;
/** In the middle of a sector. */
const PRESENT = STRIPE / 2 + 100;
const IMAGE_BYTES = STRIPE + PRESENT;

let folder = "";

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "ubiblk-source-"));
});

afterEach(() => {
  rmSync(folder, { recursive: true, force: true });
});

test.each(["io_uring", "sync"] as const)(
  "an image on disk, read through %s: its bytes, then zeros",
  (ioEngine) => {
    const path = join(folder, "image");
    const content = Uint8Array.from({ length: IMAGE_BYTES }, (_, i) => ((i * 13) ^ (i >> 8)) | 1);
    writeFileSync(path, content);
    using arena = new Arena(STRIPE);
    const { address, view } = arena.bytes(STRIPE);
    view.fill(0xdb);
    using file = openImage(path);
    const { fd, blockBytes } = file;
    const image = { fd, blockBytes, sizeBytes: file.geometry.sizeBytes };
    using source = openRawSource(image, { stripeBytes: STRIPE, requestsMax: 2, ioEngine });
    source.request(1, { stripe: 1, offsetBytes: 0, lengthBytes: STRIPE }, address);
    source.submit();
    const deadline = performance.now() + 5_000;
    while (source.completions() === 0 && performance.now() < deadline) {
      Bun.sleepSync(1);
      source.submit();
    }
    expect([source.completedId(0), source.completedResult(0)]).toEqual([1, 0]);
    expect(view.subarray(0, PRESENT)).toEqual(content.subarray(STRIPE));
    expect(view.subarray(PRESENT)).toEqual(new Uint8Array(STRIPE - PRESENT));
    expect(source.sectors).toBe(Math.ceil(file.sectors));
  },
);
