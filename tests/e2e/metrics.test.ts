/** Metrics of the running executable: the listener, with good and hostile clients, and the command. */
import { afterAll, beforeAll, expect, test } from "bun:test";
import {
  existsSync,
  lstatSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  writeFileSync,
} from "node:fs";
import { type CommandResult, runCommand } from "../../scripts/command.ts";
import { type Backend, EXECUTABLE } from "../support/backend.ts";
import { connectTo, exchange, get, metricsPort, replyOf } from "../support/http-client.ts";
import { LazyDisk, LazyGuest, MIB } from "../support/lazy-disk.ts";
import { MetadataDisk } from "../support/metadata-disk.ts";
import { ask } from "../support/rpc-client.ts";
import { servePeer } from "../support/rpc-peers.ts";
import { RawClient, readRequest, startStripeServer } from "../support/stripe-server.ts";
import { until } from "../support/until.ts";

const OPENMETRICS = "application/openmetrics-text;version=1.0.0;q=0.5,*/*;q=0.1";
const CLIENTS_MAX = 8;

let disk: LazyDisk;
let backend: Backend;
let port: number;
let socketPath: string;

beforeAll(async () => {
  disk = new LazyDisk({
    diskBytes: 8 * MIB,
    imageBytes: 4 * MIB,
    isEncrypted: true,
    source: "copy_on_read = true",
    device:
      'device_id = "disk \\"1\\""\nmetrics_address = "127.0.0.1:0"\nmetrics_socket = "m.sock"\nmetrics_socket_mode = "0666"\n',
  });
  await disk.init();
  backend = await disk.start();
  port = await metricsPort(backend);
  socketPath = disk.files.file("m.sock");
  using guest = new LazyGuest(disk);
  guest.write(MIB, new Uint8Array(4096).fill(7));
  guest.read(MIB, 4096);
  guest.flush();
});

afterAll(async () => {
  await disk.stop();
  expect(existsSync(socketPath)).toBe(false);
  await disk[Symbol.asyncDispose]();
});

test("scrape: the same numbers as the RPC's, in the format that is asked for, at both places", async () => {
  const plain = await get(port);
  const open = await get(socketPath, { accept: OPENMETRICS });
  expect(lstatSync(socketPath).mode & 0o777).toBe(0o666);
  expect(plain.status).toBe("200 OK");
  expect(plain.fields.get("content-type")).toBe("text/plain; version=0.0.4; charset=utf-8");
  expect(open.fields.get("content-type")).toBe(
    "application/openmetrics-text; version=1.0.0; charset=utf-8",
  );
  expect(open.body).toEndWith("\n# EOF\n");
  const { statistics } = await askRecord("statistics");
  const [queue = {}] = listOf(recordOf(statistics).queues).map(recordOf);
  const { sum_ns: sumNs } = recordOf(recordOf(queue.latency).write);
  const label = 'device="disk \\"1\\""';
  for (const { body } of [plain, open]) {
    expect(body).toContain(`\nubiblk_info{${label},version="`);
    expect(body).toContain(`\nubiblk_capacity_bytes{${label}} ${8 * MIB}\n`);
    const reads = `ubiblk_operations_total{${label},queue="0",operation="read"} ${queue.read_ops}\n`;
    expect(body).toContain(reads);
    expect(body).toContain(
      `ubiblk_transferred_bytes_total{${label},queue="0",operation="write"} 4096\n`,
    );
    expect(body).toContain(`_seconds_count{${label},operation="write"} 1\n`);
    expect(body).toContain(`_seconds_sum{${label},operation="write"} ${Number(sumNs) / 1e9}\n`);
    expect(body).toContain(`ubiblk_stripes_in_source{${label}} 4\n`);
    expect(body).toContain(`ubiblk_fetched_bytes_total{${label}} ${MIB}\n`);
  }
  expect(valueIn(open.body, "process_cpu_seconds_total")).toBeWithin(0.001, 600);
  expect(valueIn(open.body, "process_resident_memory_bytes")).toBeWithin(16 * MIB, 1024 * MIB);
});

test("other requests: HEAD, other paths, other methods, and what is no request", async () => {
  const whole = await get(port);
  const head = await get(port, { method: "HEAD" });
  expect({ ...head, fields: [] }).toEqual({ status: "200 OK", fields: [], body: "" });
  expect(Number(head.fields.get("content-length"))).toBeWithin(
    whole.body.length - 100,
    whole.body.length + 100,
  );
  expect((await get(port, { path: "/metrics?name=x" })).status).toBe("200 OK");
  expect((await get(port, { path: "/" })).status).toBe("404 Not Found");
  const post = await get(port, { method: "POST" });
  expect(post.status).toBe("405 Method Not Allowed");
  expect(post.fields.get("allow")).toBe("GET, HEAD");
  expect(replyOf(await exchange(port, '{"command":"stats"}\n\n')).status).toBe("400 Bad Request");
  const long = `GET /metrics HTTP/1.1\r\nCookie: ${"x".repeat(9000)}\r\n\r\n`;
  expect(replyOf(await exchange(port, long)).status).toStartWith("431 ");
});

