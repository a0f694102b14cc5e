/** `ubiblk secret` as a user runs it: envelopes that other code made, documents that are read, files, wrong usage. */
import { expect, test } from "bun:test";
import { chmodSync, readFileSync, statSync } from "node:fs";
import { loadKeyConfig } from "../../src/config/load-config.ts";
import { resolveSecrets } from "../../src/config/resolve-secrets.ts";
import { EXECUTABLE } from "../support/backend.ts";
import { ConfigFolder } from "../support/config-folder.ts";

const KEY = Uint8Array.from({ length: 64 }, (_, i) => i);
const KEK = Uint8Array.from({ length: 32 }, (_, i) => i);
const OTHER_KEK = KEK.map((byte) => 255 - byte);
/** Made with independent libraries: KEK 00..1f, nonce a0..ab, content 00..3f, for the names xts-key and xts_key. */
const GOLDEN =
  "oKGio6Slpqeoqaqr5hl+LkHOBLhqbI3YC3fO0WC9SwOGolR7hBc8nWO2ax7yV2Xciwd1Gne1LuMlV63Wdyp0e1blLEl5ZzFlmE27j73vsD/ytpC9yU9+OJVsYUg=";
const OTHER_GOLDEN =
  "oKGio6Slpqeoqaqr5hl+LkHOBLhqbI3YC3fO0WC9SwOGolR7hBc8nWO2ax7yV2Xciwd1Gne1LuMlV63Wdyp0e1blLEl5ZzFlmE27j6IVefkKph7jG1gnhIoORFc=";
const DANGER = "[danger_zone]\nenabled = true\nallow_secret_over_regular_file = true\n";

interface Run {
  readonly exitCode: number;
  readonly stdout: Uint8Array;
  readonly text: string;
  readonly stderr: string;
}

const run = (stdin: string | Uint8Array, ...argv: readonly string[]): Run => {
  const command = [EXECUTABLE, "secret", ...argv];
  const env = { ...process.env, UBIBLK_LOG: "warn" };
  const { exitCode, stdout, stderr } = Bun.spawnSync(command, { stdin: Buffer.from(stdin), env });
  return { exitCode, stdout, text: stdout.toString(), stderr: stderr.toString() };
};

/** A document whose key is wrapped with the KEK in the file `kek`. */
const documentWith = (table: string) =>
  `[encryption]\nxts_key.ref = "k"\n${table}\n[secrets.kek]\nsource.file = "kek"\n${DANGER}`;

test("what is wrapped is what a document with encrypted_by gets", async () => {
  using folder = new ConfigFolder({ kek: KEK });
  const wrapped = run(KEY, "wrap", "--name", "k", "--kek", folder.file("kek"));
  const table = `[secrets.k]\nsource.inline = "${wrapped.text.trim()}"\nencoding = "base64"\nencrypted_by.ref = "kek"`;
  const config = await loadKeyConfig(folder.write("c.toml", documentWith(table)));
  using secrets = await resolveSecrets(config, ["encryption"]);
  expect(secrets.get(config.encryption.xtsKey).bytes).toEqual(KEY);
  expect(wrapped).toMatchObject({ exitCode: 0, stderr: "" });
});

test("standard output that is closed, or that nobody reads: a secret would be lost, which is an error", () => {
  const gen = [EXECUTABLE, "secret", "gen", "--kind", "kek"];
  const closed = Bun.spawnSync(["sh", "-c", '"$@" >&-', "sh", ...gen]);
  const unread = Bun.spawnSync(["bash", "-c", 'exec 3> >(:); wait $!; "$@" >&3', "bash", ...gen]);
  for (const { exitCode, stderr } of [closed, unread]) {
    expect(stderr.toString()).toContain("E_SECRET_OUTPUT: the secret is lost");
    expect(exitCode).toBe(1);
  }
  expect(Bun.spawnSync(["sh", "-c", '"$@" >/dev/null', "sh", ...gen]).exitCode).toBe(0);
});

test("the same secret is never wrapped in the same way twice", () => {
  using folder = new ConfigFolder({ kek: KEK });
  const flags = ["wrap", "--name", "k", "--kek", folder.file("kek")];
  expect(run(KEY, ...flags).text).not.toBe(run(KEY, ...flags).text);
});

