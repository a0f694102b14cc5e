/**
 * `npm run compatibility`, after `npm test`: writes the tables of docs/compatibility.md from the reports of that run, with the
 * versions that were on this machine. A row names the test that proves it.
 */
import { existsSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join, resolve } from "node:path";
import { runCommand } from "./command.ts";
import { type Outcome, parseReport } from "./test-report.ts";

const ROOT = resolve(import.meta.dir, "..");
const PAGE = join(ROOT, "docs", "compatibility.md");
/** The tables stand between these lines of the page. */
const BEGIN = "<!-- made by npm run compatibility: begin -->\n";
const END = "<!-- made by npm run compatibility: end -->\n";

export interface CompatibilityRow {
  readonly peer: string;
  readonly version: Peer;
  readonly what: string;
  /** In tests/. */
  readonly file: string;
  /** The whole name, or of a table of tests what is the same in all of them. */
  readonly test: string;
}

type Peer = keyof typeof VERSIONS;

/** What tells a version; the first `a.b` or `a.b.c` in its output counts. */
const VERSIONS = {
  qemu: { program: ["qemu-system-x86_64", "--version"] },
  emulator: { program: ["build/guest-ublk/emulator/usr/bin/qemu-system-x86_64", "--version"] },
  libvirt: { program: ["libvirtd", "--version"] },
  guest: { packages: "build/guest" },
  trixie: { packages: "build/guest-ublk/trixie" },
  sid: { packages: "build/guest-ublk/sid" },
  swift: { program: ["dpkg-query", "-W", "python3-swift"] },
  openssl: { program: ["openssl", "version"] },
} as const;

const QEMU = { peer: "QEMU", version: "qemu" } as const;
const UBLK_612 = { peer: "Linux ublk, copying", version: "trixie" } as const;
const UBLK_SID = { peer: "Linux ublk, zero copy", version: "sid" } as const;

export const COMPATIBILITY_ROWS: readonly CompatibilityRow[] = [
  {
    ...QEMU,
    what: "guest on an encrypted disk: partition, ext4, discard, restart of the guest",
    file: "e2e/guest.test.ts",
    test: "disk: its file system outlives a restart, discard frees blocks",
  },
  {
    ...QEMU,
    what: "two queues, write zeroes, discard of all",
    file: "e2e/guest.test.ts",
    test: "guest with two queues: both carry data, zeroes are zeroes, a discarded disk is empty",
  },
  {
    ...QEMU,
    what: "the disk is there again after a restart of the backend",
    file: "e2e/guest.test.ts",
    test: "guest on a backend that was restarted: the data is what was flushed before",
  },
  {
    ...QEMU,
    what: "guest that boots from an image while it is fetched",
    file: "e2e/lazy-guest.test.ts",
    test: "a guest boots from an image while it is fetched, writes, and boots again when the image is gone",
  },
  {
    ...QEMU,
    what: "disk that grows under a guest that writes",
    file: "e2e/resize-guest.test.ts",
    test: "a guest writes while its disk grows, sees the new size, uses it, and finds it after a restart",
  },
  {
    peer: "QEMU",
    version: "emulator",
    what: "the recipe",
    file: "e2e/recipes.test.ts",
    test: "QEMU: a guest uses the disk",
  },
  {
    peer: "libvirt",
    version: "libvirt",
    what: "the recipe: a domain with a disk of type vhostuser",
    file: "e2e/recipes.test.ts",
    test: "libvirt: a domain uses the disk",
  },
  {
    ...UBLK_612,
    what: "encrypted disk, fetched from an image: ext4, fio with verification, trim",
    file: "e2e/ublk.test.ts",
    test: "encrypted disk, fetched from an image: a file system lives on it",
  },
  {
    ...UBLK_SID,
    what: "plain disk whose data is not copied",
    file: "e2e/ublk.test.ts",
    test: "plain disk without copying: the file behind it holds what it shows",
  },
  {
    ...UBLK_612,
    what: "the recipe",
    file: "e2e/recipes.test.ts",
    test: "ublk: this machine uses the disk, and nothing of it is left behind",
  },
  {
    peer: "OpenStack Swift, S3 API",
    version: "swift",
    what: "archives in a bucket, lists of more than one page",
    file: "e2e/s3-real.test.ts",
    test: "Swift: a list of more than one page is whole",
  },
  {
    peer: "OpenSSL",
    version: "openssl",
    what: "TLS-PSK of the stripe protocol: other versions and ciphers are refused",
    file: "e2e/tls-psk.test.ts",
    test: "clients without TLS 1.2 or without the cipher: refused with an alert",
  },
];

/** How the tests of a row ended; undefined when none ran. All of a table of tests must have passed. */
export function outcomeOf(
  row: CompatibilityRow,
  cases: readonly { readonly name: string; readonly outcome: Outcome }[],
): Outcome | undefined {
  const outcomes = cases.filter(({ name }) => name.includes(row.test)).map((each) => each.outcome);
  const worst = (["failed", "skipped", "passed"] as const).find((each) => outcomes.includes(each));
  return worst;
}

/** The page with other tables. @throws Error when the page has no place for them */
export function pageWith(page: string, tables: string): string {
  const [before, rest] = page.split(BEGIN);
  const after = rest?.split(END)[1];
  if (before === undefined || after === undefined) {
    throw new Error(`${PAGE}: the lines that say where the tables begin and end are missing`);
  }
  return `${before}${BEGIN}${tables}${END}${after}`;
}

/** A line of the table. */
export function lineOf(row: CompatibilityRow, version: string, outcome: string): string {
  return `| ${row.peer} | ${version} | ${row.what} | ${outcome} | \`tests/${row.file}\` |`;
}

// --- internal ---

const HEADING = "| peer | version | what | result | test |\n|---|---|---|---|---|\n";

async function writePage(): Promise<void> {
  const lines: string[] = [];
  for (const row of COMPATIBILITY_ROWS) {
    const report = join(ROOT, "build", "test", `tests-${row.file.replaceAll("/", "-")}.xml`);
    const cases = existsSync(report) ? parseReport(readFileSync(report, "utf8")) : [];
    const outcome = outcomeOf(row, cases);
    if (outcome === undefined) {
      throw new Error(`tests/${row.file}: no report of "${row.test}"; run npm test first`);
    }
    lines.push(lineOf(row, await versionOf(row.version), outcome));
  }
  const page = readFileSync(PAGE, "utf8");
  writeFileSync(PAGE, pageWith(page, `${HEADING}${lines.join("\n")}\n`));
}

async function versionOf(peer: Peer): Promise<string> {
  const source = VERSIONS[peer];
  if ("packages" in source) {
    return versionIn(readdirSync(join(ROOT, source.packages)).join(" "));
  }
  return versionIn((await runCommand(source.program, { cwd: ROOT, timeoutMs: 10_000 })).stdout);
}

function versionIn(text: string): string {
  return /\d+\.\d+(?:\.\d+)?/.exec(text)?.[0] ?? "unknown";
}

if (import.meta.main) {
  await writePage();
}
