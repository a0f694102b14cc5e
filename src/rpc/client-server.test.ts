import { afterEach, beforeEach, expect, test } from "bun:test";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { RpcClient } from "../../tests/support/rpc-client.ts";
import { until } from "../../tests/support/until.ts";
import { ListeningSocket } from "../ffi/socket-file.ts";
import {
  type ClientConnection,
  ClientServer,
  type ClientSocket,
  YIELD_MS,
} from "./client-server.ts";

const CLIENTS = 2;

let folder: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "ubiblk-client-server-"));
});
afterEach(() => rmSync(folder, { recursive: true }));

/** Has been idle for as long as the test says, and tells why it is refused. */
class IdleConnection implements ClientConnection {
  isServed = true;
  idleMs = 0;
  refusal: string | undefined;
  readonly #socket: ClientSocket;

  constructor(socket: ClientSocket) {
    this.#socket = socket;
  }

  refuse(message: string): void {
    this.isServed = false;
    this.refusal = message;
    this.#socket.terminate();
  }

  receive(): void {}
  finish(): void {}
  drain(): void {}
  closed(): void {}
  checkTime(): void {}
}

class World implements Disposable {
  readonly connections: IdleConnection[] = [];
  readonly #clients: RpcClient[] = [];
  readonly #socket = ListeningSocket.open(join(folder, "sock"));
  readonly #server = new ClientServer({
    fd: this.#socket.fd,
    place: this.#socket.path,
    what: "test",
    clientsMax: CLIENTS,
    connect: (socket) => {
      const connection = new IdleConnection(socket);
      this.connections.push(connection);
      return connection;
    },
  });

  constructor() {
    this.#socket.giveAwayDescriptor();
  }

  async connect(): Promise<void> {
    const count = this.connections.length;
    this.#clients.push(new RpcClient(this.#socket.path));
    await until("the client is taken on", () => this.connections.length > count);
  }

  refusals(): readonly boolean[] {
    return this.connections.map(({ refusal }) => refusal !== undefined);
  }

  [Symbol.dispose](): void {
    for (const client of this.#clients) {
      client[Symbol.dispose]();
    }
    this.#server[Symbol.dispose]();
    this.#socket[Symbol.dispose]();
  }
}

test("all places are taken by clients that ask: the next one is refused", async () => {
  using world = new World();
  await world.connect();
  await world.connect();
  for (const connection of world.connections) {
    connection.idleMs = YIELD_MS - 1;
  }
  await world.connect();
  expect(world.refusals()).toEqual([false, false, true]);
});

test("the client that has asked for nothing for longest makes room", async () => {
  using world = new World();
  await world.connect();
  await world.connect();
  for (const [i, connection] of world.connections.entries()) {
    connection.idleMs = YIELD_MS + i;
  }
  await world.connect();
  expect(world.refusals()).toEqual([false, true, false]);
  await world.connect();
  expect(world.refusals()).toEqual([true, true, false, false]);
});
