/** The packages: what is in them, that they come out the same twice, and a machine that gets and loses them. */
import { afterAll, beforeAll, expect, test } from "bun:test";
import {
  copyFileSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
} from "node:fs";
import { basename, join, resolve } from "node:path";
import packageJson from "../../package.json" with { type: "json" };
import packageLock from "../../package-lock.json" with { type: "json" };
import { type CommandResult, outputOf, runCommand } from "../../scripts/command.ts";
import { manualPages } from "../../scripts/man.ts";
import type { BillOfMaterials } from "../../scripts/package/sbom.ts";
import { makePackages } from "../../scripts/package.ts";
import { LINKS } from "../../src/commands/command-tree.ts";
import { isInstalled, skipUnless, skipUnlessInstalled } from "../support/requires.ts";

const ROOT = resolve(import.meta.dir, "..", "..");
const BASE_SYSTEM = join(ROOT, "build", "package-chroot", "base.tar");
const TIMEOUT_MS = 300_000;
const SMALL = { compression: "xz", packedPath: "/bin/true" } as const;
const { version } = packageJson;

let folder: string;
let paths: readonly string[];
/** With a small program in the place of the executable, for what does not depend on it. */
let smallPaths: readonly string[];

beforeAll(async () => {
  mkdirSync(join(ROOT, "build"), { recursive: true });
  folder = mkdtempSync(join(ROOT, "build", "packages-"));
  paths = await makePackages({ outputFolder: join(folder, "one"), compression: "none" });
  smallPaths = await makePackages({ ...SMALL, outputFolder: join(folder, "small") });
}, TIMEOUT_MS);

afterAll(() => {
  rmSync(folder, { recursive: true, force: true });
});

test(
  "made again, they have the same bytes; and SHA256SUMS is right",
  async () => {
    await makePackages({ ...SMALL, outputFolder: join(folder, "again") });
    for (const path of smallPaths) {
      const again = join(folder, "again", basename(path));
      expect((await runCommand(["cmp", path, again])).stdout).toBe("");
    }
    const check = await runCommand(["sha256sum", "--check", "--strict", "SHA256SUMS"], {
      cwd: join(folder, "one"),
    });
    expect(check.exitCode).toBe(0);
  },
  TIMEOUT_MS,
);

test("ubiblk.deb: everything is at its place, belongs to root, and nobody else can write it", async () => {
  const rows = (await outputOf(["dpkg-deb", "--contents", debOf("ubiblk")])).trim().split("\n");
  const entries = rows.map((row) => row.split(/\s+/));
  expect(new Set(entries.map(([, owner]) => owner))).toEqual(new Set(["root/root"]));
  const modes = new Set(entries.map(([mode]) => mode));
  expect(modes).toEqual(new Set(["drwxr-xr-x", "-rwxr-xr-x", "-rw-r--r--"]));
  const files = entries.map(([, , , , , path]) => path ?? "");
  const manual = [...(await manualPages()).keys()].map(
    (file) => `./usr/share/man/man${file.at(-1)}/${file}.gz`,
  );
  const wanted = [
    "./usr/bin/ubiblk",
    ...manual,
    "./usr/share/bash-completion/completions/ubiblk",
    "./usr/share/zsh/vendor-completions/_ubiblk",
    "./usr/share/fish/vendor_completions.d/ubiblk.fish",
    ...["device", "target", "archive", "server"].flatMap((kind) => [
      `./usr/share/doc/ubiblk/examples/${kind}.toml`,
      `./usr/share/ubiblk/schema/${kind}.schema.json`,
    ]),
    "./usr/lib/systemd/system/ubiblk-vhost@.service",
    "./usr/lib/sysusers.d/ubiblk.conf",
    "./usr/share/ubiblk/monitoring/ubiblk.dashboard.json",
    "./usr/share/ubiblk/monitoring/ubiblk.rules.yml",
    "./usr/share/doc/ubiblk/copyright",
    "./usr/share/doc/ubiblk/changelog.gz",
    "./usr/share/doc/ubiblk/README.md",
    "./usr/share/doc/ubiblk/config.md",
    "./usr/share/doc/ubiblk/sbom.cdx.json",
  ];
  expect(wanted.filter((path) => !files.includes(path))).toEqual([]);
});

