/** Metrics as the programs that they are made for read them: promtool, Prometheus and node_exporter. */
import { expect, test } from "bun:test";
import { mkdirSync, readFileSync } from "node:fs";
import { dirname, join, resolve } from "node:path";
import { runCommand } from "../../scripts/command.ts";
import { EXECUTABLE } from "../support/backend.ts";
import { get, metricsPort } from "../support/http-client.ts";
import { LazyDisk, MIB } from "../support/lazy-disk.ts";
import { HttpProgram, missingPrometheus, promtool } from "../support/prometheus.ts";
import { skipUnless } from "../support/requires.ts";
import { type RunningServer, startStripeServer } from "../support/stripe-server.ts";
import { until } from "../support/until.ts";

const DOCS = resolve(import.meta.dir, "..", "..", "docs");
const MONITORING = join(DOCS, "monitoring");
const RULES = join(MONITORING, "ubiblk.rules.yml");
/** Of other programs. */
const FOREIGN = ["up", "node_textfile_mtime_seconds"];

const missing = missingPrometheus();
const promtest = skipUnless(missing ?? "", missing === undefined);

promtest("alert rules: well-formed, and each fires when it shall, and only then", async () => {
  const checked = await promtool(["check", "rules", RULES]);
  expect(checked).toMatchObject({ exitCode: 0, stderr: "" });
  const tested = await promtool(["test", "rules", join(MONITORING, "ubiblk.rules.test.yml")]);
  expect(tested).toMatchObject({ exitCode: 0, stderr: "" });
});

test("alert rules: each tells what, why and what to do, and has a test and a row in the manual", () => {
  const rules = readFileSync(RULES, "utf8")
    .split(/^ +- alert: /m)
    .slice(1);
  const tests = readFileSync(join(MONITORING, "ubiblk.rules.test.yml"), "utf8");
  const manual = readFileSync(join(DOCS, "metrics.md"), "utf8");
  expect(rules.length).toBeGreaterThan(10);
  for (const rule of rules) {
    const [name = ""] = rule.split("\n");
    const told = [...rule.matchAll(/^ +(severity|summary|description|action): \S/gm)];
    expect(told.map(([, key]) => key)).toEqual(["severity", "summary", "description", "action"]);
    expect(tests).toContain(`alertname="${name}"`);
    expect(manual).toContain(`\`${name}\``);
  }
});

promtest(
  "a disk that is being filled and a stripe server: Prometheus takes all of it, and dashboard and rules find all they name",
  async () => {
    await using disk = await fillingDisk();
    const backend = await disk.start();
    await using server = await stripeServer(disk);
    const ports = await Promise.all([backend, server].map(metricsPort));
    for (const port of ports) {
      expect((await promtool(["check", "metrics"], (await get(port)).body)).stderr).toBe("");
    }
    const targets = ports.map((port) => `127.0.0.1:${port}`);
    await using prometheus = await HttpProgram.prometheus(disk.files.file("prometheus"), targets);
    await until(
      "both were scraped often enough for a rate, and the time left is known",
      async () => {
        const rates = await prometheus.query('rate({__name__="process_cpu_seconds_total"}[30s])');
        return (
          rates.length === 2 && (await prometheus.query("ubiblk_fetch_eta_seconds")).length === 1
        );
      },
    );
    await until("both are up", async () => (await prometheus.query("up == 1")).length === 2);

    const stored = namesOf(await prometheus.query('{job="ubiblk"}'));
    const told = new Set([...stored].filter((name) => !/^(up$|scrape_)/.test(name)));
    const used = [...expressions(), ...ruleExpressions()].flatMap(namesIn);
    expect([...new Set(used)].filter((name) => !told.has(name) && !FOREIGN.includes(name))).toEqual(
      [],
    );
    expect([...documented()].filter((name) => !told.has(name)).sort()).toEqual([]);
    expect([...told].filter((name) => !documented().has(name)).sort()).toEqual([]);

    for (const expression of expressions()) {
      const samples = await prometheus.query(expression);
      expect({ expression, isEmpty: samples.length === 0 }).toEqual({
        expression,
        isEmpty: expression.includes("ubiblk_fetch_paused"), // of disks that are paused
      });
    }
  },
  60_000,
);