test.each([
  ["kek", 0, "E_SECRET_SIZE: standard input is empty"],
  ["kek", 8165, "E_SECRET_SIZE: the secret is too large: at most 8164 bytes"],
  ["long", 64, "has 33 bytes; a KEK has exactly 32"],
  ["short", 64, "has 31 bytes; a KEK has exactly 32"],
  ["huge", 64, "has more than 256 bytes; a KEK has exactly 32"],
  ["none", 64, "E_SECRET_READ: cannot read"],
])("with the KEK %s and a secret of %d bytes nothing is printed", (kek, sizeBytes, reason) => {
  using folder = new ConfigFolder({
    kek: KEK,
    long: new Uint8Array(33),
    short: KEK.subarray(1),
    huge: new Uint8Array(9999),
  });
  const flags = ["wrap", "--name", "k", "--kek", folder.file(kek)];
  const { exitCode, text, stderr } = run(new Uint8Array(sizeBytes), ...flags);
  expect({ exitCode, text }).toEqual({ exitCode: 1, text: "" });
  expect(stderr).toContain(reason);
});

test("the largest secret that a document takes is wrapped, and a newline at the end pointed out", () => {
  using folder = new ConfigFolder({ kek: KEK });
  const secret = new Uint8Array(8164).fill(0x0a);
  const wrapped = run(secret, "wrap", "--name", "k", "--kek", folder.file("kek"));
  expect(wrapped.exitCode).toBe(0);
  expect(Uint8Array.fromBase64(wrapped.text.trim())).toHaveLength(8192);
  expect(wrapped.stderr).toContain("ends in a newline");
});

test("a key in base64 that is wrapped as it is written is pointed out", () => {
  using folder = new ConfigFolder({ kek: KEK });
  const flags = ["wrap", "--name", "k", "--kek", folder.file("kek")];
  expect(run(KEY.toBase64(), ...flags).stderr).toContain("looks like base64 of 64 bytes");
  const decoded = run(KEY.toBase64(), ...flags, "--encoding", "base64");
  expect(decoded.stderr).toBe("");
  expect(Uint8Array.fromBase64(decoded.text.trim())).toHaveLength(64 + 28);
});

test("a secret has a name", () => {
  const { exitCode, stderr } = run(KEY, "wrap", "--name=", "--kek=kek");
  expect(exitCode).toBe(2);
  expect(stderr).toContain("--name: empty");
});

test.each([
  ["xts-key", GOLDEN],
  ["xts_key", OTHER_GOLDEN],
])("the known envelope of %s is unwrapped, with a KEK in base64 too", (name, envelope) => {
  using folder = new ConfigFolder({ kek: KEK, text: `${KEK.toBase64()}\n` });
  const flags = ["unwrap", "--name", name, "--kek"];
  expect(run(envelope, ...flags, folder.file("kek")).stdout).toEqual(Buffer.from(KEY));
  const base64 = run(envelope, ...flags, folder.file("text"), "--encoding", "base64");
  expect(base64.text).toBe(KEY.toBase64());
});

test("under another name it does not open, and the message says that the name counts", () => {
  using folder = new ConfigFolder({ kek: KEK });
  const wrong = run(GOLDEN, "unwrap", "--name", "xts_key", "--kek", folder.file("kek"));
  expect(wrong).toMatchObject({ exitCode: 1, text: "" });
  expect(wrong.stderr).toContain("E_SECRET_ENVELOPE");
  expect(wrong.stderr).toContain('another name than "xts_key" (the name is authenticated)');
});

test("rewrapped for another name and KEK, it opens with those only", () => {
  using folder = new ConfigFolder({ kek: KEK, other: OTHER_KEK });
  const flags = ["--name", "xts-key", "--kek", folder.file("kek")];
  const changes = ["--new-name", "disk", "--new-kek", folder.file("other")];
  const rewrapped = run(GOLDEN, "rewrap", ...flags, ...changes);
  expect(rewrapped).toMatchObject({ exitCode: 0, stderr: "" });
  const opened = run(rewrapped.text, "unwrap", "--name=disk", "--kek", folder.file("other"));
  expect(opened.stdout).toEqual(Buffer.from(KEY));
  expect(run(rewrapped.text, "unwrap", ...flags).exitCode).toBe(1);
});

