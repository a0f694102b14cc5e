/**
 * Whole chains, from an image to a disk that was filled over the network from a disk that was filled from an archive
 * of a disk that was filled from the image. Guests read and write on the way; what they wrote goes along.
 *
 * Sizes, keys, stores and data of a chain come from its seed. To see one again:
 *
 *   bun test tests/e2e/chains.test.ts -t "seed 7 "
 */
import { afterAll, test } from "bun:test";
import { Chain, type ChainArchive, type ChainDisk } from "../support/chain.ts";
import { expectSame, LazyGuest } from "../support/lazy-disk.ts";
import { SeededRandom } from "../support/random.ts";
import { rounds, skipUnless } from "../support/requires.ts";
import { S3Process } from "../support/s3-process.ts";
import { TEST_BUCKET, TEST_KEY } from "../support/s3-server.ts";
import { isSwiftInstalled, SWIFT_CREDENTIALS, Swift } from "../support/swift.ts";

const SECTOR_BYTES = 512;
const SEEDS = rounds(20, 200);

const testWithSwift = skipUnless("python3-swift is not installed", isSwiftInstalled());

for (let seed = 1; seed <= SEEDS; seed++) {
  const plan = planOf(seed);
  const declare = plan.storage === "swift" ? testWithSwift : test;
  declare(
    `seed ${seed} (${nameOf(plan)}): the last disk of a chain equals the first`,
    async () => {
      await runChain(plan);
    },
    180_000,
  );
}

afterAll(async () => {
  await (await swift)?.[Symbol.asyncDispose]();
});

// --- internal ---

/** One for all chains that use it. */
let swift: Promise<Swift> | undefined;

interface Plan {
  readonly random: SeededRandom;
  readonly stripeShift: number;
  readonly diskBytes: number;
  readonly imageBytes: number;
  /** Of disks a, b and c. */
  readonly isEncrypted: readonly [boolean, boolean, boolean];
  readonly isWrittenTracked: boolean;
  readonly archive: Omit<ChainArchive, "store">;
  readonly storage: keyof typeof STORES;
}

function planOf(seed: number): Plan {
  const random = new SeededRandom(seed);
  const stripeShift = random.between(6, 12);
  const stripeSectors = 2 ** stripeShift;
  const diskSectors = random.between(1, Math.min(12, 2 ** (17 - stripeShift)) * stripeSectors);
  // Where nothing was ever written, an enciphered disk has no zeros.
  const isEncrypted = [random.oneIn(2), random.oneIn(2), random.oneIn(2)] as const;
  const isSmaller = !isEncrypted.includes(true);
  const imageBytes = isSmaller
    ? random.between(1, diskSectors * SECTOR_BYTES)
    : diskSectors * SECTOR_BYTES;
  return {
    random,
    stripeShift,
    diskBytes: diskSectors * SECTOR_BYTES,
    imageBytes,
    isEncrypted,
    isWrittenTracked: random.oneIn(2),
    archive: { isEncrypted: random.oneIn(2), compression: random.pick(["none", "zstd"]) },
    storage: seed % 10 === 0 ? "swift" : seed % 4 === 0 ? "s3" : "filesystem",
  };
}

function nameOf(plan: Plan): string {
  const { stripeShift, diskBytes, imageBytes, isEncrypted, archive, storage } = plan;
  const keys = isEncrypted.map((each) => (each ? "e" : "p")).join("");
  const how = `${archive.isEncrypted ? "encrypted" : "plain"} ${archive.compression}`;
  return `shift ${stripeShift}, ${diskBytes} bytes, image ${imageBytes}, disks ${keys}, ${how}, ${storage}`;
}

async function runChain(plan: Plan): Promise<void> {
  const { stripeShift, diskBytes, isWrittenTracked, isEncrypted } = plan;
  await using chain = new Chain();
  await using store = await STORES[plan.storage](chain);
  const archive: ChainArchive = { ...plan.archive, store: store.lines };
  const expected = imageOf(plan);
  chain.write("image.raw", expected.subarray(0, plan.imageBytes));
  const common = { sizeBytes: diskBytes, stripeShift, isWrittenTracked };

  const source = `type = "raw"\nimage_path = "${chain.file("image.raw")}"\ncopy_on_read = true`;
  await using a = await chain.makeDisk({
    ...common,
    name: "a",
    isEncrypted: isEncrypted[0],
    source,
  });
  await live(a, plan.random, expected);
  await chain.archive(a, archive);
  expectSame(await chain.exported(archive), expected);

  await using b = await chain.makeDisk({
    ...common,
    name: "b",
    isEncrypted: isEncrypted[1],
    source: chain.archiveSource(archive),
  });
  await live(b, plan.random, expected);

  await using c = await chain.makeDisk({
    ...common,
    name: "c",
    isEncrypted: isEncrypted[2],
    source: `${await chain.serve(b)}\nautofetch = true`,
  });
  await c.start();
  readSome(c, plan.random, expected);
  await c.untilFetched();
  expectSame(readAll(c), expected);
  await c.stop();
  await chain.stopServers();

  const last: ChainArchive = { ...archive, store: store.secondLines };
  await chain.archive(c, last);
  expectSame(await chain.exported(last), expected);
}

