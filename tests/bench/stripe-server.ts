/** A stripe server for the benchmark: a plain disk over TLS-PSK on a free port of loopback, and clients that only wait. */
import { closeSync, mkdirSync, openSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { EXECUTABLE, writeDiskConfig } from "../support/backend.ts";
import { PERMISSION } from "./archive-disk.ts";

export const IDLE_CLIENTS = 8;
const START_TIMEOUT_MS = 15_000;
const IDENTITY = "bench";

type Process = ReturnType<typeof Bun.spawn>;

export class StripeServer implements AsyncDisposable {
  /** Lines of `[stripe_source]` for its clients. */
  readonly source: string;
  /** Sections that `source` refers to. */
  readonly secrets: string;
  readonly #child: Process;
  readonly #address: string;
  readonly #pskHex: string;

  private constructor(parts: {
    readonly child: Process;
    readonly address: string;
    readonly pskPath: string;
  }) {
    const { child, address, pskPath } = parts;
    this.#child = child;
    this.#address = address;
    this.#pskHex = readFileSync(pskPath).toString("hex");
    const psk = `psk = { identity = "${IDENTITY}", secret.ref = "psk" }`;
    this.source = `type = "remote"\naddress = "${address}"\n${psk}`;
    this.secrets = secretSection(pskPath);
  }

  /** Serves all of a plain file. */
  static async start(folder: string, dataPath: string): Promise<StripeServer> {
    const place = join(folder, "served");
    mkdirSync(place, { recursive: true });
    const pskPath = join(place, "psk");
    writeFileSync(pskPath, crypto.getRandomValues(new Uint8Array(32)), { mode: 0o600 });
    const { configPath } = writeDiskConfig({ folder: place, dataPath, isEncrypted: false });
    const listen = join(place, "listen.toml");
    const psk = `psk = { identity = "${IDENTITY}", secret.ref = "psk" }`;
    const server = `[server]\naddress = "127.0.0.1:0"\n${psk}`;
    writeFileSync(listen, `${server}\n${secretSection(pskPath)}${PERMISSION}`, { mode: 0o600 });
    const logPath = join(place, "server.log");
    const logFd = openSync(logPath, "w");
    const command = [EXECUTABLE, "stripe-server", "-f", configPath, "--listen-config", listen];
    const env = { ...process.env, UBIBLK_LOG: undefined };
    const child = Bun.spawn(command, { stdin: "ignore", stdout: logFd, stderr: logFd, env });
    closeSync(logFd);
    const address = await addressIn(logPath, child);
    return new StripeServer({ child, address, pskPath });
  }

  get pid(): number {
    return this.#child.pid;
  }

  /** Connections with a handshake behind them that ask for nothing. */
  async attachIdleClients(): Promise<Disposable> {
    const cipher = ["-tls1_2", "-cipher", "PSK-AES256-GCM-SHA384"];
    const psk = ["-psk_identity", IDENTITY, "-psk", this.#pskHex];
    const clients = Array.from({ length: IDLE_CLIENTS }, () =>
      Bun.spawn(["openssl", "s_client", "-quiet", "-connect", this.#address, ...cipher, ...psk], {
        stdin: "pipe",
        stdout: "ignore",
        stderr: "ignore",
      }),
    );
    await Bun.sleep(1000);
    if (clients.some(({ exitCode }) => exitCode !== null)) {
      throw new Error("a client of the stripe server has ended by itself");
    }
    return {
      [Symbol.dispose]: () => {
        for (const client of clients) {
          client.kill();
        }
      },
    };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#child.kill("SIGTERM");
    await this.#child.exited;
  }
}

// --- internal ---

function secretSection(path: string): string {
  return `[secrets.psk]\nsource.file = "${path}"\n`;
}

async function addressIn(logPath: string, child: Process): Promise<string> {
  const deadlineMs = performance.now() + START_TIMEOUT_MS;
  for (;;) {
    const text = readFileSync(logPath, "utf8");
    const address = /listening on (\S+:\d+)/.exec(text)?.[1];
    if (address !== undefined) {
      return address;
    }
    if (child.exitCode !== null || performance.now() > deadlineMs) {
      throw new Error(`the stripe server does not listen:\n${text}`);
    }
    await Bun.sleep(5);
  }
}
