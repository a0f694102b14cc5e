/** Disks to archive with the executable: a folder with documents, keys, a disk of seeded stripes and its metadata. */
import { chmodSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type CommandResult, runCommand } from "../../scripts/command.ts";
import { EXECUTABLE } from "./backend.ts";
import { metadataFile } from "./metadata-disk.ts";
import { SeededRandom } from "./random.ts";

export interface ArchivedDiskOptions {
  readonly stripeShift: number;
  /** One byte of flags a stripe. */
  readonly flags: readonly number[];
  /** Of the disk, when it is not whole stripes. */
  readonly sizeBytes?: number;
  readonly imageBytes?: number;
  readonly isWriteTracked?: boolean;
  /** `archive_kek` in both documents. */
  readonly hasKek?: boolean;
  /** Flags in the target's danger zone. */
  readonly dangers?: readonly string[];
  /** The archive's folder; in the disk's by default. */
  readonly archivePath?: string;
  /** What the disk holds, stripe by stripe; seeded text and noise by default. */
  readonly stripe?: (stripe: number, sizeBytes: number) => Uint8Array;
}

export interface BucketOnLoopback {
  readonly bucket: string;
  readonly endpoint: string;
  readonly region: string;
  readonly accessKeyId: string;
  readonly secretAccessKey: string;
  /** Where the machine has credentials; by default they lie in files of the folder. */
  readonly credentials?: readonly string[];
  /** Instead of a file beside the documents. */
  readonly secretFile?: string;
}

/** Plain, so that tests can say what it holds. */
export class DiskToArchive implements Disposable {
  readonly folder = mkdtempSync(join(tmpdir(), "ubiblk-archive-"));
  readonly stripeBytes: number;
  readonly archivePath: string;

  constructor(options: ArchivedDiskOptions) {
    const { stripeShift, flags, imageBytes, hasKek = false, dangers = [] } = options;
    this.stripeBytes = 512 * 2 ** stripeShift;
    this.archivePath = options.archivePath ?? this.file("archive");
    const sizeBytes = options.sizeBytes ?? flags.length * this.stripeBytes;
    const stripe = options.stripe ?? seededStripe;
    const data = Buffer.concat(flags.map((_, n) => stripe(n, this.stripeBytes)));
    this.write("disk.raw", data.subarray(0, sizeBytes));
    const header = { stripeShift, stripeCount: flags.length };
    const metadataBytes = 512 * (1 + Math.ceil(flags.length / 508));
    this.write("meta", metadataFile(header, Uint8Array.from(flags), metadataBytes));
    this.write("kek", new Uint8Array(32).fill(9));
    this.write("kek2", new Uint8Array(32).fill(10));
    const source =
      imageBytes === undefined ? "" : '[stripe_source]\ntype = "raw"\nimage_path = "image.raw"\n';
    if (imageBytes !== undefined) {
      this.write("image.raw", seededStripe(1_000, imageBytes));
    }
    this.write(
      "disk.toml",
      `[device]\ndata_path = "disk.raw"\nmetadata_path = "meta"\ntrack_written = ${options.isWriteTracked === true}\n` +
        `${source}[danger_zone]\nenabled = true\nallow_unencrypted_disk = true\n`,
    );
    this.writeDocuments("", hasKek ? "kek" : undefined, dangers);
  }

  /** `target.toml` and `source.toml`, with a suffix, for the archive with this KEK. */
  writeDocuments(suffix: string, kek: string | undefined, dangers: readonly string[] = []): void {
    this.#writeStore(`storage = "filesystem"\npath = "${this.archivePath}"\n`, {
      suffix,
      kek,
      dangers,
    });
  }

  /** Both documents for a bucket on loopback. */
  useBucket(bucket: BucketOnLoopback): void {
    this.write("access", bucket.accessKeyId);
    this.write("secret", bucket.secretAccessKey);
    const lines = [
      'storage = "s3"',
      `bucket = "${bucket.bucket}"`,
      'prefix = "disks/one"',
      `region = "${bucket.region}"`,
      `endpoint = "${bucket.endpoint}"`,
      "connections = 4",
      ...(bucket.credentials === undefined
        ? ['access_key_id.ref = "access"', 'secret_access_key.ref = "secret"']
        : [`credentials = ${JSON.stringify(bucket.credentials)}`]),
    ];
    const files = { access: "access", secret: bucket.secretFile ?? "secret" };
    const secrets =
      bucket.credentials === undefined
        ? Object.entries(files).map(([n, file]) => `[secrets.${n}]\nsource.file = "${file}"\n`)
        : [];
    this.#writeStore(`${lines.join("\n")}\n`, { suffix: "", kek: "kek", dangers: [], secrets });
  }

  #writeStore(
    store: string,
    options: {
      readonly suffix: string;
      readonly kek: string | undefined;
      readonly dangers: readonly string[];
      readonly secrets?: readonly string[];
    },
  ): void {
    const { suffix, kek, dangers, secrets = [] } = options;
    const secret = `[secrets.kek]\nsource.file = "${kek}"\n`;
    const key = kek === undefined ? "" : `archive_kek.ref = "kek"\n${secret}`;
    const zone = ["enabled", "allow_secret_over_regular_file", ...dangers];
    const danger = `${secrets.join("")}[danger_zone]\n${zone.map((flag) => `${flag} = true\n`).join("")}`;
    this.write(`target${suffix}.toml`, `[target]\n${store}${key}${danger}`);
    this.write(`source${suffix}.toml`, `[archive]\n${store}${key}${danger}`);
  }

  archive(...flags: readonly string[]): Promise<CommandResult> {
    return this.run("archive", "-f", "disk.toml", "--target-config", "target.toml", ...flags);
  }

  tool(name: string, ...flags: readonly string[]): Promise<CommandResult> {
    return this.run("archive", name, "--source", "source.toml", ...flags);
  }

  export(...flags: readonly string[]): Promise<CommandResult> {
    return this.run("export-archive", "--source", "source.toml", "--target", "out.raw", ...flags);
  }

  run(...words: readonly string[]): Promise<CommandResult> {
    return runCommand([EXECUTABLE, ...words], {
      cwd: this.folder,
      timeoutMs: 60_000,
      env: this.env,
    });
  }

  get env(): Record<string, string | undefined> {
    return { ...process.env, UBIBLK_LOG: "error" };
  }

  /** Names of the stripes' objects. */
  objects(): string[] {
    return readdirSync(join(this.archivePath, "data")).sort();
  }

  file(name: string): string {
    return join(this.folder, name);
  }

  write(name: string, content: string | Uint8Array): void {
    writeFileSync(this.file(name), content);
    chmodSync(this.file(name), 0o600);
  }

  bytesOf(name: string): Buffer {
    return readFileSync(this.file(name));
  }

  [Symbol.dispose](): void {
    rmSync(this.folder, { recursive: true, force: true });
  }
}

/** Half of it compresses, half does not; no two stripes are equal. */
export function seededStripe(stripe: number, sizeBytes: number): Uint8Array {
  const random = new SeededRandom(stripe + 1);
  const bytes = new Uint8Array(sizeBytes);
  for (let i = 0; i < sizeBytes; i += 1) {
    bytes[i] = i < sizeBytes / 2 ? (stripe + i / 64) & 255 : random.below(256);
  }
  return bytes;
}

/** The facts of the `done` event of a command with `--json`. */
export function doneEvent(result: CommandResult): Readonly<Record<string, unknown>> {
  const lines = result.stdout.trim().split("\n");
  const event: unknown = JSON.parse(lines.at(-1) ?? "");
  return event as Readonly<Record<string, unknown>>; // the tests look at what they need
}
