/**
 * What the kernel may let wait for requests of the device that this process serves is done by another process, which
 * holds nothing of this one. Otherwise, killed meanwhile, this process could not end before those requests are done,
 * they wait for the next server of a recoverable device, and that waits for the end of this process.
 */
import { UbiError } from "../errors.ts";

/** What the shell answers when it cannot run a program, or does not find it. */
const NOT_RUN: readonly number[] = [126, 127];

/** Whoever stops this process, and with it all of its group, does not mean what this one still wants done. */
const DEAF = "trap '' HUP INT TERM; ";

/**
 * Runs a line of the shell, whose `$0` is `path`, to its end.
 * @returns false where there is no shell, or not the program that the line names
 * @throws UbiError E_UBLK_DEVICE with what it complained of
 */
export async function runApart(line: string, path: string): Promise<boolean> {
  const child = spawn(line, path);
  if (child === undefined) {
    return false;
  }
  child.unref();
  const complaint = await child.stderr.text();
  const exitCode = await child.exited;
  if (exitCode !== 0 && !NOT_RUN.includes(exitCode)) {
    throw new UbiError("E_UBLK_DEVICE", complaint.trim() || `it ended with ${exitCode}`);
  }
  return exitCode === 0;
}

// --- internal ---

function spawn(line: string, path: string): Bun.Subprocess<"ignore", "ignore", "pipe"> | undefined {
  try {
    return Bun.spawn(["/bin/sh", "-c", `${DEAF}${line}`, path], {
      stdio: ["ignore", "ignore", "pipe"],
      detached: true,
      env: { PATH: "/usr/sbin:/usr/bin:/sbin:/bin" },
    });
  } catch {
    return undefined;
  }
}
