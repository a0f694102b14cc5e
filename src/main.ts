/** The entry of the executable: the command line on the main thread, a role on every other. */
export {};

if (Bun.isMainThread) {
  process.on("SIGUSR2", () => {}); // which would end the process; commands that serve listen to it
  void import("./commands/command-line.ts").then(({ runCommandLine }) =>
    runCommandLine(process.argv.slice(2), process.argv0),
  );
} else {
  addEventListener(
    "message",
    ({ data }) => void import("./worker.ts").then(({ runWorker }) => runWorker(data)),
    { once: true },
  );
}
