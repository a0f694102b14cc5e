/** Figures that tests found, for docs/reliability.md: one file each in build/figures, of the last run. */
import { mkdirSync, writeFileSync } from "node:fs";
import { join, resolve } from "node:path";

const FOLDER = resolve(import.meta.dir, "..", "..", "build", "figures");

export type Figures = Readonly<Record<string, number>>;

const sums = new Map<string, Figures>();

/**
 * Notes what a test found. What several tests of one file find under one name is added up.
 * @param figures by the names that a row of the page uses
 */
export function addFigures(name: string, figures: Figures): void {
  const before = sums.get(name) ?? {};
  const added = Object.entries(figures).map(([key, value]) => [key, (before[key] ?? 0) + value]);
  const sum = Object.fromEntries(added);
  sums.set(name, sum);
  mkdirSync(FOLDER, { recursive: true });
  writeFileSync(join(FOLDER, `${name}.json`), `${JSON.stringify(sum, null, 2)}\n`);
}
