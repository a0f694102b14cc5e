/**
 * The disk as a Linux block device: the compiled executable in a guest whose kernel has the ublk driver,
 * driven by that kernel, its file system and its tools. The machine's own kernel needs nothing.
 */
import { expect } from "bun:test";
import { skipUnless } from "../support/requires.ts";
import { missingForUblkGuest, runUblkGuest } from "../support/ublk-guest.ts";

for (const suite of ["trixie", "sid"] as const) {
  const missing = missingForUblkGuest(suite);
  skipUnless(missing ?? "", missing === undefined)(
    `${suite}'s kernel: the driver is there, the executable runs`,
    async () => {
      const script = "test -c /dev/ublk-control\nubiblk --version\n";
      const { exitCode, output, console } = await runUblkGuest({ suite, script });
      expect(exitCode === 0 ? "" : console + output).toBe("");
      expect(output).toMatch(/^ubiblk \d/);
    },
    60_000,
  );
}
