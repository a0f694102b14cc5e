/** The commands of the documents' chapters `Try it` as they stand, in an empty folder; and their examples of bytes. */
import { expect, test } from "bun:test";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join, resolve } from "node:path";
import { type CommandResult, runCommand } from "../../scripts/command.ts";
import { encodeMapping, encodeMetadata } from "../../src/archive/archive-manifest.ts";
import { StripeMap } from "../../src/archive/stripe-map.ts";
import { StripeEncoder } from "../../src/archive/stripe-object.ts";
import { EXECUTABLE } from "../support/backend.ts";
import { skipUnlessInstalled } from "../support/requires.ts";

const DOCUMENTS = resolve(import.meta.dir, "..", "..", "docs");
const TIMEOUT_MS = 60_000;

test(
  "archive.md: a disk is archived, checked, exported, and brought up to date",
  async () => {
    const result = await tryIt("archive.md");
    expect(result).toMatchObject({ exitCode: 0, isTimedOut: false });
    expect(result.stdout).toContain("stripes: 64: 6 stored, 58 zero, 0 absent");
    expect(result.stderr).toContain("verify: 6 objects of 6 stripes");
    expect(result.stderr).toContain("5 there before");
    expect(result.stderr).toContain("removed 1 objects");
  },
  TIMEOUT_MS,
);

skipUnlessInstalled("openssl")(
  "remote-stripe.md: a disk is served, looked at, copied, and served from an archive",
  async () => {
    const result = await tryIt("remote-stripe.md");
    expect(result).toMatchObject({ exitCode: 0, isTimedOut: false });
    expect(result.stdout).toContain("0-63 0x07");
    expect(result.stdout).toContain("FETCHED");
    expect(result.stdout).toContain("00 01 00 00 00");
    expect(result.stdout).toContain("0-63 0x04");
  },
  TIMEOUT_MS,
);

test("archive.md: its examples of the format are what is written", () => {
  const document = readFileSync(join(DOCUMENTS, "archive.md"), "utf8");
  const hmacKey = Uint8Array.from({ length: 32 }, (_, i) => i);
  const xtsKey = new Uint8Array(64).fill(0x11, 0, 32).fill(0x22, 32);
  const whole = 6 * 16 * 512;
  for (const [key, sizeBytes, lengthBytes] of [
    [undefined, whole, 708],
    [xtsKey, whole, 1134],
    [undefined, 41_472, 717],
  ] as const) {
    const map = StripeMap.create(6);
    map.setZero(0);
    map.setStored(5, new Uint8Array(32).fill(0xab));
    const keys = { hmacKey, xtsKey: key };
    const file = encodeMapping({ map, stripeSectors: 16, sizeBytes, keys });
    expect(file).toHaveLength(lengthBytes);
    expect(document).toContain(sha256(file));
    expect(document).toContain(file.subarray(-32).toHex());
  }
  for (const key of [undefined, xtsKey]) {
    const compression = { kind: "none" } as const;
    using encoder = new StripeEncoder({ compression, xtsKey: key, stripeSectors: 16 });
    const object = encoder.encode(5, new Uint8Array(8192).fill(0xaa));
    expect(document).toContain(object === "zero" ? "an object for zeros" : object.hash.toHex());
  }
  const parameters = { stripeSectors: 2048, compression: { kind: "none" } } as const;
  const metadata = encodeMetadata({
    ...parameters,
    keys: { hmacKey, xtsKey: undefined },
    kek: undefined,
  });
  expect(metadata).toHaveLength(211);
  expect(document.replaceAll(/,\n +"/g, ',"')).toContain(new TextDecoder().decode(metadata));
});

// --- internal ---

function sha256(bytes: Uint8Array): string {
  return new Bun.CryptoHasher("sha256").update(bytes).digest("hex");
}

/** Runs the chapter in one shell that ends at the first failure. Another port is taken for the one that it names. */
async function tryIt(document: string): Promise<CommandResult> {
  const folder = mkdtempSync(join(tmpdir(), "ubiblk-docs-"));
  const script = chapterCommands(readFileSync(join(DOCUMENTS, document), "utf8")).replaceAll(
    "7777",
    String(freePort()),
  );
  try {
    const shell = [
      "bash",
      "-euo",
      "pipefail",
      "-c",
      `trap 'kill $(jobs -p) || true' EXIT\n${script}`,
    ];
    const env = {
      ...process.env,
      PATH: `${dirname(EXECUTABLE)}:${process.env.PATH}`,
      UBIBLK_LOG: undefined,
    };
    return await runCommand(shell, { cwd: folder, timeoutMs: TIMEOUT_MS - 5_000, env });
  } finally {
    rmSync(folder, { recursive: true });
  }
}

function chapterCommands(text: string): string {
  const chapter = /^## Try it\n(.*?)^##? /ms.exec(text)?.[1] ?? "";
  const blocks = [...chapter.matchAll(/^```sh\n(.*?)^```$/gms)].map((block) => block[1] ?? "");
  expect(blocks).not.toEqual([]);
  return blocks.join("");
}

function freePort(): number {
  using server = Bun.serve({ hostname: "127.0.0.1", port: 0, fetch: () => new Response() });
  return server.port ?? 0;
}
