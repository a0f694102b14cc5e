/** The commands of README and of the documents as they stand, in an empty home; and their examples of bytes. */
import { expect, test } from "bun:test";
import { readdirSync, readFileSync } from "node:fs";
import { join, resolve } from "node:path";
import type { CommandResult } from "../../scripts/command.ts";
import { encodeMapping, encodeMetadata } from "../../src/archive/archive-manifest.ts";
import { StripeMap } from "../../src/archive/stripe-map.ts";
import { StripeEncoder } from "../../src/archive/stripe-object.ts";
import { commandsOf } from "../support/document-commands.ts";
import { HOME_TIMEOUT_MS, Home } from "../support/document-home.ts";
import { skipUnlessInstalled } from "../support/requires.ts";

const ROOT = resolve(import.meta.dir, "..", "..");

test(
  "README: a disk is served, measured, watched, deciphered, archived and served to others; the clone stays clean",
  async () => {
    const chapters = ["Serve a disk", "Look at it, measure it", "Archive it, move it"];
    const script = chapters.map((title) => commandsOf("README.md", title)).join("");
    using home = new Home();
    const result = await home.run(`${script}\nls -A ~/clone`);
    expect(result).toMatchObject({ exitCode: 0, isTimedOut: false });
    expect(result.stdout).toContain("latency"); // of bench
    expect(result.stdout).toContain("rpc.sock  0."); // of top
    expect(result.stderr).toContain("verify: 256 objects of 256 stripes");
    expect(result.stdout).toEndWith("0-255 0x02\n"); // of list; the clone is empty
    expect(readdirSync(home.path).sort()).toEqual(["clone", "try-ubiblk"]);
  },
  HOME_TIMEOUT_MS,
);

skipUnlessInstalled("python3")("rpc.md: a backend is asked in Python", async () => {
  const text = readFileSync(join(ROOT, "docs", "rpc.md"), "utf8");
  const [, python = ""] = /^```python\n(.*?)^```$/ms.exec(text) ?? [];
  const here = python.replace("/run/ubiblk/disk1/rpc.sock", "rpc.sock");
  using home = new Home();
  const script = `${commandsOf("README.md", "Serve a disk")}python3 - <<'EOF'\n${here}EOF`;
  const result = await home.run(script);
  expect(result).toMatchObject({ exitCode: 0, isTimedOut: false });
  expect(result.stdout).toMatch(/^\{"stats":\{"queues":\[\{/m);
});

test("metrics.md: metrics of the disk of README are written", async () => {
  using home = new Home();
  const script =
    commandsOf("README.md", "Serve a disk") + commandsOf("docs/metrics.md", "The command");
  const result = await home.run(`${script}\ncat ubiblk.prom`);
  expect(result).toMatchObject({ exitCode: 0, isTimedOut: false });
  expect(result.stdout).toContain('ubiblk_capacity_bytes{device="ubiblk",socket="');
});

test(
  "lazy-stripes.md: a disk is set up with an image, and served",
  async () => {
    const script = commandsOf("docs/lazy-stripes.md", "Set up").replace("20G", "64M");
    using home = new Home();
    const result = await home.run(
      `truncate -s 16M debian.raw\n${script.trim()} &\n` +
        "until ubiblk top --once --json rpc.sock | grep -o '\"fetched\":16,'; do sleep 0.2; done",
    );
    expect(result).toMatchObject({ exitCode: 0, isTimedOut: false });
    expect(result.stdout).toContain("64 stripes of 1048576 bytes, 16 in the stripe source");
  },
  HOME_TIMEOUT_MS,
);

test("config.md: a secret is wrapped", async () => {
  using home = new Home();
  const result = await home.run(commandsOf("docs/config.md", "Encrypted secrets"));
  expect(result.exitCode).toBe(0);
  const [, envelope = ""] = /^source\.inline = "(.*)"$/m.exec(result.stdout) ?? [];
  expect(Uint8Array.fromBase64(envelope)).toHaveLength(12 + 64 + 16);
});

test(
  "init.md: a disk is made, checked, served and verified; and one whose KEK comes from a pipe",
  async () => {
    using home = new Home();
    const script = commandsOf("docs/init.md", "Try it") + commandsOf("docs/init.md", "Flags");
    const result = await home.run(`${script}ls vm2`);
    expect(result).toMatchObject({ exitCode: 0, isTimedOut: false });
    expect(result.stdout).toContain("vm1/config.toml: valid");
    expect(result.stdout).toContain("all as expected");
    expect(result.stdout).toEndWith("metadata\nrpc.sock\nvhost.sock\n");
  },
  HOME_TIMEOUT_MS,
);

test("config.md: a document is checked", async () => {
  using home = new Home();
  const check = commandsOf("docs/config.md", "Check a document");
  const result = await home.run(`umask 077\nubiblk config example > disk.toml\n${check}`);
  expect(result).toMatchObject({ exitCode: 0, isTimedOut: false });
  expect(result.stdout).toStartWith("disk.toml: valid, device for vhost\n  values:\n");
});

test("secret.md: keys are made, wrapped, unwrapped, and get another KEK", async () => {
  using home = new Home();
  const result = await home.run(commandsOf("docs/secret.md", "Try it"));
  expect(result).toMatchObject({ exitCode: 0, isTimedOut: false });
  expect(result.stdout).toContain("[secrets.xts_key]\nsource.inline = ");
  expect(result.stdout).toEndWith("the same key\n");
});

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
  HOME_TIMEOUT_MS,
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
  HOME_TIMEOUT_MS,
);

test(
  "migration.md: old names are linked, a document is checked, its disk served, and taken back",
  async () => {
    const chapters = ["The programs", "There", "Back"];
    const script = chapters.map((title) => commandsOf("docs/migration.md", title)).join("");
    using home = new Home();
    const result = await home.run(script);
    expect(result).toMatchObject({ exitCode: 0, isTimedOut: false });
    expect(result.stdout).toStartWith("ubiblk ");
    expect(result.stdout).toContain("written stripes: 0-15");
    expect(result.stdout).toContain("disk.toml: valid");
  },
  HOME_TIMEOUT_MS,
);

test(
  "SECURITY.md: a configuration gets another KEK, a disk another key",
  async () => {
    using home = new Home();
    const chapters = ["The KEK of a configuration", "The key of a disk"];
    const script = chapters.map((title) => commandsOf("SECURITY.md", title)).join("");
    const result = await home.run(`${script}
kill $backend
wait $backend
for disk in old new; do ubiblk xts --config $disk/config.toml $disk/disk.raw $disk.plain; done
cmp old.plain new.plain
! cmp -s old/disk.raw new/disk.raw`);
    expect(result).toMatchObject({ exitCode: 0, isTimedOut: false });
    expect(result.stdout).toContain("vm1/config.toml: valid, device");
  },
  HOME_TIMEOUT_MS,
);

test("archive.md: its examples of the format are what is written", () => {
  const document = readFileSync(join(ROOT, "docs", "archive.md"), "utf8");
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

async function tryIt(document: string): Promise<CommandResult> {
  using home = new Home();
  return await home.run(commandsOf(`docs/${document}`, "Try it"));
}
