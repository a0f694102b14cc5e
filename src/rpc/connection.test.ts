/** A client's life on a socket made by hand: order, limits, back-pressure, ends. */
import { expect, test } from "bun:test";
import type { ClientSocket } from "./client-server.ts";
import { IDLE_MAX_MS, RpcConnection } from "./connection.ts";
import { LINE_BYTES_MAX } from "./line-reader.ts";

test("requests in one piece: answered in order", () => {
  const client = new FakeClient();
  client.send("one\ntwo\nthree\n");
  expect(client.received).toBe("<one>\n<two>\n<three>\n");
});

test("empty lines and white space: skipped without an answer", () => {
  const client = new FakeClient();
  client.send("\n\r\n  \t \n one \r\n\n");
  expect(client.received).toBe("<one>\n");
});

test("last line without a newline: answered at the end of the stream, then closed", () => {
  const client = new FakeClient();
  client.send("one\ntwo");
  expect(client.received).toBe("<one>\n");
  client.connection.finish();
  expect(client.received).toBe("<one>\n<two>\n");
  expect(client.calls).toEqual(["terminate"]);
});

test("request in pieces, cut within a character: read as one", () => {
  const client = new FakeClient();
  const bytes = new TextEncoder().encode("größe\n");
  for (const byte of bytes) {
    client.connection.receive(Uint8Array.of(byte));
  }
  expect(client.received).toBe("<größe>\n");
});

test("invalid UTF-8: what came before is answered, then the connection closes", () => {
  const client = new FakeClient();
  client.send("one\n");
  client.connection.receive(Uint8Array.of(0xc3, 0x28, 10));
  client.send("two\n");
  expect(client.received).toBe("<one>\n");
  expect(client.connection.isServed).toBe(false);
  expect(client.calls).toEqual(["shutdown"]);
  client.connection.finish();
  expect(client.calls).toEqual(["shutdown", "terminate"]);
});

test("message of a front end: told that it is at the wrong socket, then closed", () => {
  const client = new FakeClient();
  client.connection.receive(Uint8Array.of(1, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0));
  expect(client.received).toContain('"code":"E_RPC_REQUEST"');
  expect(client.received).toContain("belongs at vhost_socket, not at rpc_socket");
  expect(client.connection.isServed).toBe(false);
  expect(client.calls).toEqual(["shutdown"]);
});

test("line above the limit: an error, then the next request is answered", () => {
  const client = new FakeClient();
  client.send(`${"x".repeat(LINE_BYTES_MAX + 1)}\none\n`);
  expect(client.received).toBe(
    '{"code":"E_RPC_LIMIT","error":"invalid request: a line has at most 65536 bytes"}\n<one>\n',
  );
});

test("client that reads slowly: one answer at a time is made, the socket is paused", () => {
  const client = new FakeClient({ capacity: 3 });
  client.send("one\ntwo\n");
  expect(client.received).toBe("<on");
  expect(client.answered).toEqual(["one"]);
  expect(client.calls).toEqual(["pause"]);
  client.read(3);
  expect(client.received).toBe("<one>\n");
  expect(client.answered).toEqual(["one", "two"]);
  client.read(100);
  expect(client.received).toBe("<one>\n<two>\n");
  expect(client.calls).toEqual(["pause", "resume"]);
});

test("command that takes its time: what was asked behind it is answered behind it", async () => {
  const client = new FakeClient();
  const slow = Promise.withResolvers<string>();
  client.slow = slow.promise;
  client.send("slow\none\n");
  expect(client.received).toBe("");
  client.nowMs = 2 * IDLE_MAX_MS;
  client.connection.checkTime();
  slow.resolve("<slow>\n");
  await slow.promise;
  expect(client.received).toBe("<slow>\n<one>\n");
  expect(client.connection.isServed).toBe(true);
});

test("client that ends while its command is carried out: gets the answer, then the connection closes", async () => {
  const client = new FakeClient();
  const slow = Promise.withResolvers<string>();
  client.slow = slow.promise;
  client.send("slow\n");
  client.connection.finish();
  slow.resolve("<slow>\n");
  await slow.promise;
  expect(client.received).toBe("<slow>\n");
  expect(client.calls.at(-1)).toBe("terminate");
});

test("client that goes while its command is carried out: nothing is sent to it", async () => {
  const client = new FakeClient();
  const slow = Promise.withResolvers<string>();
  client.slow = slow.promise;
  client.send("slow\none\n");
  client.connection.closed();
  slow.resolve("<slow>\n");
  await slow.promise;
  expect(client.received).toBe("");
  expect(client.answered).toEqual(["slow"]);
});

test("client that goes before its answer: the connection ends, and its other requests are dropped", () => {
  const client = new FakeClient();
  client.hasGone = true;
  client.send("one\ntwo\n");
  expect(client.answered).toEqual(["one"]);
  expect(client.connection.isServed).toBe(false);
  expect(client.calls).toEqual(["terminate"]);
  client.connection.finish();
  client.connection.drain();
  expect(client.calls).toEqual(["terminate"]);
});

test("client that goes in the middle of an answer: the connection ends", () => {
  const client = new FakeClient({ capacity: 3 });
  client.send("one\ntwo\n");
  client.hasGone = true;
  client.read(100);
  expect(client.answered).toEqual(["one"]);
  expect(client.calls).toEqual(["pause", "terminate"]);
});

test("client that goes before it is told why it is not served: terminated once", () => {
  const client = new FakeClient();
  client.hasGone = true;
  client.connection.refuse("too many");
  expect(client.calls).toEqual(["terminate"]);
});

