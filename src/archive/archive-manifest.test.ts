import { expect, test } from "bun:test";
import { createHmac } from "node:crypto";
import { encodeArchiveMetadata, metadataHmacInput } from "../formats/archive-metadata.ts";
import type { ArchiveKeys } from "./archive-keys.ts";
import {
  type Compression,
  encodeMapping,
  encodeMetadata,
  MAPPING_KEY,
  METADATA_KEY,
  openArchive,
} from "./archive-manifest.ts";
import { FakeStore } from "./fake-store.ts";
import { StripeMap } from "./stripe-map.ts";

const STRIPE_SECTORS = 16;
const STRIPE_BYTES = STRIPE_SECTORS * 512;
const hmacKey = Uint8Array.from({ length: 32 }, (_, i) => i);
const xtsKey = new Uint8Array(64).fill(0x11).fill(0x22, 32);
const KEK = new Uint8Array(32).fill(0x11);
const PLAIN: ArchiveKeys = { hmacKey, xtsKey: undefined };
const ENCRYPTED: ArchiveKeys = { hmacKey, xtsKey };
const ZSTD: Compression = { kind: "zstd", level: -7 };

interface Options {
  readonly keys?: ArchiveKeys;
  readonly kek?: Uint8Array;
  readonly compression?: Compression;
}

/** An archive of a disk of 3 stripes, the last one not whole: zero, absent, stored. */
async function storeWith(options: Options = {}): Promise<FakeStore> {
  const { keys = PLAIN, kek, compression = { kind: "none" } } = options;
  const store = new FakeStore();
  const map = StripeMap.create(3);
  map.setZero(0);
  map.setStored(2, new Uint8Array(32).fill(0xab));
  const manifest = { stripeSectors: STRIPE_SECTORS, compression, keys, kek };
  await store.put(METADATA_KEY, encodeMetadata(manifest));
  const sizeBytes = 3 * STRIPE_BYTES - 512;
  const mapping = { map, stripeSectors: STRIPE_SECTORS, sizeBytes, keys };
  await store.put(MAPPING_KEY, encodeMapping(mapping));
  return store;
}

function edit(store: FakeStore, change: (text: string) => string): void {
  const before = new TextDecoder().decode(store.objects.get(METADATA_KEY));
  const after = change(before);
  expect(after).not.toBe(before);
  store.objects.set(METADATA_KEY, new TextEncoder().encode(after));
}

test.each([
  ["plain", {}],
  ["compressed", { compression: ZSTD }],
  ["encrypted", { keys: ENCRYPTED }],
  ["encrypted, keys wrapped", { keys: ENCRYPTED, kek: KEK }],
  ["not encrypted, keys wrapped", { kek: KEK, compression: ZSTD }],
] as readonly (readonly [string, Options])[])(
  "open: what was written, %s",
  async (_what, options) => {
    const manifest = await openArchive(await storeWith(options), options.kek);
    expect(manifest.stripeSectors).toBe(STRIPE_SECTORS);
    expect(manifest.sizeBytes).toBe(3 * STRIPE_BYTES - 512);
    expect(manifest.compression).toEqual(options.compression ?? { kind: "none" });
    expect(manifest.hmacKey).toEqual(hmacKey);
    expect<unknown>(manifest.xtsKey).toEqual(options.keys?.xtsKey);
    expect(manifest.isKeyProtected).toBe(options.kek !== undefined);
    expect([0, 1, 2].map((stripe) => manifest.map.kind(stripe))).toEqual([
      "zero",
      "absent",
      "stored",
    ]);
    expect(manifest.map.hashHex(2)).toBe("ab".repeat(32));
  },
);

test("metadata: plain keys give the golden file", () => {
  const options = { stripeSectors: 2048, compression: { kind: "none" }, kek: undefined } as const;
  expect(new TextDecoder().decode(encodeMetadata({ ...options, keys: PLAIN }))).toEndWith(
    '"hmac_key":"AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=",' +
      '"metadata_hmac":"BI3sqE9hV7m8XtyfgrXc/CVZ34gTfkvgKcR2ujpnxhE="}',
  );
});

test("metadata: the golden wrapped file is opened", async () => {
  const store = await storeWith({ keys: ENCRYPTED });
  const wrapped =
    "MzMzMzMzMzMzMzMzlZJDV9uDZD2jqfp8tjryORfZHiWbyJS96VsYlLKfmzv0B0WylN3DNV3Q32+LbM26N9SXaJExA3tu7TSCc9/wbzdNJ0jQaEA+xLbIdnZ4crU=";
  const file =
    `{"format_version":1,"stripe_sector_count":16,"encryption_key":"${wrapped}",` +
    '"compression":{"zstd":{"level":3}},' +
    '"hmac_key":"IiIiIiIiIiIiIiIiF/YFSsTKmVjtNtQ3RKvn2g+C3/F+lLpcSlYQ8xX8exxfBHflTt/va0XkjthtV/yK",' +
    '"metadata_hmac":"6a67nOX1rkjgBXs1+6u2LshVvM+WKD/Rvlu3qxyUo5w="}';
  store.objects.set(METADATA_KEY, new TextEncoder().encode(file));
  const manifest = await openArchive(store, KEK);
  expect(manifest.xtsKey).toEqual(xtsKey);
  expect(manifest.compression).toEqual({ kind: "zstd", level: 3 });
});

test("open: an empty store has no archive", async () => {
  await expect(openArchive(new FakeStore(), undefined)).rejects.toMatchObject({
    code: "E_ARCHIVE",
    message: expect.stringContaining("object metadata.json not found"),
  });
});

