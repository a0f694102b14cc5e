/**
 * The fuzz targets of the native library under the address and undefined-behaviour sanitizers: with all inputs that a
 * fuzzer found to reach something new, and with changes of them that a seed makes. `npm run fuzz` looks for new ones.
 */
import { afterAll, expect, test } from "bun:test";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { runCommand } from "../../scripts/command.ts";
import { FUZZ_SEED } from "../support/fuzz-seed.ts";
import { rounds } from "../support/requires.ts";
import { buildReplay, corpusOf, NATIVE_TARGETS } from "./native/targets.ts";

const LONG_FACTOR = 100;
const folder = mkdtempSync(join(tmpdir(), "ubiblk-native-"));

afterAll(() => rmSync(folder, { recursive: true }));

test.each(NATIVE_TARGETS.map((target) => ({ target, name: target.name })))(
  `native target $name, from seed ${FUZZ_SEED}: nothing that a sanitizer finds, and all as it must be`,
  async ({ target }) => {
    const program = await buildReplay(target, folder);
    const runs = target.runs * rounds(1, LONG_FACTOR);
    const words = [program, corpusOf(target), `${FUZZ_SEED}`, `${runs}`];
    const env = { ...process.env, TMPDIR: folder };
    const result = await runCommand(words, { env, timeoutMs: 1_800_000 });
    expect(result.stderr.slice(0, 4000)).toBe("");
    expect(result.stdout).toMatch(new RegExp(`^\\d+ cases, ${runs} runs\n$`));
  },
  1_800_000,
);
