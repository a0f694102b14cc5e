/** The S3 service of these tests in a process of its own, for tests that block their thread. */
import { S3Server } from "./s3-server.ts";

const START_MS = 10_000;

export class S3Process implements Disposable {
  readonly port: number;
  readonly #child: Bun.Subprocess;

  private constructor(child: Bun.Subprocess, port: number) {
    this.#child = child;
    this.port = port;
  }

  static async start(): Promise<S3Process> {
    const child = Bun.spawn([process.execPath, import.meta.path], {
      stdin: "ignore",
      stdout: "pipe",
      stderr: "inherit",
    });
    const timer = setTimeout(() => child.kill(), START_MS);
    for await (const bytes of child.stdout) {
      clearTimeout(timer);
      return new S3Process(child, Number(new TextDecoder().decode(bytes)));
    }
    throw new Error("the S3 service does not start");
  }

  [Symbol.dispose](): void {
    this.#child.kill();
  }
}

if (import.meta.main) {
  process.stdout.write(`${new S3Server().port}\n`);
}
