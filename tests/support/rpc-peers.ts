/** Peers at an RPC socket that are not our backend: an older one, one that is stuck, and wrong ones. */
import { rmSync } from "node:fs";
import { createServer, type Socket } from "node:net";

/** What a peer does with a command: an answer, an answer and then the end, or nothing at all. */
type Reply = { readonly text: string; readonly isLast?: boolean } | undefined;

/** Serves at `path` until it is disposed. */
export async function servePeer(
  path: string,
  reply: (command: string) => Reply,
): Promise<Disposable> {
  const clients = new Set<Socket>();
  const server = createServer((socket) => {
    clients.add(socket);
    socket.on("error", () => {}); // the client may go at any time
    socket.on("data", (bytes) => {
      for (const line of bytes.toString().split("\n").filter(Boolean)) {
        const answer = reply(String(JSON.parse(line).command));
        if (answer !== undefined && socket.writable) {
          socket.write(answer.text);
        }
        if (answer?.isLast === true) {
          socket.end();
        }
      }
    });
  });
  rmSync(path, { force: true });
  await new Promise<void>((listening) => server.listen(path, listening));
  return {
    [Symbol.dispose]: () => {
      server.close();
      for (const client of clients) {
        client.destroy();
      }
    },
  };
}

/** Knows `stats` and `queues` only; each question finds `operationsEach` more reads of 4 KiB. */
export function olderBackend(operationsEach: number): (command: string) => Reply {
  let operations = 0;
  return (command) => {
    if (command === "stats") {
      operations += operationsEach;
      const counts = `"bytes_read":${operations * 4096},"bytes_written":0,"flush_ops":0`;
      const queue = `{${counts},"read_ops":${operations},"write_ops":0}`;
      return { text: `{"stats":{"queues":[${queue}]}}\n` };
    }
    return command === "queues"
      ? { text: '{"queues":[[["flush"],["read",2,3]]]}\n' }
      : { text: `{"error":"unknown command: ${command}"}\n` };
  };
}
