/** The one line of a worker's uncaught error that tells what happened. */

/**
 * @param message of the worker's error event: the text of the thrown error, in a compiled executable
 * wrapped in an excerpt of the minified code and a stack
 */
export function failureLine(message: string): string {
  const lines = message.split("\n");
  const named = lines.find((line) => /^\w*Error: /.test(line));
  return named ?? lines.find((line) => line.trim() !== "") ?? "for an unknown reason";
}
