/** HTTP as bytes over Unix and TCP sockets, made with nothing of the product. */
import { connect, type Socket } from "node:net";
import { until } from "./until.ts";

export interface HttpReply {
  /** The first line, without `HTTP/1.1 `. */
  readonly status: string;
  readonly fields: ReadonlyMap<string, string>;
  readonly body: string;
}

/** Where a listener is: a path, or a port of this machine. */
export type Place = string | number;

export function connectTo(place: Place): Socket {
  return typeof place === "number"
    ? connect({ port: place, host: "127.0.0.1" })
    : connect({ path: place });
}

/** Sends `text` and waits for the other end to close: all that came back. */
export function exchange(place: Place, text: string): Promise<string> {
  return new Promise((resolve, reject) => {
    const socket = connectTo(place);
    let received = "";
    socket.setEncoding("utf8");
    socket.setTimeout(20_000, () => socket.destroy(new Error("no end of the answer")));
    socket.on("data", (part) => {
      received += part;
    });
    socket.on("error", reject);
    socket.on("close", () => resolve(received));
    socket.write(text);
  });
}

export async function get(
  place: Place,
  options: { readonly accept?: string; readonly method?: string; readonly path?: string } = {},
): Promise<HttpReply> {
  const { accept = "*/*", method = "GET", path = "/metrics" } = options;
  const head = `${method} ${path} HTTP/1.1\r\nHost: localhost\r\nAccept: ${accept}\r\n\r\n`;
  return replyOf(await exchange(place, head));
}

export function replyOf(text: string): HttpReply {
  const end = text.indexOf("\r\n\r\n");
  const [first = "", ...lines] = text.slice(0, end).split("\r\n");
  const fields = lines.map((line): readonly [string, string] => {
    const [name = "", value = ""] = line.split(": ");
    return [name.toLowerCase(), value];
  });
  return {
    status: first.replace("HTTP/1.1 ", ""),
    fields: new Map(fields),
    body: text.slice(end + 4),
  };
}

/** The port of this machine where a process tells its metrics: its log says so once all is ready. */
export async function metricsPort(process: { readonly log: () => string }): Promise<number> {
  const find = () => / (?:metrics|at)=\S*127\.0\.0\.1:(\d+)/.exec(process.log())?.[1];
  await until("the log tells where metrics are", () => find() !== undefined);
  return Number(find());
}