test("open: without its map an archive is not complete", async () => {
  const store = await storeWith();
  store.objects.delete(MAPPING_KEY);
  await expect(openArchive(store, undefined)).rejects.toMatchObject({
    code: "E_ARCHIVE",
    message: expect.stringContaining("object stripe-mapping not found"),
  });
});

test("open: parameters that were changed are noticed, each of them", async () => {
  const changes: readonly (readonly [string, string])[] = [
    ['"stripe_sector_count":16', '"stripe_sector_count":17'],
    ['"level":-7', '"level":7'],
    ['"compression":{"zstd":{"level":-7}}', '"compression":"none"'],
    ['"encryption_key":"E', '"encryption_key":"F'],
    ['"metadata_hmac":"', '"metadata_hmac":"AAAA'],
  ];
  for (const [from, to] of changes) {
    const store = await storeWith({ keys: ENCRYPTED, compression: ZSTD });
    edit(store, (text) => text.replace(from, to));
    await expect(openArchive(store, undefined)).rejects.toMatchObject({
      code: to.includes("AAAA") ? "E_ARCHIVE" : "E_ARCHIVE_TAMPERED",
      message: expect.stringMatching(/^cannot read metadata\.json of the archive in fake store: /),
    });
  }
});

test("open: the version is looked at before anything is authenticated", async () => {
  const store = await storeWith();
  edit(store, (text) => text.replace('"format_version":1', '"format_version":99'));
  await expect(openArchive(store, undefined)).rejects.toThrow(
    "unsupported archive format version 99 (supported 1..=1)",
  );
});

test("open: keys on the wrong side say which side", async () => {
  const wrapped = await storeWith({ keys: ENCRYPTED, kek: KEK });
  const clear = await storeWith({ keys: ENCRYPTED });
  const failure = { code: "E_ARCHIVE_KEY" };
  await expect(openArchive(wrapped, undefined)).rejects.toMatchObject(failure);
  await expect(openArchive(clear, KEK)).rejects.toMatchObject(failure);
  await expect(openArchive(wrapped, new Uint8Array(32))).rejects.toMatchObject(failure);
});

test("open: parameters and map of two runs do not fit together", async () => {
  const store = await storeWith();
  const other = await storeWith({ keys: { ...PLAIN, hmacKey: new Uint8Array(32) } });
  store.objects.set(MAPPING_KEY, other.objects.get(MAPPING_KEY) ?? new Uint8Array());
  await expect(openArchive(store, undefined)).rejects.toMatchObject({
    code: "E_ARCHIVE_TAMPERED",
    message: expect.stringContaining("stripe-mapping"),
  });
});

test.each([0, 3, 2 ** 18])(
  "open: authentic stripes of %d sectors are refused",
  async (stripeSectors) => {
    const store = await storeWith();
    const parameters = {
      stripeSectors,
      encryptionKey: undefined,
      compression: { kind: "none" },
    } as const;
    const input = metadataHmacInput(parameters);
    const metadataHmac = createHmac("sha256", hmacKey).update(input).digest();
    store.objects.set(
      METADATA_KEY,
      encodeArchiveMetadata({ ...parameters, hmacKey, metadataHmac }),
    );
    await expect(openArchive(store, undefined)).rejects.toThrow(
      `stripes have ${stripeSectors} sectors`,
    );
  },
);

test("open: an object longer than expected is not read", async () => {
  const store = await storeWith();
  store.objects.set(METADATA_KEY, new Uint8Array(65 * 1024));
  await expect(openArchive(store, undefined)).rejects.toMatchObject({ code: "E_STORE_OBJECT" });
});

test("open: an archive of more stripes than the disk has is refused before its map takes memory", async () => {
  const store = await storeWith();
  const { map, stripeSectors } = await openArchive(store, undefined);
  const fitting = map.stripeEnd * stripeSectors;
  const opened = await openArchive(store, undefined, undefined, fitting);
  expect(opened.map.stripeEnd).toBe(map.stripeEnd);
  await expect(openArchive(store, undefined, undefined, fitting - stripeSectors)).rejects.toThrow(
    `it maps ${map.stripeEnd} stripes, the disk only has ${map.stripeEnd - 1}`,
  );
  store.objects.set(MAPPING_KEY, new Uint8Array(map.stripeEnd * 100 + 64 * 1024 + 1));
  await expect(openArchive(store, undefined, undefined, fitting)).rejects.toMatchObject({
    code: "E_STORE_OBJECT",
  });
});

test.each([
  ["a newline at its end", (text: string) => `${text}\n`, /^1 bytes behind its end$/],
  ["a space inside", (text: string) => text.replace(",", ", "), /^210 bytes, .* puts 209 /],
  ["a field", (text: string) => text.replace("{", '{"x":1,'), /^215 bytes, .* puts 209 /],
] as const)("open: %s of metadata.json is no fault, and told", async (_what, change, told) => {
  const store = await storeWith();
  edit(store, change);
  const { surplus } = await openArchive(store, undefined);
  expect(surplus).toEqual([{ key: METADATA_KEY, what: expect.stringMatching(told) }]);
});

test("open: a signal ends it with its reason", async () => {
  const reason = new Error("enough");
  const opened = openArchive(await storeWith(), undefined, AbortSignal.abort(reason));
  await expect(opened).rejects.toBe(reason);
});

test("open: no error shows a key", async () => {
  const store = await storeWith({ keys: ENCRYPTED });
  const keyText = hmacKey.toBase64();
  edit(store, (text) => text.replace(keyText, `${keyText.slice(0, 20)}!`));
  await expect(openArchive(store, undefined)).rejects.toMatchObject({
    message: expect.not.stringContaining(keyText.slice(0, 12)),
  });
});