test("connection: one request, then it ends, whatever the client wants", async () => {
  const request = "GET /metrics HTTP/1.1\r\nConnection: keep-alive\r\n\r\n";
  const received = await exchange(socketPath, request + request);
  expect(received.match(/HTTP\/1\.1 /g)).toHaveLength(1);
  expect(received).toContain("\r\nConnection: close\r\n");
});

test("silent clients take all places: the next ones are told, RPC and guest notice nothing, places come back", async () => {
  using stack = new DisposableStack();
  const silent = Array.from({ length: CLIENTS_MAX }, () => {
    const socket = connectTo(port);
    socket.on("error", () => {});
    stack.defer(() => socket.destroy());
    return socket;
  });
  await Promise.all(silent.map((socket) => new Promise((done) => socket.once("connect", done))));
  let status = "";
  await until("a client is refused", async () => {
    status = (await get(port)).status;
    return status !== "200 OK";
  });
  expect(status).toBe("503 Service Unavailable");
  expect((await get(socketPath)).status).toBe("200 OK"); // a place of its own
  expect(await ask(disk.rpcPath, "version")).toHaveProperty("version");
  using guest = new LazyGuest(disk);
  expect(guest.read(MIB, 512)).toEqual(new Uint8Array(512).fill(7));
  const closed = new Promise((done) => silent[0]?.once("close", done));
  await closed; // after 10 s
  expect((await get(port)).status).toBe("200 OK");
}, 30_000);

test("200 clients at once that send garbage, half a request, or go: it goes on, and files are closed", async () => {
  const filesBefore = openFiles();
  for (let round = 0; round < 4; round++) {
    const sockets = Array.from({ length: 50 }, (_, i) => {
      const socket = connectTo(i % 2 === 0 ? port : socketPath);
      socket.on("error", () => {});
      socket.write(
        ["GET /metr", "\u{0}\u{1}\r\n\r\n", "GET /metrics HTTP/1.1\r\n\r\n"][i % 3] ?? "",
      );
      return socket;
    });
    await Bun.sleep(20);
    for (const socket of sockets) {
      socket.destroy();
    }
  }
  await until("it answers again", async () => (await get(port)).status === "200 OK");
  await until("files are closed", () => openFiles() <= filesBefore);
  expect(backend.isRunning()).toBe(true);
});

test("address that is taken: the start fails and names the key", async () => {
  using other = Bun.serve({ hostname: "127.0.0.1", port: 0, fetch: () => new Response() });
  await using second = new LazyDisk({
    diskBytes: MIB,
    imageBytes: MIB,
    isEncrypted: false,
    device: `metrics_address = "127.0.0.1:${other.port}"\n`,
  });
  await second.init();
  const result = await second.files.run("vhost");
  expect(result.exitCode).toBe(1);
  expect(result.stderr).toStartWith(
    "ubiblk: error E_SOCKET_IN_USE: cannot serve metrics at device.metrics_address: cannot listen at 127.0.0.1:",
  );
});

test("command: the same metrics with the socket, and ubiblk_up 0 for one that is away", async () => {
  const gone = disk.files.file("gone.rpc");
  const { exitCode, stdout, stderr } = await metrics("rpc.sock", gone);
  expect(exitCode).toBe(0);
  expect(stderr).toBe(`[WARN ] no answer socket=${gone} cause="no socket there"\n`);
  const labels = `device="disk \\"1\\"",socket="${disk.rpcPath}"`;
  expect(stdout).toContain(`\nubiblk_up{${labels}} 1\nubiblk_up{socket="${gone}"} 0\n`);
  expect(stdout).toContain(`\nubiblk_stripes{${labels}} 8\n`);
  expect(stdout).toContain(`\nubiblk_process_start_time_seconds{${labels}} `);
  expect(stdout).toEndWith("\n# EOF\n");
  const scraped = familiesIn((await get(port, { accept: OPENMETRICS })).body);
  expect(familiesIn(stdout.replaceAll("ubiblk_process_", "process_"))).toEqual(scraped);
});

test("command with a configuration: its socket; the same one twice is asked once", async () => {
  const { exitCode, stdout } = await metrics("-f", "disk.toml", "rpc.sock", "r?c.sock");
  expect(exitCode).toBe(0);
  expect(stdout.match(/^ubiblk_up/gm)).toHaveLength(1);
  expect(stdout).toContain(`socket="${disk.rpcPath}"} 1\n`);
});

test("command with the configuration of a disk that is not served: its name all the same", async () => {
  await using second = new LazyDisk({
    diskBytes: MIB,
    imageBytes: MIB,
    isEncrypted: false,
    device: 'device_id = "second"\n',
  });
  const { exitCode, stdout, stderr } = await second.files.run("metrics");
  expect(exitCode).toBe(1);
  expect(stdout).toContain(`ubiblk_up{device="second",socket="${second.rpcPath}"} 0\n`);
  expect(stderr).toStartWith("ubiblk: error E_METRICS: nobody answered: ");
});

