/** The completion script for zsh: `_arguments` does the work for each place. */
import type { CommandOutline, FlagOutline, ValueOutline } from "./command-outline.ts";
import { type CompletionFacts, innerPlaces, placeOf, quoted } from "./completion-facts.ts";

export function zshCompletion(facts: CompletionFacts): string {
  const { program, links, outlines } = facts;
  const inner = innerPlaces(facts).map(quoted).join("|");
  return `#compdef ${[program, ...links.map(({ name }) => name)].join(" ")}
# zsh completion for ${program}, made by \`${program} completions zsh\`

_${program}() {
  local place
  integer at=2
  case \${service:-$words[1]} in
${links.map(({ name, place }) => `    ${name}) place=${quoted(place)} ;;`).join("\n")}
    *) place=${program} ;;
  esac
  while (( at < CURRENT )); do
    case "$place $words[at]" in
      ${inner}) place+=" $words[at]" ;;
      '${program} help') ;;
      *) break ;;
    esac
    (( at++ ))
  done
  # What led to the place counts as one word.
  words=("$place" "\${(@)words[at,-1]}")
  (( CURRENT -= at - 2 ))
  local -a names
  case $place in
${outlines.map(placeCase).join("\n")}
  esac
}

_${program} "$@"
`;
}

// --- internal ---

function placeCase(outline: CommandOutline): string {
  const specs = [
    ...outline.flags.map(flagSpec),
    ...outline.words.map(({ name, isRepeated, value }) =>
      quoted(`${isRepeated ? "*" : ""}:${inSpec(name)}:${actionOf(value)}`),
    ),
  ];
  const tools =
    outline.tools.length === 0
      ? ""
      : `      if (( CURRENT == 2 )); then
        names=(${outline.tools.map(described).join(" ")})
        _describe -t commands tool names
      fi\n`;
  return `    ${quoted(placeOf(outline))})\n${tools}      _arguments -s ${specs.join(" ")}\n      ;;`;
}

/** A flag with two names counts as given when one of them was. */
function flagSpec({ names, value, description }: FlagOutline): string {
  const text = `[${inSpec(description)}]`;
  const rest =
    value === undefined ? text : `${text}:${inSpec(value.hint.toLowerCase())}:${actionOf(value)}`;
  return names
    .map((name) => {
      const takesEqual = value !== undefined && name.startsWith("--") ? "=" : "";
      return quoted(`(${names.join(" ")})${name}${takesEqual}${rest}`);
    })
    .join(" ");
}

function actionOf(value: ValueOutline): string {
  if (value.isPath) {
    return "_files";
  }
  return value.choices.length > 0 ? `(${value.choices.join(" ")})` : " ";
}

function described({ name, description }: CommandOutline["tools"][number]): string {
  return quoted(`${name}:${description}`);
}

/** Colons and brackets end a part of a specification. */
function inSpec(text: string): string {
  return text.replace(/[\\:[\]]/g, (character) => `\\${character}`);
}
