/** The completion script for bash 4 and later; asks for nothing but bash itself. */
import type { CommandOutline, ValueOutline } from "./command-outline.ts";
import { type CompletionFacts, innerPlaces, placeOf, quoted } from "./completion-facts.ts";

export function bashCompletion(facts: CompletionFacts): string {
  const { program, links, outlines } = facts;
  const inner = innerPlaces(facts).map(quoted).join(" | ");
  return `# bash completion for ${program}, made by \`${program} completions bash\`

_${program}_words() { mapfile -t COMPREPLY < <(compgen -W "$1" -- "$current"); }

_${program}_files() {
  compopt -o filenames 2>/dev/null
  mapfile -t COMPREPLY < <(compgen -f -- "$current")
}

# Sets position: how many words that are no flags stand behind the place; $2... are flags that take a value.
_${program}_position() {
  local -i at=$1
  local flags=" \${*:2} "
  position=0
  for ((; at < COMP_CWORD; at++)); do
    if [[ \${COMP_WORDS[at]} != -* ]]; then
      ((position += 1))
    elif [[ $flags == *" \${COMP_WORDS[at]} "* ]]; then
      if [[ \${COMP_WORDS[at + 1]} == = ]]; then ((at += 1)); fi
      ((at += 1))
    fi
  done
}

_${program}() {
  local current=\${COMP_WORDS[COMP_CWORD]} previous=\${COMP_WORDS[COMP_CWORD - 1]} place i position
  COMPREPLY=()
  # A word with "=" comes in three.
  if [[ $current == = ]]; then
    current=
  elif [[ $previous == = ]] && ((COMP_CWORD > 1)); then
    previous=\${COMP_WORDS[COMP_CWORD - 2]}
  fi
  case \${COMP_WORDS[0]##*/} in
${links.map(({ name, place }) => `    ${name}) place=${quoted(place)} ;;`).join("\n")}
    *) place=${program} ;;
  esac
  for ((i = 1; i < COMP_CWORD; i++)); do
    case "$place \${COMP_WORDS[i]}" in
      ${inner}) place+=" \${COMP_WORDS[i]}" ;;
      '${program} help') ;;
      *) break ;;
    esac
  done
  case "$place $previous" in
${outlines.flatMap(valueCases).join("\n")}
  esac
  case $place in
${outlines.map(placeCase).join("\n")}
  esac
}

complete -F _${program} ${[program, ...links.map(({ name }) => name)].join(" ")}
`;
}

// --- internal ---

/** What follows a flag that takes a value. */
function valueCases(outline: CommandOutline): readonly string[] {
  const place = placeOf(outline);
  return outline.flags.flatMap(({ names, value }) => {
    if (value === undefined) {
      return [];
    }
    const pattern = names.map((name) => quoted(`${place} ${name}`)).join(" | ");
    const offered = value.isPath
      ? "_ubiblk_files; "
      : value.choices.length > 0
        ? `_ubiblk_words ${quoted(value.choices.join(" "))}; `
        : "";
    return [`    ${pattern}) ${offered}return ;;`];
  });
}

/** Flags when one is begun, else tools, or what the command's words are. */
function placeCase(outline: CommandOutline): string {
  const { flags, tools, words } = outline;
  const names = flags.flatMap((flag) => flag.names).filter((name) => name.startsWith("--"));
  const offerFlags = `_ubiblk_words ${quoted(names.join(" "))}`;
  const [first, ...others] = words.map(({ value }) => value);
  const firstWords = [...tools.map(({ name }) => name), ...(first?.choices ?? [])];
  const offerFirst = first?.isPath
    ? "_ubiblk_files"
    : firstWords.length > 0
      ? `_ubiblk_words ${quoted(firstWords.join(" "))}`
      : offerFlags;
  const isUniform = others.every((value) => value.isPath === first?.isPath);
  const offerWords = isUniform
    ? offerFirst
    : `_ubiblk_position "$i" ${valueFlags(outline)}; case $position in 0) ${offerFirst} ;; ${others.map(offerOther).join(" ")} esac`;
  return `    ${quoted(placeOf(outline))}) if [[ $current == -* ]]; then ${offerFlags}; else ${offerWords}; fi ;;`;
}

function valueFlags({ flags }: CommandOutline): string {
  const taking = flags.filter(({ value }) => value !== undefined);
  return taking.flatMap(({ names }) => names).join(" ");
}

function offerOther(value: ValueOutline, index: number): string {
  const offered = value.isPath
    ? "_ubiblk_files"
    : `_ubiblk_words ${quoted(value.choices.join(" "))}`;
  return `${index + 1}) ${offered} ;;`;
}
