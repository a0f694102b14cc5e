/** The entry of the executable: the command line on the main thread. */
export {};

if (Bun.isMainThread) {
  void import("./commands/command-line.ts").then(({ runCommandLine }) =>
    runCommandLine(process.argv.slice(2)),
  );
}
