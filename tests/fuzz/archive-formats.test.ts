/** Hostile archives end in errors for the user, never in a crash, a hang or a wrong map; what is written is read. */
import { expect, test } from "bun:test";
import { createHmac } from "node:crypto";
import fc from "fast-check";
import { openArchive } from "../../src/archive/archive-manifest.ts";
import { FakeStore } from "../../src/archive/fake-store.ts";
import { StripeMap } from "../../src/archive/stripe-map.ts";
import { decodeMapping, encodeMapping } from "../../src/archive/stripe-map-file.ts";
import { StripeDecoder, StripeEncoder } from "../../src/archive/stripe-object.ts";
import { UbiError } from "../../src/errors.ts";
import { decodeArchiveMetadata } from "../../src/formats/archive-metadata.ts";
import { mappingHmacPrefix } from "../../src/formats/stripe-mapping.ts";
import { decodeMappingFile, visitMappedStripes } from "../../src/formats/stripe-mapping-decode.ts";
import {
  mappingFileHead,
  mappingFileTail,
  writeElements,
} from "../../src/formats/stripe-mapping-encode.ts";
import { walkZstdFrames } from "../../src/formats/zstd-frames.ts";
import { FUZZ_SEED } from "../support/fuzz-seed.ts";

const IS_LONG = process.env.UBIBLK_TEST_LONG !== undefined;
const OPTIONS = { numRuns: IS_LONG ? 30_000 : 1500, seed: FUZZ_SEED };
const STRIPE_SECTORS = 8;
const STRIPE_BYTES = STRIPE_SECTORS * 512;
const hmacKey = Uint8Array.from({ length: 32 }, (_, i) => i);
const xtsKey = Uint8Array.from({ length: 64 }, (_, i) => 255 - i);

/** "ok" or a code of an operating error; anything else that is thrown fails the test. */
function outcomeOf(work: () => unknown): string {
  try {
    work();
    return "ok";
  } catch (error) {
    if (error instanceof UbiError) {
      return error.code;
    }
    throw error;
  }
}

interface Edit {
  readonly at: number;
  readonly removed: number;
  readonly added: Uint8Array;
}

/** Some bytes exchanged, cut out or put in, at places that count from either end. */
const edits = fc.array(
  fc.record({
    at: fc.oneof(fc.nat(200), fc.nat(200_000)),
    removed: fc.oneof(fc.constant(1), fc.nat(4), fc.nat(100_000)),
    added: fc.uint8Array({ maxLength: 9 }),
  }),
  { minLength: 1, maxLength: 3 },
);

function edited(bytes: Uint8Array, changes: readonly Edit[]): Uint8Array {
  let result = bytes;
  for (const { at, removed, added } of changes) {
    const place = at % (result.length + 1);
    const rest = result.subarray(place + removed);
    result = Uint8Array.from(Buffer.concat([result.subarray(0, place), added, rest]));
  }
  return result;
}

type Stripe = "absent" | "zero" | Uint8Array;
const stripes = fc.array(
  fc.oneof(
    fc.constant<Stripe>("absent"),
    fc.constant<Stripe>("zero"),
    fc.uint8Array({ minLength: 32, maxLength: 32 }),
  ),
  { maxLength: 60 },
);

function mapOf(list: readonly Stripe[]): StripeMap {
  const map = StripeMap.create(list.length);
  for (const [stripe, value] of list.entries()) {
    if (value === "zero") {
      map.setZero(stripe);
    } else if (value !== "absent") {
      map.setStored(stripe, value);
    }
  }
  return map;
}

function fileOf(list: readonly Stripe[], key: Uint8Array | undefined, missingSectors: number) {
  const sizeBytes = list.length * STRIPE_BYTES - (list.length === 0 ? 0 : missingSectors * 512);
  const keys = { hmacKey, xtsKey: key };
  const map = mapOf(list);
  return {
    map,
    sizeBytes,
    keys,
    file: encodeMapping({ map, sizeBytes, keys, stripeSectors: STRIPE_SECTORS }),
  };
}

