/** A small Linux root file system as a raw image: busybox, files of random bytes, and the list of their checksums. */
import { createHash, randomBytes } from "node:crypto";
import {
  copyFileSync,
  mkdirSync,
  mkdtempSync,
  rmSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
} from "node:fs";
import { dirname, join } from "node:path";
import { outputOf } from "../../scripts/command.ts";

export interface GuestImageOptions {
  /** The image; its folder takes the tree for the time of making. */
  readonly path: string;
  readonly sizeBytes: number;
  /** Sizes of the random files. */
  readonly fileBytes: readonly number[];
}

/** Makes an ext4 image, and returns what `sha256sum` prints for its list of checksums, /sums. */
export async function makeGuestImage(options: GuestImageOptions): Promise<string> {
  const tree = mkdtempSync(join(dirname(options.path), "root-"));
  try {
    for (const folder of ["bin", "proc", "dev", "data"]) {
      mkdirSync(join(tree, folder));
    }
    copyFileSync(busyboxPath(), join(tree, "bin", "busybox"));
    symlinkSync("busybox", join(tree, "bin", "sh"));
    const sums = options.fileBytes.map((bytes, i) => {
      const content = randomBytes(bytes);
      writeFileSync(join(tree, "data", String(i)), content);
      return `${sha256(content)}  data/${i}\n`;
    });
    writeFileSync(join(tree, "sums"), sums.join(""));
    writeFileSync(options.path, "");
    truncateSync(options.path, options.sizeBytes);
    const make = ["-q", "-F", "-t", "ext4", "-E", "root_owner=0:0", "-d", tree, options.path];
    await outputOf(["mke2fs", ...make], { env: { PATH } });
    return sha256(sums.join(""));
  } finally {
    rmSync(tree, { recursive: true, force: true });
  }
}

// --- internal ---

const PATH = `${process.env.PATH ?? ""}:/usr/sbin:/sbin`;

function busyboxPath(): string {
  const path = Bun.which("busybox", { PATH });
  if (path === null) {
    throw new Error("busybox is not installed");
  }
  return path;
}

function sha256(content: string | Uint8Array): string {
  return createHash("sha256").update(content).digest("hex");
}
