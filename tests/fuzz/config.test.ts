/** Hostile documents and secrets end in errors for the user, never in a crash, and leak nothing. */
import { expect, test } from "bun:test";
import fc from "fast-check";
import { jsonOf, textOf } from "../../src/commands/config-report.ts";
import { inspectDocument } from "../../src/config/inspect-document.ts";
import { loadDeviceConfig } from "../../src/config/load-config.ts";
import { resolveSecrets } from "../../src/config/resolve-secrets.ts";
import { UbiError, UbiErrors } from "../../src/errors.ts";
import { ConfigFolder } from "../support/config-folder.ts";
import { FUZZ_SEED } from "../support/fuzz-seed.ts";

const RUNS = process.env.UBIBLK_TEST_LONG === undefined ? 1500 : 30_000;

/** What a user gets: `ok`, or the messages of operating errors. Anything else is a crash. */
const outcomeOf = async (folder: ConfigFolder, document: string | Uint8Array): Promise<string> => {
  const path = folder.write("c.toml", document);
  try {
    const config = await loadDeviceConfig(path, { backend: "vhost", require: ["vhost_socket"] });
    using _secrets = await resolveSecrets(config, ["encryption", "stripe_source"]);
    return "ok";
  } catch (error) {
    if (error instanceof UbiErrors || error instanceof UbiError) {
      return error.message;
    }
    return `CRASH ${error instanceof Error ? error.stack : error}`;
  }
};

/** What `config check` prints, in both forms; anything that is not a report is a crash. */
const reportOf = async (folder: ConfigFolder, document: string): Promise<string> => {
  const report = await inspectDocument(folder.write("c.toml", document), {
    kind: undefined,
    backend: undefined,
    mayReadSecrets: true,
    isForReference: true,
    signal: new AbortController().signal,
  });
  const messages = report.errors.map((error) => error.message);
  const checked = { report, memory: undefined };
  return [jsonOf([checked]), textOf(checked), ...messages].join("\n");
};

const SECRET_VALUE = "hunter2hunter2";

const keys = [
  "device data_path vhost_socket device_id tuning num_queues queue_size cpus io_engine encryption",
  "xts_key ref secrets k kek source inline file env encoding encrypted_by pipe_timeout_ms include",
  "danger_zone enabled allow_env_secrets allow_inline_plaintext_secrets allow_unencrypted_disk",
  "stripe_source type storage address psk identity secret __proto__ constructor toString x",
]
  .join(" ")
  .split(" ");

const key = fc.constantFrom(...keys);
const value = fc.constantFrom(
  ...["1", "-1", "0", "99999999999999999999", "1.5", "nan", "true", "false", "1979-05-27", "[]"],
  ...["{}", "[1, 2]", '"k"', '"kek"', '""', '"base64"', '"raw"', '"archive"', '"remote"', '"s3"'],
  ...['"io_uring"', '{ ref = "k" }', '{ inline = "x" }', "{ __proto__ = 1 }", "[[[]]]", "'''\n'''"],
);
const line = fc.oneof(
  fc.tuple(key, value).map(([k, v]) => `${k} = ${v}`),
  fc.tuple(key, key, value).map(([a, b, v]) => `${a}.${b} = ${v}`),
  key.map((k) => `[${k}]`),
  fc.tuple(key, key).map(([a, b]) => `[${a}.${b}]`),
  fc.string({ maxLength: 12 }),
);

test("documents of known words in any order end in errors for the user", async () => {
  using folder = new ConfigFolder();
  await fc.assert(
    fc.asyncProperty(fc.array(line, { maxLength: 14 }), async (lines) => {
      expect(await outcomeOf(folder, lines.join("\n"))).not.toStartWith("CRASH");
    }),
    { numRuns: RUNS, seed: FUZZ_SEED },
  );
});

test("documents of known words in any order are checked to an end", async () => {
  using folder = new ConfigFolder();
  await fc.assert(
    fc.asyncProperty(fc.array(line, { maxLength: 14 }), async (lines) => {
      expect(await reportOf(folder, lines.join("\n"))).toContain('"valid":');
    }),
    { numRuns: RUNS, seed: FUZZ_SEED },
  );
});

test("documents of any bytes end in errors for the user", async () => {
  using folder = new ConfigFolder();
  await fc.assert(
    fc.asyncProperty(fc.uint8Array({ maxLength: 80 }), async (bytes) => {
      expect(await outcomeOf(folder, bytes)).not.toStartWith("CRASH");
    }),
    { numRuns: RUNS, seed: FUZZ_SEED },
  );
});

const WHOLE =
  '[device]\ndata_path = "d"\nvhost_socket = "v"\n[encryption]\nxts_key.ref = "k"\n[secrets.k]\n' +
  `source.inline = "${SECRET_VALUE}"\nencoding = "plaintext"\n[danger_zone]\nenabled = true\n` +
  "allow_inline_plaintext_secrets = true\n";

test("a whole document with a cut and a damage shows nothing of its secret", async () => {
  using folder = new ConfigFolder();
  const place = fc.nat({ max: WHOLE.length });
  const damage = fc.string({ unit: fc.constantFrom(..."=[]{}\"'\n#., \\"), maxLength: 3 });
  await fc.assert(
    fc.asyncProperty(place, fc.nat({ max: 4 }), damage, async (at, removed, added) => {
      const document = WHOLE.slice(0, at) + added + WHOLE.slice(at + removed);
      const outcome = await outcomeOf(folder, document);
      expect(outcome).not.toStartWith("CRASH");
      expect(outcome).not.toContain("hunter2");
      expect(await reportOf(folder, document)).not.toContain("hunter2");
    }),
    { numRuns: RUNS, seed: FUZZ_SEED },
  );
});

test("secrets of any bytes behind any KEK end in errors for the user", async () => {
  using folder = new ConfigFolder();
  const document =
    '[device]\ndata_path = "d"\nvhost_socket = "v"\n[encryption]\nxts_key.ref = "k"\n' +
    '[secrets.k]\nsource.file = "k"\nencoding = "ENCODING"\nencrypted_by.ref = "kek"\n' +
    '[secrets.kek]\nsource.file = "kek"\n' +
    "[danger_zone]\nenabled = true\nallow_secret_over_regular_file = true\n";
  const bytes = fc.oneof(
    fc.uint8Array({ maxLength: 120 }),
    fc.uint8Array({ minLength: 32, maxLength: 32 }),
    fc.base64String({ maxLength: 160 }).map((text) => new TextEncoder().encode(text)),
  );
  await fc.assert(
    fc.asyncProperty(fc.constantFrom("plaintext", "base64"), bytes, bytes, async (e, k, kek) => {
      folder.write("k", k);
      folder.write("kek", kek);
      const outcome = await outcomeOf(folder, document.replace("ENCODING", e));
      expect(outcome).toContain("secrets.");
      expect(outcome).not.toStartWith("CRASH");
    }),
    { numRuns: RUNS, seed: FUZZ_SEED },
  );
});