test("client that ends before it read all: gets all, then the connection closes", () => {
  const client = new FakeClient({ capacity: 3 });
  client.send("one\ntwo");
  client.connection.finish();
  expect(client.calls).not.toContain("terminate");
  client.read(3);
  client.read(100);
  expect(client.received).toBe("<one>\n<two>\n");
  expect(client.calls.at(-1)).toBe("terminate");
});

test("socket that goes on reading although paused: closed before it fills the memory", () => {
  const client = new FakeClient({ capacity: 0 });
  client.send("one\n");
  for (let i = 0; i < 17; i++) {
    client.send("two\n".repeat(16_384));
  }
  expect(client.calls).toEqual(["pause", "terminate"]);
});

test("many requests at once: the others have their turn in between", () => {
  const client = new FakeClient();
  client.send("x\n".repeat(150));
  expect(client.answered).toHaveLength(64);
  client.runDeferred();
  expect(client.answered).toHaveLength(128);
  client.runDeferred();
  expect(client.answered).toHaveLength(150);
  expect(client.calls).toEqual(["pause", "resume"]);
});

test("socket gone while requests wait: nothing more is answered", () => {
  const client = new FakeClient();
  client.send("x\n".repeat(150));
  client.connection.closed();
  client.runDeferred();
  client.connection.drain();
  expect(client.answered).toHaveLength(64);
});

test("idle client: told and closed at the limit, not before", () => {
  const client = new FakeClient();
  client.nowMs = IDLE_MAX_MS - 1;
  client.connection.checkTime();
  expect(client.received).toBe("");
  client.nowMs = IDLE_MAX_MS;
  client.connection.checkTime();
  expect(client.received).toBe(
    '{"code":"E_RPC_LIMIT","error":"no request for 300 s; connect again"}\n',
  );
  expect(client.calls).toEqual(["shutdown"]);
});

test("idle time: a request starts it anew, half a request does not", () => {
  const client = new FakeClient();
  client.nowMs = IDLE_MAX_MS - 1;
  client.send("one\n");
  client.nowMs = 2 * IDLE_MAX_MS - 2;
  client.send("tw");
  client.connection.checkTime();
  expect(client.connection.isServed).toBe(true);
  client.nowMs += 1;
  client.connection.checkTime();
  expect(client.connection.isServed).toBe(false);
});

test("idle: from the last answer on, and not while one is to come", async () => {
  const client = new FakeClient();
  client.nowMs = 50;
  expect(client.connection.idleMs).toBe(50);
  const slow = Promise.withResolvers<string>();
  client.slow = slow.promise;
  client.send("slow\n");
  client.nowMs = 90;
  expect(client.connection.idleMs).toBe(0);
  slow.resolve("done\n");
  await slow.promise;
  await Promise.resolve();
  client.nowMs = 100;
  expect(client.connection.idleMs).toBe(10);
});

test("client that never reads its answer: closed at the limit", () => {
  const client = new FakeClient({ capacity: 0 });
  client.send("one\n");
  client.nowMs = IDLE_MAX_MS;
  client.connection.checkTime();
  expect(client.calls).toEqual(["pause", "terminate"]);
});

test("refused client: told, its requests are dropped, closed after a second", () => {
  const client = new FakeClient();
  client.connection.refuse("too many");
  client.send("one\n");
  expect(client.received).toBe('{"code":"E_RPC_LIMIT","error":"too many"}\n');
  expect(client.calls).toEqual(["shutdown"]);
  client.nowMs = 999;
  client.connection.checkTime();
  expect(client.calls).toEqual(["shutdown"]);
  client.nowMs = 1000;
  client.connection.checkTime();
  expect(client.calls).toEqual(["shutdown", "terminate"]);
});

// --- internal ---

/** A socket whose peer reads `capacity` bytes ahead, and the connection behind it. */
class FakeClient {
  readonly connection: RpcConnection;
  readonly calls: string[] = [];
  readonly answered: string[] = [];
  nowMs = 0;
  received = "";
  /** The answer to the line "slow". */
  slow: Promise<string> = Promise.resolve("");
  /** Writing fails from now on. */
  hasGone = false;
  #capacity: number;
  #deferred: (() => void)[] = [];

  constructor(options: { readonly capacity?: number } = {}) {
    this.#capacity = options.capacity ?? Number.POSITIVE_INFINITY;
    const socket: ClientSocket = {
      write: (bytes) => this.#write(bytes),
      pause: () => this.calls.push("pause"),
      resume: () => this.calls.push("resume"),
      shutdown: () => this.calls.push("shutdown"),
      terminate: () => this.calls.push("terminate"),
    };
    this.connection = new RpcConnection({
      socket,
      answer: (line) => {
        this.answered.push(line);
        return line === "slow" ? this.slow : `<${line}>\n`;
      },
      nowMs: () => this.nowMs,
      defer: (task) => this.#deferred.push(task),
    });
  }

  send(text: string): void {
    this.connection.receive(new TextEncoder().encode(text));
  }

  /** The peer makes room for `bytes` more. */
  read(bytes: number): void {
    this.#capacity += bytes;
    this.connection.drain();
  }

  runDeferred(): void {
    const tasks = this.#deferred;
    this.#deferred = [];
    for (const task of tasks) {
      task();
    }
  }

  #write(bytes: Uint8Array): number {
    if (this.hasGone) {
      return -1;
    }
    const part = bytes.subarray(0, this.#capacity);
    this.#capacity -= part.length;
    this.received += new TextDecoder().decode(part);
    return part.length;
  }
}
