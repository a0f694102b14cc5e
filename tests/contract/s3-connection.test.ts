/** The S3 store and its connection: hosts that cannot be reached, peers that speak no HTTP, certificates. */
import { afterAll, beforeAll, expect, test } from "bun:test";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { runCommand } from "../../scripts/command.ts";
import type { S3StoreDescription } from "../../src/archive/s3-description.ts";
import { S3Store } from "../../src/archive/s3-store.ts";
import { skipUnlessInstalled } from "../support/requires.ts";
import { S3Server } from "../support/s3-server.ts";
import { reasonOf } from "../support/store-contract.ts";

const folder = mkdtempSync(join(tmpdir(), "ubiblk-s3-"));
const server = new S3Server();

beforeAll(async () => {
  await runCommand(
    [
      ...["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"],
      ...["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"],
      ...["-keyout", join(folder, "key.pem"), "-out", join(folder, "cert.pem")],
    ],
    {},
  );
});

afterAll(() => {
  server[Symbol.dispose]();
  rmSync(folder, { recursive: true, force: true });
});

const messageFrom = async (port: number, changes: Partial<S3StoreDescription> = {}) => {
  const endpoint = `http://127.0.0.1:${port}`;
  const description = server.description({ endpoint, attemptTimeoutMs: 1000, ...changes });
  const store = new S3Store(description, { sleep: async () => {}, stallMs: 200 });
  return String(await reasonOf(store.get("key", { lengthMax: 1000 })));
};

/** A peer that answers whatever comes with `bytes`, and goes. */
function peer(bytes: string): { readonly port: number; readonly seen: () => number } & Disposable {
  let seen = 0;
  const listener = Bun.listen({
    hostname: "127.0.0.1",
    port: 0,
    socket: {
      data(socket) {
        seen += 1;
        socket.end(bytes);
      },
    },
  });
  return {
    port: listener.port,
    seen: () => seen,
    [Symbol.dispose]: () => listener.stop(true),
  };
}

test.each([
  ["nothing", ""],
  ["no HTTP", "220 mail.example.org ESMTP\r\n"],
  ["half a head", "HTTP/1.1 200 OK\r\ncontent-le"],
  ["a negative length", "HTTP/1.1 200 OK\r\ncontent-length: -1\r\n\r\nab"],
  ["two lengths", "HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nab"],
  ["fewer bytes than announced", "HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nab"],
  ["a cut chunk", "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nff\r\nab"],
  ["a mebibyte of headers", `HTTP/1.1 200 OK\r\n${`x: ${"y".repeat(1000)}\r\n`.repeat(1000)}`],
])("a peer that answers %s is asked again, then given up", async (_, bytes) => {
  using hostile = peer(bytes);
  const message = await messageFrom(hostile.port);
  expect(message).toContain("gave up after 3 attempts");
  expect(hostile.seen()).toBe(3);
});

test("an announced length above the limit is refused before the body comes", async () => {
  using hostile = peer("HTTP/1.1 200 OK\r\ncontent-length: 99999999999\r\n\r\nab");
  expect(await messageFrom(hostile.port)).toContain("99999999999 bytes, at most 1000 are expected");
});

test("a port where nobody listens: the error names the host", async () => {
  using closed = peer("");
  closed[Symbol.dispose]();
  const message = await messageFrom(closed.port);
  expect(message).toContain(`127.0.0.1:${closed.port}: no connection: connect ECONNREFUSED`);
  expect(message).toContain("gave up after 3 attempts");
});

test("a name that does not exist: the error says so", async () => {
  const message = await messageFrom(1, { endpoint: "http://nowhere.invalid", attemptsMax: 1 });
  expect(message).toMatch(/nowhere\.invalid:? no connection: .*nowhere\.invalid/);
});

skipUnlessInstalled("python3")(
  "a host that swallows packets costs the time for a connect, not that of a request",
  async () => {
    // A listener that accepts nobody, its queue full: the kernel answers no further connect.
    const script =
      "import socket, time\ns = socket.socket(); s.bind(('127.0.0.1', 0)); s.listen(0)\n" +
      "c = [socket.socket() for _ in range(3)]\nfor each in c:\n  each.setblocking(False)\n" +
      "  each.connect_ex(s.getsockname())\nprint(s.getsockname()[1], flush=True)\ntime.sleep(60)";
    const child = Bun.spawn(["python3", "-c", script], { stdout: "pipe" });
    try {
      const { value } = await child.stdout.getReader().read();
      const port = Number(new TextDecoder().decode(value));
      const startMs = performance.now();
      const message = await messageFrom(port, { connectTimeoutMs: 100, attemptTimeoutMs: 20_000 });
      expect(message).toContain(`127.0.0.1:${port}: no connection within 100 ms; gave up after 3`);
      expect(performance.now() - startMs).toBeLessThan(3000);
    } finally {
      child.kill("SIGKILL");
    }
  },
);

const tlsTest = skipUnlessInstalled("openssl");

const withTls = async (body: (endpoint: string) => Promise<void>) => {
  const [cert, key] = ["cert.pem", "key.pem"].map((name) => readFileSync(join(folder, name)));
  const tlsServer = Bun.serve({
    hostname: "127.0.0.1",
    port: 0,
    ...(cert === undefined || key === undefined ? {} : { tls: { cert, key } }),
    fetch: () => new Response("content"),
  });
  try {
    await body(`https://127.0.0.1:${tlsServer.port}`);
  } finally {
    tlsServer.stop(true);
  }
};

tlsTest("a certificate that the machine does not trust is refused at once, naming ca_file", () =>
  withTls(async (endpoint) => {
    const message = await messageFrom(0, { endpoint });
    expect(message).toContain("the certificate is not trusted");
    expect(message).toContain("see ca_file");
    expect(message).not.toContain("gave up");
  }),
);

tlsTest("a certificate that is not trusted is refused whatever the environment says", () =>
  withTls(async (endpoint) => {
    const before = process.env.NODE_TLS_REJECT_UNAUTHORIZED;
    process.env.NODE_TLS_REJECT_UNAUTHORIZED = "0";
    try {
      expect(await messageFrom(0, { endpoint })).toContain("the certificate is not trusted");
    } finally {
      if (before === undefined) {
        delete process.env.NODE_TLS_REJECT_UNAUTHORIZED;
      } else {
        process.env.NODE_TLS_REJECT_UNAUTHORIZED = before;
      }
    }
  }),
);

tlsTest("a certificate that ca_file vouches for is accepted", () =>
  withTls(async (endpoint) => {
    const caCertificates = readFileSync(join(folder, "cert.pem"), "utf8");
    const store = new S3Store(server.description({ endpoint, caCertificates }));
    const bytes = await store.get("key", { lengthMax: 100 });
    expect(new TextDecoder().decode(bytes)).toBe("content");
  }),
);

tlsTest("a certificate for another name is refused", () =>
  withTls(async (endpoint) => {
    const caCertificates = readFileSync(join(folder, "cert.pem"), "utf8");
    const elsewhere = endpoint.replace("127.0.0.1", "other.localhost");
    const message = await messageFrom(0, { endpoint: elsewhere, caCertificates });
    expect(message).toContain("the certificate is not trusted");
  }),
);
