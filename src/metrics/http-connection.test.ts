/** A client's life on a socket made by hand: one answer, limits, time, ends. */
import { expect, test } from "bun:test";
import type { ClientSocket } from "../rpc/client-server.ts";
import { CONVERSATION_MS, HttpConnection } from "./http-connection.ts";
import { HEAD_BYTES_MAX } from "./http-request.ts";

const SCRAPE = "GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n";

test("request in pieces: one answer, then the end of our side", () => {
  const client = new FakeClient();
  for (const character of SCRAPE) {
    client.send(character);
  }
  expect(client.received).toBe("<GET /metrics>");
  expect(client.calls).toEqual(["shutdown"]);
  expect(client.connection.isServed).toBe(false);
  client.connection.finish();
  expect(client.calls).toEqual(["shutdown", "terminate"]);
});

test("two requests at once: the first is answered, the second is dropped", () => {
  const client = new FakeClient();
  client.send(SCRAPE + SCRAPE);
  client.send(SCRAPE);
  expect(client.received).toBe("<GET /metrics>");
});

test("client that ends its side behind the request: answered, then closed", () => {
  const client = new FakeClient({ capacity: 4 });
  client.send(SCRAPE);
  client.connection.finish();
  expect(client.calls).toEqual([]);
  client.read(100);
  expect(client.received).toBe("<GET /metrics>");
  expect(client.calls).toEqual(["terminate"]);
});

test("client that ends its side before the request is whole: closed", () => {
  const client = new FakeClient();
  client.send("GET /metrics HTTP/1.1\r\n");
  client.connection.finish();
  expect(client.received).toBe("");
  expect(client.calls).toEqual(["terminate"]);
});

test("head above the limit: 431, in one piece or in many", () => {
  for (const size of [1, 100, HEAD_BYTES_MAX * 3]) {
    const client = new FakeClient();
    const text = `GET /metrics HTTP/1.1\r\nX: ${"x".repeat(HEAD_BYTES_MAX)}\r\n`;
    for (let at = 0; at < text.length && client.received === ""; at += size) {
      client.send(text.slice(at, at + size));
    }
    expect(client.received).toStartWith("HTTP/1.1 431 ");
  }
});

test("what is no request: 400", () => {
  const client = new FakeClient();
  client.send("hello\r\n\r\n");
  expect(client.received).toStartWith("HTTP/1.1 400 Bad Request\r\n");
});

test("one client too many: 503, whatever it sends", () => {
  const client = new FakeClient();
  client.connection.refuse("too many clients");
  client.send(SCRAPE);
  expect(client.received).toStartWith("HTTP/1.1 503 ");
  expect(client.received).toEndWith("\r\n\r\ntoo many clients\n");
});

test("client that sends nothing, or too slowly: dropped when its time is over", () => {
  const client = new FakeClient();
  client.nowMs = CONVERSATION_MS - 1;
  client.send("GET ");
  client.connection.checkTime();
  expect(client.calls).toEqual([]);
  client.nowMs = CONVERSATION_MS;
  client.connection.checkTime();
  expect(client.calls).toEqual(["terminate"]);
});

test("client that does not read: dropped when its time is over, however little it takes now and then", () => {
  const client = new FakeClient({ capacity: 1 });
  client.send(SCRAPE);
  client.nowMs = CONVERSATION_MS - 1;
  client.read(1);
  client.nowMs = CONVERSATION_MS;
  client.connection.checkTime();
  expect(client.received).toBe("<G");
  expect(client.calls).toEqual(["terminate"]);
});

test("client that stays behind its answer: dropped a second later", () => {
  const client = new FakeClient();
  client.send(SCRAPE);
  client.nowMs = 1_000;
  client.connection.checkTime();
  expect(client.calls).toEqual(["shutdown", "terminate"]);
});

test("client that goes on sending: dropped behind 64 KiB", () => {
  const client = new FakeClient();
  client.send(SCRAPE);
  client.send("x".repeat(64 * 1024));
  expect(client.calls).toEqual(["shutdown"]);
  client.send("x");
  expect(client.calls).toEqual(["shutdown", "terminate"]);
});

test("client that has gone: nothing is sent to it any more", () => {
  const client = new FakeClient({ capacity: -1 });
  client.send(SCRAPE);
  expect(client.calls).toEqual(["terminate"]);
  client.connection.closed();
  client.connection.drain();
  expect(client.received).toBe("");
});

// --- internal ---

class FakeClient {
  readonly calls: string[] = [];
  readonly connection: HttpConnection;
  received = "";
  nowMs = 0;
  #capacity: number;

  /** @param capacity bytes that the client takes before it reads; negative: it has gone */
  constructor({ capacity = Number.POSITIVE_INFINITY } = {}) {
    this.#capacity = capacity;
    const socket: ClientSocket = {
      write: (bytes) => this.#take(bytes),
      pause: () => this.calls.push("pause"),
      resume: () => this.calls.push("resume"),
      shutdown: () => this.calls.push("shutdown"),
      terminate: () => this.calls.push("terminate"),
    };
    this.connection = new HttpConnection({
      socket,
      answer: ({ method, path }) => `<${method} ${path}>`,
      nowMs: () => this.nowMs,
    });
  }

  send(text: string): void {
    this.connection.receive(Buffer.from(text, "latin1"));
  }

  /** Reads what has come, so that `count` more bytes can. */
  read(count: number): void {
    this.#capacity = count;
    this.connection.drain();
  }

  #take(bytes: Uint8Array): number {
    if (this.#capacity < 0) {
      return -1;
    }
    const taken = bytes.subarray(0, this.#capacity);
    this.#capacity -= taken.length;
    this.received += new TextDecoder().decode(taken);
    return taken.length;
  }
}