promtest(
  "node_exporter: takes the file of the command beside its own metrics",
  async () => {
    await using disk = await fillingDisk();
    await disk.start();
    const folder = disk.files.file("textfile");
    mkdirSync(folder);
    const output = join(folder, "ubiblk.prom");
    const command = [EXECUTABLE, "metrics", "rpc.sock", "gone.sock", "--output", output];
    expect((await runCommand(command, { cwd: disk.files.folder })).exitCode).toBe(0);
    expect((await promtool(["check", "metrics"], readFileSync(output, "utf8"))).stderr).toBe("");
    await using exporter = await HttpProgram.nodeExporter(folder);
    const text = await (await fetch(`${exporter.url}/metrics`)).text();
    expect(text).toContain("\nnode_textfile_scrape_error 0\n");
    expect(text).toContain("\nprocess_start_time_seconds "); // its own, alone
    const own = readFileSync(output, "utf8").split("\n");
    const samples = own.filter((line) => line.startsWith("ubiblk_"));
    const read = text.split("\n").filter((line) => line.startsWith("ubiblk_"));
    expect(read.length).toBe(samples.length);
    const gone = read.filter((line) => line.includes("gone.sock"));
    expect(gone).toEqual([`ubiblk_up{device="",socket="${disk.files.file("gone.sock")}"} 0`]);
  },
  60_000,
);

// --- internal ---

/** Has stripes for a minute and a half, so that all that is told of a fetch is there. */
async function fillingDisk(): Promise<LazyDisk> {
  const disk = new LazyDisk({
    diskBytes: 96 * MIB,
    imageBytes: 96 * MIB,
    image: new Uint8Array(96 * MIB).fill(1),
    isEncrypted: false,
    source: "autofetch = true\nbackground_bytes_per_second = 1048576",
    device: 'device_id = "disk1"\nmetrics_address = "127.0.0.1:0"\n',
    sections: "[limits]\niops = 1000\nbytes_per_second = 1048576\n",
  });
  await disk.init();
  return disk;
}

/** Serves a plain disk from the same folder. */
function stripeServer({ files }: LazyDisk): Promise<RunningServer> {
  files.makeSparse("served.raw", MIB);
  const danger = "[danger_zone]\nenabled = true\nallow_unencrypted_disk = true\n";
  files.write("served.toml", `[device]\ndata_path = "served.raw"\n${danger}`);
  const listen = '[server]\nunix_socket = "stripes.sock"\nmetrics_address = "127.0.0.1:0"\n';
  files.write("listen.toml", listen);
  return startStripeServer(dirname(files.file("x")), [
    "-f",
    "served.toml",
    "--listen-config",
    "listen.toml",
  ]);
}

function namesOf(samples: Awaited<ReturnType<HttpProgram["query"]>>): ReadonlySet<string> {
  return new Set(samples.map(({ metric }) => metric.__name__ ?? ""));
}

/** Those of the dashboard, with its variables as Grafana fills them in for everything. */
function expressions(): readonly string[] {
  const found: string[] = [];
  JSON.parse(readFileSync(join(MONITORING, "ubiblk.dashboard.json"), "utf8"), (key, value) => {
    if (key === "expr") {
      found.push(String(value));
    }
    return value;
  });
  expect(found.length).toBeGreaterThan(30);
  return found.map((expression) =>
    expression
      .replaceAll("$__rate_interval", "30s")
      .replaceAll(/\$(job|device)\b/g, ".*")
      .replaceAll("[1h]", "[30s]"),
  );
}

function ruleExpressions(): readonly string[] {
  const rules = readFileSync(RULES, "utf8");
  return [...rules.matchAll(/^ +expr: (\|\n(?: {10}.*\n)+|.*)/gm)].map(([, text = ""]) => text);
}

/** The metrics that an expression names; of a pattern, the one without its optional part. */
function namesIn(expression: string): readonly string[] {
  const plain = expression.replaceAll(/__name__=~"\(ubiblk_\)\?(\w+)"/g, "$1");
  const withoutValues = plain.replaceAll(/"[^"]*"/g, "");
  return withoutValues.match(/\b(ubiblk|process|node)_\w+|\bup\b/g) ?? [];
}

/** Every name in the first columns of the manual's tables; of a histogram, its three. */
function documented(): ReadonlySet<string> {
  const manual = readFileSync(join(DOCS, "metrics.md"), "utf8");
  const cells = [...manual.matchAll(/^\| (`(?:ubiblk|process)_[^|]*) \| (\w+) \|/gm)];
  return new Set(
    cells.flatMap(([, cell = "", type]) => {
      const names = cell.match(/\w+/g) ?? [];
      return type === "histogram"
        ? names.flatMap((name) => [`${name}_bucket`, `${name}_sum`, `${name}_count`])
        : names;
    }),
  );
}