test("of a document: a table is wrapped with its KEK, read back, and rewrapped with another", () => {
  using folder = new ConfigFolder({ kek: KEK, new: OTHER_KEK });
  const path = folder.write("c.toml", documentWith(""));
  const table = run(KEY, "wrap", "-f", path, "--name", "k", "--table");
  expect(table).toMatchObject({ exitCode: 0 });
  expect(table.text).toStartWith('[secrets.k]\nsource.inline = "');
  expect(table.text).toEndWith('encoding = "base64"\nencrypted_by.ref = "kek"\n');
  const other = run("hunter2hunter2hunter2", "wrap", "-f", path, "--name", 'a "b"', "--table");
  folder.write("c.toml", documentWith(`${table.text}${other.text}`));
  expect(run("", "unwrap", "-f", path, "--name", 'a "b"').text).toBe("hunter2hunter2hunter2");

  const tables = run(
    "",
    "rewrap",
    "-f",
    path,
    "--kek-name",
    "kek",
    "--new-kek",
    folder.file("new"),
  );
  folder.write("c.toml", documentWith(tables.text));
  expect(run("", "unwrap", "-f", path, "--name", "k").stderr).toContain("E_SECRET_ENVELOPE");
  folder.write("kek", OTHER_KEK);
  expect(run("", "unwrap", "-f", path, "--name", "k").stdout).toEqual(Buffer.from(KEY));
  expect(run("", "unwrap", "-f", path, "--name", 'a "b"').text).toBe("hunter2hunter2hunter2");
});

test("of a document: envelopes are exchanged in place, in includes too, and all else stays", () => {
  using folder = new ConfigFolder({ kek: KEK, new: OTHER_KEK });
  const path = folder.write("c.toml", documentWith(""));
  const [a = "", b = ""] = ["a", "b"].map((name) =>
    run(`secret ${name}`, "wrap", "-f", path, "--name", name, "--table").text.trimEnd(),
  );
  const included = folder.write("more.toml", `${b} # keep this\n`, 0o640);
  folder.write("c.toml", `include = ["more.toml"]\n# a note\n${documentWith(`${a}  # mine`)}`);
  const flags = ["rewrap", "-f", path, "--kek-name", "kek", "--new-kek", folder.file("new")];
  const before = [path, included].map((file) => readFileSync(file, "utf8"));
  const done = run("", ...flags, "--in-place");
  expect(done).toMatchObject({ exitCode: 0, text: "" });
  expect(done.stderr).toContain("exchanged 2 envelopes");
  const after = [path, included].map((file) => readFileSync(file, "utf8"));
  const withoutEnvelopes = (text: string) => text.replace(/source.inline = "[^"]+"/, "");
  expect(after.map(withoutEnvelopes)).toEqual(before.map(withoutEnvelopes));
  expect(statSync(included).mode & 0o7777).toBe(0o640);
  folder.write("kek", OTHER_KEK);
  expect(run("", "unwrap", "-f", path, "--name", "a").text).toBe("secret a");
  expect(run("", "unwrap", "-f", path, "--name", "b").text).toBe("secret b");
});

test("of a document: a new KEK that is written otherwise than the document says is pointed out", () => {
  using folder = new ConfigFolder({ kek: KEK, new: OTHER_KEK.toBase64() });
  const path = folder.write("c.toml", documentWith(""));
  const table = run(KEY, "wrap", "-f", path, "--name", "k", "--table").text;
  folder.write("c.toml", documentWith(table));
  const flags = ["rewrap", "-f", path, "--kek-name", "kek", "--new-kek", folder.file("new")];
  const { exitCode, stderr } = run("", ...flags);
  expect(exitCode).toBe(0);
  expect(stderr).toContain("new is written in base64, the document says plaintext");
});

test("of a document: what does not stand there in one piece is left as it is", () => {
  using folder = new ConfigFolder({ kek: KEK, new: OTHER_KEK });
  const path = folder.write("c.toml", documentWith(""));
  const table = run(KEY, "wrap", "-f", path, "--name", "k", "--table").text;
  const flags = ["rewrap", "-f", path, "--kek-name", "kek", "--new-kek", folder.file("new")];
  const twice = documentWith(`${table}# ${table.split("\n")[1]}`);
  const inPieces = documentWith(table.replace(/(inline = "[^"]{20})/, "$1\\n"));
  for (const [text, reason] of [
    [twice, "stands there 2 times"],
    [inPieces, "not in one piece"],
  ] as const) {
    folder.write("c.toml", text);
    const refused = run("", ...flags, "--in-place");
    expect(refused.exitCode).toBe(1);
    expect(refused.stderr).toContain(reason);
    expect(readFileSync(path, "utf8")).toBe(text);
  }
});

