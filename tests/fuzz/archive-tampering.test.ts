/**
 * No change of any object of an archive goes unnoticed: it is an error, or something that `verify` tells.
 */
import { describe, expect, test } from "bun:test";
import {
  type ArchiveManifest,
  MAPPING_KEY,
  METADATA_KEY,
  openArchive,
} from "../../src/archive/archive-manifest.ts";
import { FakeStore } from "../../src/archive/fake-store.ts";
import { StripeDecoder } from "../../src/archive/stripe-object.ts";
import { UbiError } from "../../src/errors.ts";
import { buildArchive } from "../support/archive-builder.ts";

const IS_LONG = process.env.UBIBLK_TEST_LONG !== undefined;
/** The head of a map has 60 bytes, its tail 70. */
const EDGE_BYTES = 75;
const STRIPE_SECTORS = 2;
const STRIPE_BYTES = STRIPE_SECTORS * 512;
const KEK = new Uint8Array(32).fill(9);
const ZSTD = { kind: "zstd", level: 3 } as const;
const NONE = { kind: "none" } as const;

const KINDS = [
  { name: "plain", isEncrypted: false, compression: NONE, kek: undefined },
  { name: "plain, zstd, KEK", isEncrypted: false, compression: ZSTD, kek: KEK },
  { name: "enciphered, KEK", isEncrypted: true, compression: NONE, kek: KEK },
  { name: "enciphered, zstd, KEK", isEncrypted: true, compression: ZSTD, kek: KEK },
] as const;

/** Of a disk that ends inside its third stripe, so that its size is recorded in the padding. */
async function archiveOf(kind: (typeof KINDS)[number]) {
  const store = new FakeStore();
  const image = new Uint8Array(2 * STRIPE_BYTES + 512);
  image.fill(7, 0, 900);
  image.fill(8, 2 * STRIPE_BYTES);
  const { name: _name, kek, ...options } = kind;
  const wrapped = kek === undefined ? {} : { kek };
  const objects = await buildArchive(store, {
    stripeSectors: STRIPE_SECTORS,
    image,
    ...options,
    ...wrapped,
  });
  const manifest = await openArchive(store, kek);
  return { store, manifest, dataKey: objects[0] ?? "", kek };
}

/**
 * Each bit of it changed, each beginning of it, and each place with bytes that mean something to its parser put in. In
 * the middle, where one byte is like the next, one bit of each, and some of the other changes, unless there is time.
 */
function* changesOf(bytes: Uint8Array): Generator<Uint8Array> {
  for (let at = 0; at <= bytes.length; at++) {
    const isThorough = IS_LONG || at < EDGE_BYTES || at > bytes.length - EDGE_BYTES;
    yield* flipsAt(bytes, at, isThorough ? [0, 1, 2, 3, 4, 5, 6, 7] : [at & 7]);
    if (isThorough || at % 16 === 0) {
      yield* cutsAt(bytes, at);
    }
  }
}

function* flipsAt(bytes: Uint8Array, at: number, bits: readonly number[]): Generator<Uint8Array> {
  for (const bit of at < bytes.length ? bits : []) {
    const changed = bytes.slice();
    changed[at] = (changed[at] ?? 0) ^ (1 << bit);
    yield changed;
  }
}

/** Zero, space, newline, an empty CBOR text, a CBOR tag, a CBOR break, a sector of zeros. */
const INSERTED = [[0], [32], [10], [0x60], [0xc1], [0xff], Array<number>(512).fill(0)];

function* cutsAt(bytes: Uint8Array, at: number): Generator<Uint8Array> {
  if (at < bytes.length) {
    yield bytes.slice(0, at);
  }
  for (const more of INSERTED) {
    yield Uint8Array.from(
      Buffer.concat([bytes.subarray(0, at), Buffer.from(more), bytes.subarray(at)]),
    );
  }
}

/** What `verify` has to go by: an error's code, or how much of the manifest nobody reads. */
async function opened(store: FakeStore, kek: Uint8Array | undefined): Promise<string> {
  try {
    const { surplus } = await openArchive(store, kek);
    return surplus.length === 0 ? "unnoticed" : "surplus";
  } catch (error) {
    return error instanceof UbiError ? error.code : `not an operating error: ${error}`;
  }
}

const NOTICED = ["E_ARCHIVE", "E_ARCHIVE_KEY", "E_ARCHIVE_TAMPERED", "E_STORE_OBJECT", "surplus"];

describe.each(KINDS)("$name", (kind) => {
  test("untouched, nothing is found", async () => {
    const { manifest } = await archiveOf(kind);
    expect(manifest.surplus).toEqual([]);
  });

  test.each([METADATA_KEY, MAPPING_KEY])(
    "no change of %s goes unnoticed",
    async (key) => {
      const { store, kek } = await archiveOf(kind);
      const whole = store.objects.get(key)?.slice() ?? new Uint8Array();
      const seen = new Set<string>();
      for (const changed of changesOf(whole)) {
        store.objects.set(key, changed);
        const outcome = await opened(store, kek);
        seen.add(outcome);
        if (!NOTICED.includes(outcome)) {
          throw new Error(`${outcome}: ${Buffer.from(changed).toString("latin1")}`);
        }
      }
      expect(seen).toContain("surplus"); // some change is of no meaning, and still told
      store.objects.set(key, whole);
      expect(await opened(store, kek)).toBe("unnoticed");
    },
    60_000,
  );

  test("no change of an object goes unnoticed", async () => {
    const { store, manifest, dataKey } = await archiveOf(kind);
    const whole = store.objects.get(dataKey)?.slice() ?? new Uint8Array();
    using decoder = decoderOf(manifest);
    const into = new Uint8Array(STRIPE_BYTES);
    decoder.decode(0, manifest.map.hash(0), whole, into);
    for (const changed of changesOf(whole)) {
      const decode = () => decoder.decode(0, manifest.map.hash(0), changed, into);
      expect(decode).toThrow(dataKey);
    }
  });
});

function decoderOf({ compression, xtsKey, stripeSectors }: ArchiveManifest): StripeDecoder {
  return new StripeDecoder({ compression: compression.kind, xtsKey, stripeSectors });
}