test("command, a pattern that finds nothing: an empty text, and no failure", async () => {
  const { exitCode, stdout, stderr } = await metrics("/nowhere/*.rpc");
  expect({ exitCode, stdout, stderr }).toEqual({ exitCode: 0, stdout: "# EOF\n", stderr: "" });
});

test("command, at a socket of another kind and one that does not answer: told, in bounded time", async () => {
  const dumb = disk.files.file("dumb.rpc");
  using _peer = await servePeer(dumb, () => undefined);
  const { exitCode, stderr, durationMs } = await metrics("vhost.sock", "m.sock", dumb);
  expect(exitCode).toBe(1);
  expect(stderr).toContain(`${dumb}: no answer in time`);
  expect(durationMs).toBeLessThan(15_000);
}, 30_000);

test("--output: replaced as a whole, in node_exporter's format, readable for all, nothing left beside it", async () => {
  mkdirSync(disk.files.file("out"));
  const path = disk.files.file("out/ubiblk.prom");
  writeFileSync(path, "old\n", { mode: 0o600 });
  const { exitCode, stdout } = await metrics("rpc.sock", "--output", path);
  expect({ exitCode, stdout }).toEqual({ exitCode: 0, stdout: "" });
  const text = readFileSync(path, "utf8");
  expect(text).toStartWith("# HELP ubiblk_up ");
  expect(text).not.toContain("# EOF");
  expect(lstatSync(path).mode & 0o777).toBe(0o644);
  expect(readdirSync(disk.files.file("out"))).toEqual(["ubiblk.prom"]);
});

test.each(["out/no/folder.prom", "."])("--output %s: an error that names it", async (path) => {
  const { exitCode, stderr } = await metrics("rpc.sock", "--output", path);
  expect(exitCode).toBe(1);
  expect(stderr).toStartWith(`ubiblk: error E_METRICS: cannot write metrics to ${path}: `);
});

test("stripe server: scraped, and asked by the command with its configuration", async () => {
  using served = new MetadataDisk({ diskBytes: MIB, metadataPath: null });
  served.write(
    "listen.toml",
    '[server]\nunix_socket = "s.sock"\nrpc_socket = "rpc.sock"\nmetrics_socket = "m.sock"\n',
  );
  const flags = ["-f", "disk.toml", "--listen-config", "listen.toml"];
  await using _server = await startStripeServer(served.folder, flags);
  using client = await RawClient.connect(served.file("s.sock"));
  client.send(readRequest(0));
  await client.take(9);
  const scraped = await get(served.file("m.sock"), { accept: OPENMETRICS });
  const { exitCode, stdout } = await runCommand(
    [EXECUTABLE, "metrics", "--listen-config", served.file("listen.toml")],
    { env: { ...process.env, UBIBLK_LOG: undefined } },
  );
  expect(exitCode).toBe(0);
  const labels = `serves="disk.raw",socket="${served.file("rpc.sock")}"`;
  expect(stdout).toContain(`\nubiblk_server_requests_total{${labels},request="read"} 1\n`);
  expect(stdout).toContain(`\nubiblk_server_connections_open{${labels}} 1\n`);
  expect(stdout).toMatch(/^ubiblk_info\{.*role="stripe-server"/m);
  expect(familiesIn(stdout.replaceAll("ubiblk_process_", "process_"))).toEqual(
    familiesIn(scraped.body),
  );
});

test("no socket: wrong use", async () => {
  const { exitCode, stderr } = await metrics();
  expect(exitCode).toBe(2);
  expect(stderr).toContain("SOCKETS: missing");
});

// --- internal ---

function metrics(...args: readonly string[]): Promise<CommandResult> {
  return runCommand([EXECUTABLE, "metrics", ...args], {
    cwd: disk.files.folder,
    timeoutMs: 30_000,
    env: { ...process.env, UBIBLK_LOG: undefined },
  });
}

/** Of the first sample of a family. */
function valueIn(text: string, name: string): number {
  const line = text.split("\n").find((each) => each.startsWith(`${name}{`));
  return Number(line?.slice(line.lastIndexOf(" ") + 1));
}

/** The names of families in a text. */
function familiesIn(text: string): readonly string[] {
  return [...text.matchAll(/^# TYPE (\S+)/gm)].map(([, name = ""]) => name).sort();
}

function openFiles(): number {
  return readdirSync(`/proc/${backend.pid}/fd`).length;
}

async function askRecord(command: string): Promise<Readonly<Record<string, unknown>>> {
  return recordOf(await ask(disk.rpcPath, command));
}

function recordOf(value: unknown): Readonly<Record<string, unknown>> {
  return typeof value === "object" && value !== null ? { ...value } : {};
}

function listOf(value: unknown): readonly unknown[] {
  return Array.isArray(value) ? value : [];
}
