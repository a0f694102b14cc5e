/** `ubiblk completions`: what a shell needs to complete the command line, made of the tree of commands. */
import { defineCommand } from "citty";
import { bashCompletion } from "./bash-completion.ts";
import type { CommandEntry } from "./command-entry.ts";
import { COMMON_FLAGS, rootOutline, wholeOutline } from "./command-outline.ts";
import type { CompletionFacts } from "./completion-facts.ts";
import { fishCompletion } from "./fish-completion.ts";
import { writePieces } from "./standard-output.ts";
import { zshCompletion } from "./zsh-completion.ts";

export interface CommandTree {
  readonly commands: Readonly<Record<string, CommandEntry>>;
  /** Other names of the program, and the command that each means. */
  readonly links: Readonly<Record<string, string>>;
}

/** The command, which completes `tree`: that of which it is a part. */
export function completionsOf(tree: CommandTree) {
  return defineCommand({
    meta: {
      name: "completions",
      description:
        "Writes a script that teaches a shell commands, flags, choices and where files are wanted. Packages bring it " +
        "with them",
    },
    args: {
      shell: {
        type: "positional",
        required: true,
        choices: ["bash", "zsh", "fish"],
        description: "bash, zsh or fish",
      },
    },
    run: async ({ args }) => {
      writePieces(1, [scriptOf(args.shell, await completionFacts(tree))]);
    },
  });
}

/** The links whose arguments are completed: not those with names that programs of others may well have. */
export function completedLinks(links: CommandTree["links"]): readonly string[] {
  return Object.keys(links).filter((name) => name !== "archive" && name !== "xts");
}

// --- internal ---

const PROGRAM = "ubiblk";

async function completionFacts({ commands, links }: CommandTree): Promise<CompletionFacts> {
  const root = rootOutline(PROGRAM, "", commands);
  const outlines = [root, ...(await wholeOutline(commands, [PROGRAM]))];
  return {
    program: PROGRAM,
    outlines: outlines.map((each) => ({ ...each, flags: [...each.flags, ...COMMON_FLAGS] })),
    links: completedLinks(links).map((name) => ({ name, place: `${PROGRAM} ${links[name]}` })),
  };
}

function scriptOf(shell: string, facts: CompletionFacts): string {
  switch (shell) {
    case "zsh":
      return zshCompletion(facts);
    case "fish":
      return fishCompletion(facts);
    default:
      return bashCompletion(facts);
  }
}
