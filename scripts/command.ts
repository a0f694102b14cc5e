/** Runs other programs for the scripts, always with a deadline. */

export interface CommandOptions {
  readonly cwd?: string;
  readonly env?: Readonly<Record<string, string | undefined>>;
  readonly timeoutMs?: number;
  /** Ends it before its time: its exit code tells. */
  readonly signal?: AbortSignal;
}

export interface CommandResult {
  /** The exit code, or 128 + signal number as a shell tells it. */
  readonly exitCode: number;
  readonly stdout: string;
  readonly stderr: string;
  readonly durationMs: number;
  readonly isTimedOut: boolean;
}

/** Runs `command` to its end and keeps what it prints. Never throws for an exit code. */
export async function runCommand(
  command: readonly string[],
  options: CommandOptions = {},
): Promise<CommandResult> {
  const startMs = performance.now();
  const deadlineMs = options.timeoutMs ?? 120_000;
  const child = Bun.spawn([...command], {
    cwd: options.cwd ?? process.cwd(),
    env: options.env ?? process.env,
    stdin: "ignore",
    stdout: "pipe",
    stderr: "pipe",
  });
  let isTimedOut = false;
  const kill = () => child.kill("SIGKILL");
  const timer = setTimeout(() => {
    isTimedOut = true;
    kill();
  }, deadlineMs);
  options.signal?.addEventListener("abort", kill);
  try {
    const [stdout, stderr, exitCode] = await Promise.all([
      child.stdout.text(),
      child.stderr.text(),
      child.exited,
    ]);
    return { exitCode, stdout, stderr, durationMs: performance.now() - startMs, isTimedOut };
  } finally {
    clearTimeout(timer);
  }
}

/** `runCommand` for a program that must succeed: returns what it printed. @throws Error otherwise */
export async function outputOf(
  command: readonly string[],
  options: CommandOptions = {},
): Promise<string> {
  const result = await runCommand(command, options);
  if (result.exitCode !== 0 || result.isTimedOut) {
    const reason = result.isTimedOut ? "ran out of time" : `exit code ${result.exitCode}`;
    throw new Error(`${command.join(" ")}: ${reason}\n${result.stdout}${result.stderr}`.trimEnd());
  }
  return result.stdout;
}