/** A whole file around any plaintext, with the right tag. */
function authenticFile(padded: Uint8Array, plaintextBytes: number): Uint8Array {
  const tag = createHmac("sha256", hmacKey)
    .update(mappingHmacPrefix(plaintextBytes))
    .update(padded)
    .digest();
  const elements = new Uint8Array(padded.length * 2);
  const end = writeElements(padded, elements, 0);
  const parts = [
    mappingFileHead(padded.length),
    elements.subarray(0, end),
    mappingFileTail(plaintextBytes, tag),
  ];
  return Uint8Array.from(Buffer.concat(parts));
}

const PLAIN_KEYS = { hmacKey, xtsKey: undefined };
const optionalKey = fc.constantFrom(undefined, xtsKey);

test("maps: what is written is read, of any disk", () => {
  fc.assert(
    fc.property(stripes, optionalKey, fc.nat(STRIPE_SECTORS - 1), (list, key, missingSectors) => {
      const { map, sizeBytes, keys, file } = fileOf(list, key, missingSectors);
      const read = decodeMapping(file, { keys, stripeSectors: STRIPE_SECTORS });
      expect(read.sizeBytes).toBe(sizeBytes);
      expect(read.map.stripeEnd).toBe(list.length);
      for (let stripe = 0; stripe < list.length; stripe += 1) {
        expect(read.map.kind(stripe)).toBe(map.kind(stripe));
        if (map.kind(stripe) === "stored") {
          expect(read.map.hashHex(stripe)).toBe(map.hashHex(stripe));
        }
      }
    }),
    OPTIONS,
  );
});

test("maps: a damaged file is an error, or what was changed has no meaning", () => {
  fc.assert(
    fc.property(stripes, optionalKey, edits, (list, key, changes) => {
      const { map, sizeBytes, keys, file } = fileOf(list, key, 0);
      let read: ReturnType<typeof decodeMapping> | undefined;
      const options = { keys, stripeSectors: STRIPE_SECTORS };
      const outcome = outcomeOf(() => {
        read = decodeMapping(edited(file, changes), options);
      });
      expect(["ok", "E_ARCHIVE", "E_ARCHIVE_TAMPERED"]).toContain(outcome);
      if (read !== undefined) {
        expect(read.sizeBytes).toBe(sizeBytes);
        const kinds = (of: StripeMap) => list.map((_, stripe) => of.kind(stripe));
        expect(kinds(read.map)).toEqual(kinds(map));
      }
    }),
    OPTIONS,
  );
});

test("maps: authentic plaintext of any damage is an error or a map, in bounds", () => {
  fc.assert(
    fc.property(stripes, edits, fc.nat(3000), (list, changes, length) => {
      const { file } = fileOf(list, undefined, 3);
      const { ciphertext } = decodeMappingFile(file);
      const damaged = edited(ciphertext, changes);
      const padded = new Uint8Array(Math.ceil(damaged.length / 512) * 512);
      padded.set(damaged);
      const whole = authenticFile(padded, Math.min(length, padded.length));
      const options = { keys: PLAIN_KEYS, stripeSectors: STRIPE_SECTORS };
      expect(["ok", "E_ARCHIVE"]).toContain(outcomeOf(() => decodeMapping(whole, options)));
    }),
    OPTIONS,
  );
});

/** Heads of CBOR items, with arguments that are small, large and absurd, and names that mean something. */
const cbor = fc
  .array(
    fc.oneof(
      fc.nat(255).map((byte) => Uint8Array.of(byte)),
      fc
        .tuple(fc.nat(7), fc.constantFrom(24, 25, 26, 27, 31), fc.uint8Array({ maxLength: 8 }))
        .map(([major, info, argument]) => Uint8Array.of((major << 5) | info, ...argument)),
      fc
        .constantFrom(
          "domain",
          "version",
          "ciphertext",
          "plaintext_len",
          "hmac_tag",
          "Zero",
          "Some",
        )
        .map((name) => Uint8Array.of(0x60 | name.length, ...Buffer.from(name))),
    ),
    { maxLength: 40 },
  )
  .map((parts) => Uint8Array.from(Buffer.concat(parts)));

