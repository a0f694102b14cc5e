/** Disks with metadata for tests of the executable: a folder, a configuration, files of any size that cost nothing. */
import { createHash } from "node:crypto";
import { chmodSync, mkdtempSync, readFileSync, rmSync, truncateSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type CommandResult, runCommand } from "../../scripts/command.ts";
import type { MetadataHeader, MetadataMedium } from "../../src/formats/metadata.ts";
import { encodeMetadata } from "../../src/formats/metadata-codec.ts";
import { EXECUTABLE } from "./backend.ts";

export interface MetadataDiskOptions {
  readonly diskBytes: number;
  /** Of a raw image; without it the disk has no stripe source. */
  readonly imageBytes?: number;
  /** Left out: "disk.raw" and "image.raw" in the folder. */
  readonly dataPath?: string;
  readonly imagePath?: string;
  /** Left out: "meta"; null: no metadata_path at all. */
  readonly metadataPath?: string | null;
  readonly isEncrypted?: boolean;
  /** Instead of a raw image. */
  readonly stripeSource?: string;
}

/** Byte i is i: not a key that anybody else has, and the same in every run. */
const KEY = Uint8Array.from({ length: 64 }, (_, i) => i);

export class MetadataDisk implements Disposable {
  readonly folder = mkdtempSync(join(tmpdir(), "ubiblk-metadata-"));

  constructor(options: MetadataDiskOptions) {
    this.configure(options);
    if (options.dataPath === undefined) {
      this.makeSparse("disk.raw", options.diskBytes);
    }
    if (options.imageBytes !== undefined && options.imagePath === undefined) {
      this.makeSparse("image.raw", options.imageBytes);
    }
  }

  /** Writes the configuration; files are left as they are. */
  configure(options: MetadataDiskOptions): void {
    const { metadataPath = "meta", isEncrypted = false } = options;
    const lines = ["[device]", `data_path = "${options.dataPath ?? "disk.raw"}"`];
    if (metadataPath !== null) {
      lines.push(`metadata_path = "${metadataPath}"`);
    }
    if (options.stripeSource !== undefined) {
      lines.push("[stripe_source]", options.stripeSource);
    } else if (options.imageBytes !== undefined) {
      lines.push("[stripe_source]", `type = "raw"`);
      lines.push(`image_path = "${options.imagePath ?? "image.raw"}"`);
    }
    if (isEncrypted) {
      lines.push(`[encryption]\nxts_key.ref = "key"\n[secrets.key]\nsource.file = "key"`);
      this.write("key", KEY);
    }
    const danger = isEncrypted ? "allow_secret_over_regular_file" : "allow_unencrypted_disk";
    lines.push("[danger_zone]", "enabled = true", `${danger} = true`);
    lines.push("allow_unencrypted_connection = true");
    this.write("disk.toml", `${lines.join("\n")}\n`);
  }

  /** Runs the executable with this disk's configuration, by its bare name; warnings are left out. */
  run(command: string, ...flags: readonly string[]): Promise<CommandResult> {
    return runCommand([EXECUTABLE, command, "-f", "disk.toml", ...flags], {
      cwd: this.folder,
      timeoutMs: 60_000,
      env: { ...process.env, UBIBLK_LOG: "error" },
    });
  }

  file(name: string): string {
    return join(this.folder, name);
  }

  write(name: string, content: string | Uint8Array): void {
    writeFileSync(this.file(name), content);
    chmodSync(this.file(name), 0o600);
  }

  makeSparse(name: string, sizeBytes: number): void {
    writeFileSync(this.file(name), "");
    truncateSync(this.file(name), sizeBytes);
  }

  bytesOf(name: string): Buffer {
    return readFileSync(this.file(name));
  }

  [Symbol.dispose](): void {
    rmSync(this.folder, { recursive: true, force: true });
  }
}

/** The bytes of a plain metadata file with these flags. */
export function metadataFile(
  header: MetadataHeader,
  flags: Uint8Array,
  sizeBytes: number,
): Uint8Array {
  const bytes = new Uint8Array(sizeBytes);
  const buffer = new Uint8Array(512);
  const medium: MetadataMedium = {
    sizeBytes,
    buffer,
    read: () => undefined,
    write: (sector) => bytes.set(buffer, sector * 512),
    sync: () => undefined,
  };
  encodeMetadata({ ...header, flags }, medium);
  return bytes;
}

export function sha256(bytes: Uint8Array): string {
  return createHash("sha256").update(bytes).digest("hex");
}
