/** SIGINT and SIGTERM for commands that work on something: the first ends the work, the second the process. */
import { UbiError } from "../errors.ts";

/** The exit code of work that was ended by a signal. */
export const INTERRUPTED_EXIT_CODE = 130;
/** Within this time the same signal is an echo: timeout(1) and others send theirs to process and group. */
const ECHO_MS = 100;

/**
 * Runs `work`, whose signal is aborted with an `E_INTERRUPTED`.
 * @param what for the message: "the archive"
 */
export async function interruptible<T>(
  what: string,
  work: (signal: AbortSignal) => Promise<T>,
): Promise<T> {
  const controller = new AbortController();
  let firstMs = 0;
  const listener = (name: string) => {
    if (!controller.signal.aborted) {
      firstMs = performance.now();
      controller.abort(new UbiError("E_INTERRUPTED", `${what} was interrupted by ${name}`));
    } else if (performance.now() - firstMs > ECHO_MS) {
      process.exit(INTERRUPTED_EXIT_CODE);
    }
  };
  process.on("SIGINT", listener).on("SIGTERM", listener);
  try {
    return await work(controller.signal);
  } finally {
    process.off("SIGINT", listener).off("SIGTERM", listener);
  }
}