test.each(["deb", "tarball"])("%s: what its documents name is there", async (kind) => {
  const place = join(folder, `documents-${kind}`);
  mkdirSync(place);
  if (kind === "deb") {
    const deb = smallPaths.find((path) => basename(path).startsWith("ubiblk_")) ?? "";
    await outputOf(["dpkg-deb", "--extract", deb, place]);
  } else {
    const tarball = smallPaths.find((path) => path.includes(".tar")) ?? "";
    await outputOf(["tar", "-xf", tarball, "-C", place, "--strip-components=1"]);
  }
  const documents = join(place, kind === "deb" ? "usr/share/doc/ubiblk" : "share/doc/ubiblk");
  const pages = readdirSync(documents).filter((name) => name.endsWith(".md"));
  expect(pages).toContain("SECURITY.md");
  const targets = pages.flatMap((page) => {
    const text = readFileSync(join(documents, page), "utf8");
    return [...text.matchAll(/\]\((?!https?:|#)([^)#\s]+)/g)].map(([, target = ""]) => target);
  });
  expect(targets.length).toBeGreaterThan(100);
  expect(targets.filter((target) => !existsSync(join(documents, target)))).toEqual([]);
});

test("ubiblk-reference-names.deb: a link for each name", async () => {
  const contents = await outputOf(["dpkg-deb", "--contents", debOf("ubiblk-reference-names")]);
  const links = [...contents.matchAll(/ \.\/usr\/bin\/(\S+) -> (\S+)$/gm)];
  expect(Object.fromEntries(links.map(([, name = "", target]) => [name, target]))).toEqual(
    Object.fromEntries(Object.keys(LINKS).map((name) => [name, "ubiblk"])),
  );
});

test("the tarball has one folder, in which the executable runs", async () => {
  const tarball = paths.find((path) => path.endsWith(".tar")) ?? "";
  await outputOf(["tar", "-xf", tarball, "-C", folder]);
  const name = basename(tarball, ".tar");
  expect(await outputOf([join(folder, name, "bin", "ubiblk"), "--version"])).toBe(
    `ubiblk ${version}\n`,
  );
  expect(readdirSync(join(folder, name)).sort()).toEqual(["bin", "lib", "share"]);
});

test("bill of materials: what is in the executable, with version, license and hash", () => {
  const path = join(folder, "one", `ubiblk-${version}.cdx.json`);
  const bill: BillOfMaterials = JSON.parse(readFileSync(path, "utf8"));
  expect(bill).toMatchObject({ bomFormat: "CycloneDX", specVersion: "1.5", version: 1 });
  expect(bill.metadata.component).toMatchObject({ type: "application", name: "ubiblk", version });
  expect(bill.metadata.timestamp).toMatch(/^\d{4}-\d\d-\d\dT[\d:.]+Z$/);
  const names = bill.components.map((component) => component.name);
  expect(names).toEqual(["bun", "openssl", ...Object.keys(packageJson.dependencies)]);
  for (const component of bill.components) {
    expect(component.type).toMatch(/^(library|framework)$/);
    expect(component.version).toMatch(/^\d+\.\d+\.\d+$/);
    expect(component.purl).toMatch(/^pkg:(npm|github|generic)\/\S+@\S+$/);
    expect(component.licenses?.[0]?.license.id).toMatch(/^[A-Z][\w.-]+$/);
  }
  const typebox = bill.components.find(({ name }) => name === "@sinclair/typebox");
  const locked = packageLock.packages["node_modules/@sinclair/typebox"];
  expect(typebox?.purl).toBe(`pkg:npm/%40sinclair/typebox@${locked.version}`);
  expect(typebox?.hashes?.[0]?.content).toBe(
    Uint8Array.fromBase64(locked.integrity.slice("sha512-".length)).toHex(),
  );
  const references = bill.components.map((component) => component["bom-ref"]);
  expect(new Set(references).size).toBe(references.length);
  expect(bill.dependencies[0]).toEqual({ ref: "ubiblk", dependsOn: references });
});

skipUnlessInstalled("lintian")(
  "lintian finds no error and no warning",
  async () => {
    const debs = smallPaths.filter((path) => path.endsWith(".deb"));
    const flags = ["--fail-on", "error,warning", "--allow-root", "--tag-display-limit", "0"];
    const result = await runCommand(["lintian", ...flags, ...debs], { timeoutMs: TIMEOUT_MS });
    expect(result.stdout).toBe("");
    expect(result.exitCode).toBe(0);
  },
  TIMEOUT_MS,
);

const canEnter = isInstalled("chroot") && process.getuid?.() === 0 && existsSync(BASE_SYSTEM);

skipUnless("it needs root and the base system that scripts/setup.sh fetches", canEnter)(
  "a small Debian: installed, used, removed, and nothing is left",
  async () => {
    using machine = new Machine(join(folder, "machine"));
    await machine.prepare();
    const before = await machine.run(LIST_FILES);
    const names = ["ubiblk", "ubiblk-reference-names"].map((name) => basename(debOf(name)));
    for (const name of names) {
      copyFileSync(join(folder, "one", name), join(machine.folder, "root", name));
    }
    const install = await machine.run(`cd /root; dpkg --install ${names.join(" ")}`);
    expect(install).toMatchObject({ exitCode: 0 });
    expect((await machine.run("getent passwd ubiblk")).stdout).toContain(":/usr/sbin/nologin");
    expect((await machine.run(`dpkg --install /root/${names[0]}`)).exitCode).toBe(0); // again
    const use = await machine.run(USE);
    expect(use).toMatchObject({ exitCode: 0, isTimedOut: false });
    expect(use.stdout).toEndWith("used\n");
    const purge = await machine.run("dpkg --purge ubiblk-reference-names ubiblk; rm -f /root/*");
    expect(purge).toMatchObject({ exitCode: 0 });
    expect((await machine.run("getent passwd ubiblk")).exitCode).toBe(2);
    expect((await machine.run(LIST_FILES)).stdout).toBe(before.stdout);
  },
  TIMEOUT_MS,
);

// --- internal ---

function debOf(name: string): string {
  return paths.find((path) => basename(path).startsWith(`${name}_`)) ?? "";
}

/** Without what dpkg and shadow note for themselves, and what goes with the run. */
const LIST_FILES =
  "find / -xdev \\( -path /proc -o -path /dev -o -path /var/lib/dpkg -o -path /var/log -o -path /var/cache \\) -prune" +
  " -o -not -name '*-' -print | sort";

const USE = `set -eu
mkdir /tmp/try
cd /tmp/try
ubiblk --version
ubiblk-init --size 16M --dir disk
ubiblk config check disk/config.toml
vhost-backend -f disk/config.toml &
backend=$!
while [ ! -S disk/vhost.sock ]; do sleep 0.1; done
ubiblk bench --socket disk/vhost.sock --workload verify
kill $backend
wait $backend
xts -f disk/config.toml disk/disk.raw plain.raw
rm -r /tmp/try
echo used
`;

/** A folder with a small Debian, with processes and mounts of its own while something runs there. */
class Machine implements Disposable {
  readonly folder: string;

  constructor(folder: string) {
    this.folder = folder;
  }

  async prepare(): Promise<void> {
    mkdirSync(this.folder);
    await outputOf(["tar", "-xf", BASE_SYSTEM, "-C", this.folder]);
  }

  async run(script: string): Promise<CommandResult> {
    const enter =
      'mount -t proc proc "$1/proc" && mount --rbind /dev "$1/dev" && exec chroot "$1" /bin/sh -c "$2"';
    const words = ["--mount", "--pid", "--fork", "--kill-child", "sh", "-c", enter, "sh"];
    const env = { PATH: "/usr/sbin:/usr/bin:/sbin:/bin", DEBIAN_FRONTEND: "noninteractive" };
    return await runCommand(["unshare", ...words, this.folder, script], { env, timeoutMs: 60_000 });
  }

  [Symbol.dispose](): void {
    rmSync(this.folder, { recursive: true, force: true });
  }
}