/** A few requests of a guest; what it writes is written to `expected` as well. */
async function live(disk: ChainDisk, random: SeededRandom, expected: Uint8Array): Promise<void> {
  await disk.start();
  readSome(disk, random, expected);
  writeSome(disk, random, expected);
  await disk.stop();
}

function writeSome(disk: ChainDisk, random: SeededRandom, expected: Uint8Array): void {
  using guest = new LazyGuest(disk);
  for (let i = random.below(3); i > 0; i--) {
    const { offset, length } = partOf(disk, random);
    const bytes = crypto.getRandomValues(new Uint8Array(length));
    guest.write(offset, bytes);
    expected.set(bytes, offset);
  }
  guest.flush();
}

function readAll(disk: ChainDisk): Uint8Array {
  using guest = new LazyGuest(disk);
  return guest.read(0, disk.sizeBytes);
}

function readSome(disk: ChainDisk, random: SeededRandom, expected: Uint8Array): void {
  using guest = new LazyGuest(disk);
  for (let i = random.below(4); i > 0; i--) {
    const { offset, length } = partOf(disk, random);
    expectSame(guest.read(offset, length), expected.slice(offset, offset + length));
  }
}

function partOf(disk: ChainDisk, random: SeededRandom): { offset: number; length: number } {
  const sectors = disk.sizeBytes / SECTOR_BYTES;
  const first = random.below(sectors);
  const count = random.between(1, Math.min(100, sectors - first));
  return { offset: first * SECTOR_BYTES, length: count * SECTOR_BYTES };
}

/** What the disk shall hold: zeros, noise and text by turns, and zeros behind the image. */
function imageOf({ random, diskBytes, imageBytes, stripeShift }: Plan): Uint8Array {
  const bytes = new Uint8Array(diskBytes);
  const step = (2 ** stripeShift * SECTOR_BYTES) / 2;
  for (let at = 0; at < imageBytes; at += step) {
    const part = bytes.subarray(at, Math.min(at + step, imageBytes));
    switch (random.below(4)) {
      case 0:
        break;
      case 1:
        for (let i = 0; i < part.length; i += 65_536) {
          crypto.getRandomValues(part.subarray(i, i + 65_536));
        }
        break;
      default:
        part.fill(random.between(1, 255));
        part[random.below(part.length)] = 0;
    }
  }
  return bytes;
}

interface Store extends AsyncDisposable {
  readonly lines: string;
  /** A second place. */
  readonly secondLines: string;
}

const STORES = { filesystem: inFolder, s3: inBucket, swift: inSwift } as const;

async function inFolder(chain: Chain): Promise<Store> {
  const lines = (name: string) => `storage = "filesystem"\npath = "${chain.file(name)}"`;
  return {
    lines: lines("objects"),
    secondLines: lines("objects2"),
    [Symbol.asyncDispose]: async () => {},
  };
}

async function inBucket(chain: Chain): Promise<Store> {
  const server = await S3Process.start();
  return bucketStore(chain, {
    ...{ ...TEST_KEY, bucket: TEST_BUCKET, endpoint: `http://127.0.0.1:${server.port}` },
    close: async () => server[Symbol.dispose](),
  });
}

async function inSwift(chain: Chain): Promise<Store> {
  swift ??= Swift.start();
  const bucket = `chain-${crypto.randomUUID()}`;
  const description = await (await swift).description(bucket);
  const { endpoint = "", region = "" } = description;
  const place = { ...SWIFT_CREDENTIALS, bucket, endpoint, region };
  return bucketStore(chain, { ...place, close: async () => {} });
}

interface Bucket {
  readonly bucket: string;
  readonly endpoint: string;
  readonly region: string;
  readonly accessKeyId: string;
  readonly secretAccessKey: string;
  readonly close: () => Promise<void>;
}

function bucketStore(chain: Chain, service: Bucket): Store {
  chain.write("id", service.accessKeyId);
  chain.write("password", service.secretAccessKey);
  const lines = (prefix: string) =>
    [
      `storage = "s3"\nbucket = "${service.bucket}"\nprefix = "${prefix}"`,
      `endpoint = "${service.endpoint}"\nregion = "${service.region}"`,
      `access_key_id.ref = "id"\nsecret_access_key.ref = "password"`,
    ].join("\n");
  return {
    lines: lines("one"),
    secondLines: lines("two"),
    [Symbol.asyncDispose]: service.close,
  };
}
