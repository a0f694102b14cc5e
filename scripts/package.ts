/**
 * Makes the packages in dist/ from dist/ubiblk as it is: two for Debian, a tarball, the bill of materials, and the
 * SHA-256 of all of them. The same sources with the same SOURCE_DATE_EPOCH give the same bytes.
 */
import {
  copyFileSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  renameSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { basename, join, resolve } from "node:path";
import packageJson from "../package.json" with { type: "json" };
import { EXECUTABLE } from "./build.ts";
import { outputOf } from "./command.ts";
import {
  addProduct,
  addReferenceNames,
  copyrightText,
  DEBIAN_PLACES,
  productTexts,
  TARBALL_PLACES,
} from "./package/contents.ts";
import { buildDebian, type Control, neededGlibc } from "./package/debian.ts";
import { StagedTree } from "./package/staged-tree.ts";
import { sourceDateSeconds } from "./source-date.ts";

const ROOT = resolve(import.meta.dir, "..");
const { version } = packageJson;

export interface PackageOptions {
  readonly outputFolder: string;
  /** Without compression it is done in seconds. */
  readonly compression: "xz" | "none";
  /** What is packed in the place of dist/ubiblk. */
  readonly packedPath?: string;
}

/** Returns the paths of what was made; nothing appears in the folder before all of it is. */
export async function makePackages(options: PackageOptions): Promise<readonly string[]> {
  const work = mkdtempSync(join(ROOT, "build", "package-"));
  try {
    const paths = await makeIn(work, options);
    mkdirSync(options.outputFolder, { recursive: true });
    return paths.map((path) => {
      const place = join(options.outputFolder, basename(path));
      renameSync(path, place);
      return place;
    });
  } finally {
    rmSync(work, { recursive: true, force: true });
  }
}

// --- internal ---

async function makeIn(work: string, options: PackageOptions): Promise<readonly string[]> {
  const { compression } = options;
  const outputFolder = join(work, "made");
  mkdirSync(outputFolder);
  const dateSeconds = await sourceDateSeconds();
  const product = {
    packedPath: options.packedPath ?? EXECUTABLE,
    dateSeconds,
    texts: await productTexts(EXECUTABLE),
  };
  const tree = new StagedTree(join(work, "ubiblk"), dateSeconds);
  await addProduct(tree, DEBIAN_PLACES, product);
  tree.addFolder("etc/ubiblk");
  const names = new StagedTree(join(work, "names"), dateSeconds);
  addReferenceNames(names, DEBIAN_PLACES);
  const build = { outputFolder, compression, dateSeconds };
  // At the same time: most of it is compression, which takes a processor each.
  const paths = await Promise.all([
    buildDebian({ ...build, tree, control: await productControl() }),
    buildDebian({ ...build, tree: names, control: NAMES_CONTROL }),
    buildTarball(work, { ...build, product }),
    join(outputFolder, `ubiblk-${version}.cdx.json`),
  ]);
  const materials = join(tree.folder, DEBIAN_PLACES.documents, "sbom.cdx.json");
  copyFileSync(materials, paths.at(-1) ?? "");
  writeFileSync(join(outputFolder, "SHA256SUMS"), paths.map(sumLine).join(""));
  return [...paths, join(outputFolder, "SHA256SUMS")];
}

const NAMES_CONTROL: Control = {
  name: "ubiblk-reference-names",
  architecture: "all",
  depends: `ubiblk (= ${version})`,
  summary: "names of ubicloud's ubiblk 0.5 for ubiblk",
  description: [
    "Links to ubiblk with the names of the programs of ubicloud's ubiblk 0.5\n(vhost-backend, ublk-backend, init-metadata and others), with their flags.",
  ],
  lintianOverrides: ["no-manual-page [usr/bin/ubiblk-init]"], // it is in the other package
};

async function productControl(): Promise<Control> {
  const libraries = ["libubi.so", "libubissl.so"].map((name) => join(ROOT, "build", name));
  const glibc = await neededGlibc([EXECUTABLE, ...libraries]);
  return {
    name: "ubiblk",
    architecture: (await outputOf(["dpkg", "--print-architecture"])).trim(),
    depends: `libc6 (>= ${glibc}), passwd`,
    summary: "encrypting block-device backend for virtual machines",
    description: [
      "Serves a virtual machine its disk over vhost-user-blk, or this machine a\nblock device over ublk, enciphered with AES-256-XTS.",
      "A disk can be filled while it is used from an image, an archive or another\nhost, and be archived to a folder or to an S3 service.",
    ],
    scripts: { postinst: POSTINST, postrm: POSTRM },
    lintianOverrides: [
      // The runtime is as Bun links it, and stripping would take the program out of it.
      "unstripped-binary-or-object [usr/bin/ubiblk]",
      "hardening-no-pie [usr/bin/ubiblk]",
      "hardening-no-relro [usr/bin/ubiblk]",
      "embedded-library *",
    ],
  };
}

/** Safe to run again, and in a folder without systemd. */
const POSTINST = `#!/bin/sh
set -e
if [ "$1" = configure ]; then
  if command -v systemd-sysusers >/dev/null; then
    systemd-sysusers ubiblk.conf
  elif ! getent passwd ubiblk >/dev/null; then
    useradd --system --user-group --home-dir /var/lib/ubiblk --no-create-home \\
      --shell /usr/sbin/nologin --comment "Disks of virtual machines" ubiblk
  fi
fi
if [ -d /run/systemd/system ]; then
  systemctl daemon-reload || true
fi
`;

const POSTRM = `#!/bin/sh
set -e
if [ "$1" = purge ] && getent passwd ubiblk >/dev/null; then
  userdel ubiblk || true
fi
if [ -d /run/systemd/system ]; then
  systemctl daemon-reload || true
fi
`;

async function buildTarball(
  work: string,
  options: {
    readonly outputFolder: string;
    readonly compression: "xz" | "none";
    readonly dateSeconds: number;
    readonly product: Parameters<typeof addProduct>[2];
  },
): Promise<string> {
  const machine = (await outputOf(["dpkg", "--print-architecture"])).trim();
  const name = `ubiblk-${version}-linux-${machine}`;
  const tree = new StagedTree(join(work, name), options.dateSeconds);
  await addProduct(tree, TARBALL_PLACES, options.product);
  tree.add("share/doc/ubiblk/copyright", copyrightText());
  tree.seal();
  const isCompressed = options.compression === "xz";
  const compress = isCompressed ? ["--use-compress-program=xz --threads=1 -1"] : [];
  const path = join(options.outputFolder, `${name}.tar${isCompressed ? ".xz" : ""}`);
  const fixed = ["--sort=name", "--owner=0", "--group=0", "--numeric-owner", "--format=gnu"];
  const dated = `--mtime=@${options.dateSeconds}`;
  const modes = "--mode=u+rwX,go+rX,go-w";
  await outputOf(["tar", ...fixed, dated, modes, ...compress, "-cf", path, "-C", work, name], {
    timeoutMs: 1_800_000,
  });
  return path;
}

function sumLine(path: string): string {
  const sum = new Bun.CryptoHasher("sha256").update(readFileSync(path)).digest("hex");
  return `${sum}  ${basename(path)}\n`;
}

if (import.meta.main) {
  const startMs = performance.now();
  try {
    const paths = await makePackages({ outputFolder: join(ROOT, "dist"), compression: "xz" });
    const seconds = ((performance.now() - startMs) / 1000).toFixed(0);
    console.log(`package: ${paths.map((path) => basename(path)).join(", ")} in ${seconds} s`);
  } catch (error) {
    console.error(`package: ${error instanceof Error ? error.message : error}`);
    process.exitCode = 1;
  }
}