test("of a document: a name that nothing has is told with the nearest one", () => {
  using folder = new ConfigFolder({ kek: KEK });
  const path = folder.write("c.toml", documentWith(""));
  const { exitCode, stderr } = run("", "unwrap", "-f", path, "--name", "kekk");
  expect(exitCode).toBe(1);
  expect(stderr).toContain("E_SECRET_REFERENCE");
  expect(stderr).toContain('did you mean "kek"?');
});

test.each([
  ["xts-key", 64],
  ["kek", 32],
  ["psk", 32],
])("gen makes a %s of %d bytes, each time another", (kind, sizeBytes) => {
  const made = [run("", "gen", "--kind", kind), run("", "gen", "--kind", kind)];
  expect(made.map(({ stdout }) => stdout.length)).toEqual([sizeBytes, sizeBytes]);
  expect(made[0]?.stdout).not.toEqual(made[1]?.stdout);
});

test("gen writes a file of mode 0600, and replaces one only when it is told to", () => {
  using folder = new ConfigFolder({ old: "precious" });
  chmodSync(folder.file("old"), 0o644);
  const kept = run("", "gen", "--bytes", "16", "--output", folder.file("old"));
  expect(kept.exitCode).toBe(1);
  expect(kept.stderr).toContain("E_SECRET_OUTPUT");
  expect(kept.stderr).toContain("is there already, give --force to replace it");
  expect(readFileSync(folder.file("old"), "utf8")).toBe("precious");
  const flags = ["--bytes", "16", "--encoding", "base64", "--force", "-o", folder.file("old")];
  expect(run("", "gen", ...flags)).toMatchObject({ exitCode: 0, text: "", stderr: "" });
  expect(readFileSync(folder.file("old"), "utf8")).toMatch(/^[A-Za-z0-9+/]{22}==$/);
  expect(statSync(folder.file("old")).mode & 0o7777).toBe(0o600);
});

test.each([
  [["gen"], "give either --kind"],
  [["gen", "--kind", "kek", "--bytes", "32"], "give either --kind"],
  [["gen", "--kind", "key"], '"key" is not one of xts-key, kek, psk'],
  [["gen", "--bytes", "8193"], "8193 is not in 1 to 8192"],
  [["gen", "--kind", "kek", "--force"], "--force: only with --output"],
  [["wrap", "--name", "k"], "either --kek FILE or --config FILE"],
  [["unwrap", "--name", "k", "--kek", "a", "--config", "b"], "either --kek FILE"],
  [["unwrap", "--name", "k", "--input", "a", "--config", "b"], "--input: not with --config"],
  [["rewrap", "--name", "k", "--kek", "a"], "give --new-kek FILE"],
  [["rewrap", "--kek", "a", "--new-kek", "b"], "--name: missing"],
  [["rewrap", "-f", "a", "--new-kek", "b"], "either --name NAME or --kek-name KEK"],
  [["rewrap", "-f", "a", "--kek-name", "k", "--new-name", "b"], "--new-name: for one secret only"],
  [["rewrap", "-f", "a", "--name", "k", "--new-kek", "b", "--in-place"], "--in-place: only with"],
  [
    ["rewrap", "--kek", "a", "--name", "k", "--new-kek", "b", "--in-place"],
    "--in-place: only with",
  ],
  [[], "one of gen, wrap, unwrap, rewrap has to follow"],
  [["gne"], "did you mean gen?"],
])("%p is wrong usage", (argv, reason) => {
  const { exitCode, text, stderr } = run("", ...argv);
  expect({ exitCode, text }).toEqual({ exitCode: 2, text: "" });
  expect(stderr).toContain(reason);
});
