/** Reads the JUnit file that `bun test` writes for one test file. */

export type Outcome = "passed" | "failed" | "skipped";

export interface TestCase {
  readonly name: string;
  readonly outcome: Outcome;
}

/** All test cases of a report, in order. Unreadable text has none. */
export function parseReport(xml: string): readonly TestCase[] {
  const cases: TestCase[] = [];
  for (const match of xml.matchAll(/<testcase\b([^>]*?)(\/>|>([\s\S]*?)<\/testcase>)/g)) {
    const attributes = match[1] ?? "";
    const body = match[3] ?? "";
    const group = attribute(attributes, "classname");
    const name = attribute(attributes, "name");
    cases.push({
      name: group === "" ? name : `${group} > ${name}`,
      outcome: outcomeOf(body),
    });
  }
  return cases;
}

// --- internal ---

const ENTITIES: Readonly<Record<string, string>> = {
  "&lt;": "<",
  "&gt;": ">",
  "&quot;": '"',
  "&apos;": "'",
  "&amp;": "&",
};

function outcomeOf(body: string): Outcome {
  if (/<(failure|error)\b/.test(body)) {
    return "failed";
  }
  return /<skipped\b/.test(body) ? "skipped" : "passed";
}

function attribute(attributes: string, name: string): string {
  const value = new RegExp(`\\b${name}="([^"]*)"`).exec(attributes)?.[1] ?? "";
  return value
    .replace(/&#(\d+);/g, (_, code: string) => String.fromCodePoint(Number(code)))
    .replace(/&(lt|gt|quot|apos|amp);/g, (entity) => ENTITIES[entity] ?? entity);
}
