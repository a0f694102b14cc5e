/**
 * A network on its bad days, as a TCP proxy in a process of its own: pieces come late and in any size, stand still for a
 * while, or never; connections are reset in the middle. What happens to which connection comes from a seed. The first two
 * are answered: those by which a disk is made and a backend starts, which try once and say so.
 *
 *     bun faulty-proxy.ts PORT SEED      prints its own port, then a line for every fault
 */
import { connect as connectTo, createServer, type Socket } from "node:net";
import { SeededRandom } from "./random.ts";

export interface FaultyProxyOptions {
  /** Of the server behind it. */
  readonly port: number;
  readonly seed: number;
}

const START_MS = 10_000;

export class FaultyProxy implements Disposable {
  readonly port: number;
  readonly #child: Bun.Subprocess<"ignore", "pipe", "inherit">;
  readonly #lines: string[];

  private constructor(parts: {
    readonly port: number;
    readonly child: Bun.Subprocess<"ignore", "pipe", "inherit">;
    readonly lines: string[];
  }) {
    this.port = parts.port;
    this.#child = parts.child;
    this.#lines = parts.lines;
  }

  static async start({ port, seed }: FaultyProxyOptions): Promise<FaultyProxy> {
    const command = [process.execPath, import.meta.path, String(port), String(seed)];
    const child = Bun.spawn(command, { stdin: "ignore", stdout: "pipe", stderr: "inherit" });
    const lines: string[] = [];
    const { promise, resolve, reject } = Promise.withResolvers<number>();
    const timer = setTimeout(() => child.kill(), START_MS);
    const read = async () => {
      const decoder = new TextDecoder();
      for await (const bytes of child.stdout) {
        lines.push(...decoder.decode(bytes).trim().split("\n"));
        resolve(Number(lines[0]));
      }
      reject(new Error("the proxy does not start"));
    };
    void read();
    const ownPort = await promise;
    clearTimeout(timer);
    return new FaultyProxy({ port: ownPort, child, lines });
  }

  /** How often each fault came. */
  faults(): Readonly<Record<Fault, number>> {
    const count = (fault: Fault) => this.#lines.filter((line) => line === fault).length;
    return { reset: count("reset"), stall: count("stall"), silence: count("silence") };
  }

  [Symbol.dispose](): void {
    this.#child.kill();
  }
}

// --- internal: the process ---

type Fault = "reset" | "stall" | "silence";

const STALL_MS = 700;
const DELAY_MS_MAX = 4;
const RESET_BYTES_MAX = 1.5 * 2 ** 20;
const ANSWERED = 2;

function serve(targetPort: number, seed: number): void {
  const random = new SeededRandom(seed);
  let connections = 0;
  const server = createServer({ allowHalfOpen: true }, (client) => {
    connections += 1;
    const target = connectTo({ port: targetPort, host: "127.0.0.1", allowHalfOpen: true });
    const end = () => {
      client.destroy();
      target.destroy();
    };
    for (const socket of [client, target]) {
      socket.setNoDelay(true).on("error", end).on("close", end);
    }
    if (random.oneIn(12) && connections > ANSWERED) {
      tell("silence"); // takes all, gives nothing
      client.resume();
      return;
    }
    void pump(client, target, () => random.below(DELAY_MS_MAX), random).catch(end);
    void pumpBack({ target, client, random }).catch(end);
  });
  server.listen(0, "127.0.0.1", () => {
    const address = server.address();
    tell(typeof address === "object" && address !== null ? String(address.port) : "");
  });
}

/** The answers: it is they that are cut. */
async function pumpBack(ends: {
  readonly target: Socket;
  readonly client: Socket;
  readonly random: SeededRandom;
}): Promise<void> {
  const { target, client, random } = ends;
  const resetAt = random.oneIn(2) ? random.between(1, RESET_BYTES_MAX) : Number.POSITIVE_INFINITY;
  const stallAt = random.oneIn(3) ? random.below(2 ** 20) : Number.POSITIVE_INFINITY;
  let isStalled = false;
  let passed = 0;
  const delay = (bytes: number) => {
    passed += bytes;
    if (passed >= resetAt) {
      tell("reset");
      client.resetAndDestroy();
      target.destroy();
    }
    if (passed >= stallAt && !isStalled) {
      isStalled = true;
      tell("stall");
      return STALL_MS;
    }
    return random.below(DELAY_MS_MAX);
  };
  await pump(target, client, delay, random);
}

async function pump(
  from: Socket,
  to: Socket,
  delayOf: (bytes: number) => number,
  random: SeededRandom,
): Promise<void> {
  for await (const chunk of from) {
    const bytes: Buffer = chunk;
    for (let done = 0; done < bytes.length; ) {
      const part = bytes.subarray(done, done + random.between(1, 64 * 1024));
      await Bun.sleep(delayOf(part.length));
      if (to.destroyed) {
        return;
      }
      to.write(part);
      done += part.length;
    }
  }
  to.end();
}

function tell(line: string): void {
  process.stdout.write(`${line}\n`);
}

if (import.meta.main) {
  serve(Number(process.argv[2]), Number(process.argv[3]));
}
