/** The commands that documents tell readers to type. */
import { readFileSync } from "node:fs";
import { join, resolve } from "node:path";

const ROOT = resolve(import.meta.dir, "..", "..");

/** The commands of a chapter, up to the next heading of any kind. @throws Error when it has none */
export function commandsOf(document: string, title: string): string {
  const text = readFileSync(join(ROOT, document), "utf8");
  const [, behind = ""] = text.split(`# ${title}\n`);
  const [chapter = ""] = behind.split(/^#+ /m);
  const blocks = [...chapter.matchAll(/^```sh\n(.*?)^```$/gms)].map((block) => block[1] ?? "");
  if (blocks.length === 0) {
    throw new Error(`${document} has no commands under "${title}"`);
  }
  return blocks.join("");
}
