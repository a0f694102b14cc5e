/** The units of docs/systemd, as systemd itself reads and judges them. */
import { expect } from "bun:test";
import { cpSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { EXECUTABLE } from "../support/backend.ts";
import { skipUnlessInstalled } from "../support/requires.ts";

const UNITS = resolve(import.meta.dir, "..", "..", "docs", "systemd");
const NAMES = readdirSync(UNITS).filter((name) => name.includes("@."));
const test = skipUnlessInstalled("systemd-analyze");

test("there are a service for each program that serves, and a socket", () => {
  expect(NAMES.sort()).toEqual([
    "ubiblk-stripe-server@.service",
    "ubiblk-ublk@.service",
    "ubiblk-vhost@.service",
    "ubiblk-vhost@.socket",
  ]);
});

for (const name of NAMES) {
  test(`${name}: systemd finds nothing wrong`, () => {
    using units = new UnitFolder();
    const { exitCode, output } = units.analyze("verify", "--man=no", units.instance(name));
    expect(output).toBe("");
    expect(exitCode).toBe(0);
  });
}

for (const name of NAMES.filter((each) => each.endsWith(".service"))) {
  test(`${name}: its exposure is not above 3.0 of 10`, () => {
    using units = new UnitFolder();
    const unit = units.instance(name);
    const { exitCode, output } = units.analyze(
      "security",
      "--offline=true",
      "--threshold=30",
      unit,
    );
    expect(exitCode === 0 ? "" : output).toBe("");
    expect(output).toContain("Overall exposure level");
  });
}

// --- internal ---

/** The units with an executable that is there, each as an instance. */
class UnitFolder implements Disposable {
  readonly #path = mkdtempSync(join(tmpdir(), "ubiblk-units-"));

  constructor() {
    cpSync(UNITS, this.#path, { recursive: true });
    for (const name of NAMES) {
      const text = readFileSync(join(UNITS, name), "utf8");
      writeFileSync(this.instance(name), text.replaceAll("/usr/bin/ubiblk", EXECUTABLE));
    }
  }

  instance(name: string): string {
    return join(this.#path, name.replace("@.", "@disk1."));
  }

  analyze(verb: string, ...words: readonly string[]) {
    const command = ["systemd-analyze", "--no-pager", verb, ...words];
    const { exitCode, stdout, stderr } = Bun.spawnSync(command, { cwd: this.#path });
    return { exitCode, output: `${stdout}${stderr}` };
  }

  [Symbol.dispose](): void {
    rmSync(this.#path, { recursive: true });
  }
}
