/**
 * `npm run compatibility`, after `npm test`: writes the tables of docs/compatibility.md from the reports of that run, with the
 * versions that were on this machine. A row names the test that proves it.
 */
import { readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { runCommand } from "./command.ts";
import { lastOutcomeOf, type ProvenRow, pageWith, ROOT } from "./report-page.ts";

const PAGE = join(ROOT, "docs", "compatibility.md");

export interface CompatibilityRow extends ProvenRow {
  readonly peer: string;
  readonly version: Peer;
  readonly what: string;
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
    what: "two queues with packed rings",
    file: "e2e/guest.test.ts",
    test: "guest with packed rings: two queues carry data, zeroes are zeroes, a discarded disk is empty",
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
    what: "memory plugged into a guest that works, and taken away",
    file: "e2e/memory-plug-guest.test.ts",
    test: "memory is plugged into a guest under load, carries its I/O, and is taken away again",
  },
  {
    peer: "QEMU",
    version: "emulator",
    what: "live migration between two backends on shared storage, and back",
    file: "e2e/live-migration.test.ts",
    test: "times between two backends, and every byte is right",
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

/** A line of the table. */
export function lineOf(row: CompatibilityRow, version: string, outcome: string): string {
  return `| ${row.peer} | ${version} | ${row.what} | ${outcome} | \`tests/${row.file}\` |`;
}

// --- internal ---

const HEADING = "| peer | version | what | result | test |\n|---|---|---|---|---|\n";

async function writePage(): Promise<void> {
  const lines: string[] = [];
  for (const row of COMPATIBILITY_ROWS) {
    const outcome = lastOutcomeOf(row);
    if (outcome === undefined) {
      throw new Error(`tests/${row.file}: no report of "${row.test}"; run npm test first`);
    }
    lines.push(lineOf(row, await versionOf(row.version), outcome));
  }
  const page = readFileSync(PAGE, "utf8");
  writeFileSync(PAGE, pageWith(page, "compatibility", `${HEADING}${lines.join("\n")}\n`));
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
