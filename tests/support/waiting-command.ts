/** Commands that wait for something, for tests of what a signal does to them. */
import { EXECUTABLE } from "./backend.ts";
import { until } from "./until.ts";

export interface EndedCommand {
  readonly exitCode: number;
  /** Standard error. */
  readonly told: string;
}

/**
 * Runs a command until its log says that it waits for the writer of a secret's pipe, then sends it a signal.
 * @param words behind the program's name
 */
export async function endWhileItWaits(
  words: readonly string[],
  signal: "SIGINT" | "SIGTERM",
  folder: string,
): Promise<EndedCommand> {
  const child = Bun.spawn([EXECUTABLE, ...words], {
    cwd: folder,
    env: { ...process.env, UBIBLK_LOG: "info" },
    stdout: "ignore",
    stderr: "pipe",
  });
  let told = "";
  const reading = (async () => {
    for await (const piece of child.stderr.pipeThrough(new TextDecoderStream())) {
      told += piece;
    }
  })();
  try {
    await until("the command waits", () => told.includes("waiting for secret"));
    child.kill(signal);
    const exitCode = await child.exited;
    await reading;
    return { exitCode, told };
  } finally {
    child.kill("SIGKILL");
  }
}
