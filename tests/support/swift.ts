/**
 * OpenStack Swift with its S3 interface for one test file (swift-server.py): a service that others run in
 * production, on loopback, with its data in a folder that goes away with it.
 */
import { existsSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { S3StoreDescription } from "../../src/archive/s3-description.ts";
import { createSharedLimits } from "../../src/archive/s3-limits.ts";
import { S3Signer } from "../../src/archive/s3-signer.ts";
import { fixedCredentials } from "./fixed-credentials.ts";

const PYTHON = "/usr/bin/python3";
const START_TIMEOUT_MS = 60_000;
const STOP_TIMEOUT_MS = 10_000;

export const SWIFT_CREDENTIALS = {
  accessKeyId: "test:tester",
  secretAccessKey: "testing/secret+key",
  region: "us-east-1",
} as const;

export function isSwiftInstalled(): boolean {
  return existsSync("/usr/lib/python3/dist-packages/swift/proxy/server.py");
}

export class Swift implements AsyncDisposable {
  /** For `endpoint` of a document. */
  readonly endpoint: string;
  readonly #process: Bun.Subprocess<"ignore", "pipe", "pipe">;
  readonly #folder: string;

  private constructor(
    process: Bun.Subprocess<"ignore", "pipe", "pipe">,
    folder: string,
    port: number,
  ) {
    this.#process = process;
    this.#folder = folder;
    this.endpoint = `http://127.0.0.1:${port}`;
  }

  static async start(): Promise<Swift> {
    const folder = mkdtempSync(join(tmpdir(), "ubiblk-swift-"));
    const { accessKeyId, secretAccessKey } = SWIFT_CREDENTIALS;
    const script = join(import.meta.dir, "swift-server.py");
    const child = Bun.spawn(
      [PYTHON, "-W", "ignore", script, folder, accessKeyId, secretAccessKey],
      { stdin: "ignore", stdout: "pipe", stderr: "pipe" },
    );
    const late = setTimeout(() => child.kill("SIGKILL"), START_TIMEOUT_MS);
    const port = await firstNumber(child.stdout);
    clearTimeout(late);
    if (port === undefined) {
      rmSync(folder, { recursive: true, force: true });
      throw new Error(`Swift did not start: ${(await child.stderr.text()).trim().slice(-2000)}`);
    }
    return new Swift(child, folder, port);
  }

  /** For a store of a bucket that is made by this. */
  async description(bucket: string): Promise<S3StoreDescription> {
    const url = `${this.endpoint}/${bucket}`;
    const { region, ...key } = SWIFT_CREDENTIALS;
    const request = { method: "PUT", url, headers: {}, body: undefined };
    const headers = await new S3Signer(key, region).sign(request);
    const response = await fetch(url, { method: "PUT", headers });
    if (!response.ok) {
      throw new Error(`the bucket ${bucket} cannot be made: ${await response.text()}`);
    }
    return {
      kind: "s3",
      role: "write",
      bucket,
      prefix: "",
      endpoint: this.endpoint,
      isPathStyleForced: false,
      region,
      credentials: fixedCredentials(key),
      connections: 8,
      connectTimeoutMs: 5000,
      attemptTimeoutMs: 20_000,
      attemptsMax: 3,
      rateLimitedRetry: undefined,
      caCertificates: undefined,
      storageClass: undefined,
      serverSideEncryption: undefined,
      checksums: "always",
      shared: createSharedLimits(8),
    };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#process.kill("SIGTERM");
    const late = setTimeout(() => this.#process.kill("SIGKILL"), STOP_TIMEOUT_MS);
    await this.#process.exited;
    clearTimeout(late);
    rmSync(this.#folder, { recursive: true, force: true });
  }
}

/** The first line, when it is a number; undefined when the stream ends before. */
async function firstNumber(stream: ReadableStream<Uint8Array>): Promise<number | undefined> {
  const decoder = new TextDecoder();
  let text = "";
  const reader = stream.getReader();
  while (!text.includes("\n")) {
    const { done, value } = await reader.read();
    if (done) {
      return undefined;
    }
    text += decoder.decode(value, { stream: true });
  }
  reader.releaseLock();
  return Number(text.split("\n")[0]);
}
