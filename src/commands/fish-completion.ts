/** The completion script for fish. */
import type { CommandOutline, FlagOutline, ValueOutline } from "./command-outline.ts";
import { type CompletionFacts, innerPlaces, placeOf } from "./completion-facts.ts";

export function fishCompletion(facts: CompletionFacts): string {
  const { program, links, outlines } = facts;
  const inner = innerPlaces(facts).map(quoted).join(" ");
  const lines = [
    `complete -c ${program} -f`,
    ...outlines.flatMap(placeLines),
    ...links.map(({ name, place }) => `complete -c ${name} -w ${quoted(place)}`),
  ];
  return `# fish completion for ${program}, made by \`${program} completions fish\`

function __${program}_place
    set -l words (commandline -opc)
    set -l place ${program}
    for word in $words[2..]
        switch "$place $word"
            case ${inner}
                set place "$place $word"
            case '${program} help'
            case '*'
                break
        end
    end
    echo $place
end

${lines.join("\n")}
`;
}

// --- internal ---

function placeLines(outline: CommandOutline): readonly string[] {
  const place = placeOf(outline);
  const at = condition(place);
  const values = outline.words.flatMap(({ value, description }) =>
    value.isPath
      ? [`complete -c ubiblk ${at} -F`]
      : value.choices.map((choice) => wordLine(place, choice, description)),
  );
  return [
    ...outline.tools.map(({ name, description }) => wordLine(place, name, description)),
    ...outline.flags.map((flag) => flagLine(at, flag)),
    ...new Set(values),
  ];
}

function wordLine(place: string, word: string, description: string): string {
  return `complete -c ubiblk ${condition(place)} -a ${word} -d ${quoted(description)}`;
}

function flagLine(at: string, { names, value, description }: FlagOutline): string {
  const forms = names.map((name) =>
    name.startsWith("--") ? `-l ${name.slice(2)}` : `-s ${name.slice(1)}`,
  );
  return `complete -c ubiblk ${at} ${forms.join(" ")}${takes(value)} -d ${quoted(description)}`;
}

function takes(value: ValueOutline | undefined): string {
  if (value === undefined) {
    return "";
  }
  if (value.isPath) {
    return " -r -F";
  }
  return value.choices.length > 0 ? ` -x -a ${quoted(value.choices.join(" "))}` : " -x";
}

function condition(place: string): string {
  return `-n 'test "$(__ubiblk_place)" = "${place}"'`;
}

/** In fish a backslash stands for itself in single quotes, unless a quote or another one follows. */
function quoted(text: string): string {
  return `'${text.replace(/[\\']/g, (character) => `\\${character}`)}'`;
}