test("CBOR: any items end in an error or a result, in the file and in the map", () => {
  const nobody = { zero: () => {}, stored: () => {} };
  fc.assert(
    fc.property(cbor, fc.boolean(), (bytes, isMap) => {
      const whole = isMap ? Uint8Array.of(0xbf, ...bytes) : bytes;
      expect(["ok", "E_ARCHIVE"]).toContain(outcomeOf(() => visitMappedStripes(whole, nobody)));
      expect(["ok", "E_ARCHIVE"]).toContain(outcomeOf(() => decodeMappingFile(whole.slice())));
    }),
    OPTIONS,
  );
});

const METADATA = new TextEncoder().encode(
  '{"format_version":1,"stripe_sector_count":16,"encryption_key":"AAAA","compression":{"zstd":{"level":3}},' +
    '"hmac_key":"AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=","metadata_hmac":""}',
);

test("parameters: a damaged file and any JSON end in an error or a result", () => {
  fc.assert(
    fc.property(edits, fc.json(), (changes, json) => {
      for (const bytes of [edited(METADATA, changes), new TextEncoder().encode(json)]) {
        expect(["ok", "E_ARCHIVE"]).toContain(outcomeOf(() => decodeArchiveMetadata(bytes)));
      }
    }),
    OPTIONS,
  );
});

test("parameters: an archive with any parameters is refused", async () => {
  await fc.assert(
    fc.asyncProperty(edits, async (changes) => {
      const store = new FakeStore();
      store.objects.set("metadata.json", edited(METADATA, changes));
      await expect(openArchive(store, undefined)).rejects.toBeInstanceOf(UbiError);
    }),
    { ...OPTIONS, numRuns: OPTIONS.numRuns / 5 },
  );
});

const contents = fc.oneof(
  fc.uint8Array({ minLength: STRIPE_BYTES, maxLength: STRIPE_BYTES }),
  fc.tuple(fc.uint8Array({ maxLength: 40 }), fc.nat(STRIPE_BYTES - 40)).map(([some, at]) => {
    const data = new Uint8Array(STRIPE_BYTES);
    data.set(some, at);
    return data;
  }),
);

test("objects: what is encoded is decoded; what is damaged is an error or fits the stripe", () => {
  const zstd = { kind: "zstd", level: 1 } as const;
  using encoder = new StripeEncoder({
    compression: zstd,
    xtsKey: undefined,
    stripeSectors: STRIPE_SECTORS,
  });
  using decoder = new StripeDecoder({
    compression: "zstd",
    xtsKey: undefined,
    stripeSectors: STRIPE_SECTORS,
  });
  const into = new Uint8Array(STRIPE_BYTES);
  fc.assert(
    fc.property(contents, edits, (data, changes) => {
      const encoded = encoder.encode(0, data);
      if (encoded === "zero") {
        expect(data.every((byte) => byte === 0)).toBe(true);
        return;
      }
      decoder.decode(0, encoded.hash, encoded.bytes, into);
      expect(Buffer.compare(into, data)).toBe(0);
      const damaged = edited(encoded.bytes, changes);
      const hash = new Bun.CryptoHasher("sha256").update(damaged).digest();
      const outcome = outcomeOf(() => decoder.decode(0, hash, damaged, into));
      expect(["ok", "E_ARCHIVE_DATA"]).toContain(outcome);
    }),
    OPTIONS,
  );
});

test("zstd frames: any bytes after a magic number are walked within their bounds", () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 80 }), (bytes) => {
      const frame = Uint8Array.of(0x28, 0xb5, 0x2f, 0xfd, ...bytes);
      const walked = walkZstdFrames(frame);
      expect(walked === undefined || walked.frameCount > 0).toBe(true);
    }),
    OPTIONS,
  );
});
