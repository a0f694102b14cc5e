/** The questions of `ubiblk init`, for what its flags leave open. Each has a default; an answer that is wrong is asked for again. */
import { UbiError } from "../errors.ts";
import { pathStatus } from "../init/path-status.ts";
import type { InitFlags } from "./init-flags.ts";
import { sizeArgument } from "./size-argument.ts";
import type { Questioner } from "./terminal-lines.ts";

/** The flags with the answers; flags that were given stay as they are. */
export async function askForFlags(given: InitFlags, terminal: Questioner): Promise<InitFlags> {
  const form = new Form(terminal);
  terminal.say("A new disk. Enter takes what stands in brackets, Ctrl-C makes nothing.\n\n");
  const place = {
    dir: given.dir ?? (await form.text("Folder to make it in", ".")),
    size:
      given.size ??
      (given.disk === undefined ? await form.text("Size", "1G", checkSize) : undefined),
  };
  const flags = { ...given, ...place };
  const withSource = hasSource(flags) ? flags : await askForSource(flags, form);
  const withKey = hasKey(withSource) ? withSource : await askForKey(withSource, form);
  return {
    ...withKey,
    "num-queues": withKey["num-queues"] ?? (await form.text("Queues", "1", checkQueues)),
  };
}

/** Yes, unless the answer begins with an n; or the other way round. */
export async function askYesNo(
  terminal: Questioner,
  question: string,
  isDefault: boolean,
): Promise<boolean> {
  for (;;) {
    const choices = isDefault ? "Y/n" : "y/N";
    const answer = (await terminal.ask(`${question} [${choices}] `)).toLowerCase();
    if (answer === "") {
      return isDefault;
    }
    if (/^(y|yes|n|no)$/.test(answer)) {
      return answer.startsWith("y");
    }
    terminal.say("  y or n is expected\n");
  }
}

// --- internal ---

/** What is wrong with an answer; undefined when nothing is. */
type CheckAnswer = (answer: string) => string | undefined;

class Form {
  readonly #terminal: Questioner;

  constructor(terminal: Questioner) {
    this.#terminal = terminal;
  }

  /** An empty default stands for no answer. */
  async text(
    question: string,
    fallback: string,
    check: CheckAnswer = () => undefined,
  ): Promise<string> {
    const shown = fallback === "" ? "" : ` [${fallback}]`;
    for (;;) {
      const answer = (await this.#terminal.ask(`${question}${shown}: `)) || fallback;
      const problem = check(answer);
      if (problem === undefined) {
        return answer;
      }
      this.#terminal.say(`  ${problem}\n`);
    }
  }

  /** Undefined for an empty answer. */
  async optional(
    question: string,
    check: CheckAnswer = () => undefined,
  ): Promise<string | undefined> {
    const answer = await this.text(`${question} (empty: none)`, "", (text) =>
      text === "" ? undefined : check(text),
    );
    return answer === "" ? undefined : answer;
  }

  /** The number of the choice, from 0; the first one is the default. */
  async choice(question: string, choices: readonly string[]): Promise<number> {
    this.#terminal.say(`${question}\n`);
    for (const [index, choice] of choices.entries()) {
      this.#terminal.say(`  ${index + 1}  ${choice}\n`);
    }
    const answer = await this.text("Number", "1", (text) =>
      /^\d{1,2}$/.test(text) && Number(text) >= 1 && Number(text) <= choices.length
        ? undefined
        : `a number from 1 to ${choices.length} is expected`,
    );
    return Number(answer) - 1;
  }

  yes(question: string, isDefault: boolean): Promise<boolean> {
    return askYesNo(this.#terminal, question, isDefault);
  }
}

function hasSource({ base, archive, s3, remote }: InitFlags): boolean {
  return [base, archive, s3, remote].some((value) => value !== undefined);
}

function hasKey({ kek, unencrypted, "kek-file": kekFile }: InitFlags): boolean {
  return kek || unencrypted || kekFile !== undefined;
}

async function askForSource(flags: InitFlags, form: Form): Promise<InitFlags> {
  const kind = await form.choice("What is on it at first", [
    "nothing",
    "an image: a file or block device",
    "an archive in a folder",
    "an archive in an S3 bucket",
    "the disk of a stripe server on another host",
  ]);
  switch (kind) {
    case 1:
      return { ...flags, base: await form.text("Image", "base.raw", checkFile) };
    case 2:
      return {
        ...flags,
        archive: await form.text("Folder of the archive", "archive", checkFolder),
        ...(await askForArchiveKek(flags, form)),
      };
    case 3:
      return askForBucket(flags, form);
    case 4:
      return askForServer(flags, form);
    default:
      return flags;
  }
}

async function askForArchiveKek(
  flags: InitFlags,
  form: Form,
): Promise<Pick<InitFlags, "archive-kek">> {
  const given = flags["archive-kek"];
  return {
    "archive-kek":
      given ?? (await form.optional("File or pipe with the archive's KEK", checkExisting)),
  };
}

async function askForBucket(flags: InitFlags, form: Form): Promise<InitFlags> {
  const bucket = {
    s3: await form.text("Bucket, or BUCKET/PREFIX", "", checkGiven),
    "s3-region": flags["s3-region"] ?? (await form.text("Region", "us-east-1")),
    "s3-endpoint": flags["s3-endpoint"] ?? (await form.optional("URL of a service other than AWS")),
    ...(await askForArchiveKek(flags, form)),
  };
  const isKnown = flags["s3-credentials"] ?? flags["s3-access-key-id"];
  if (isKnown !== undefined) {
    return { ...flags, ...bucket };
  }
  const places = ["profile", "instance", "container", "web_identity", "environment"];
  const kind = await form.choice("Where its credentials are", [...places, "files or pipes"]);
  const place = places[kind];
  return place === undefined
    ? {
        ...flags,
        ...bucket,
        "s3-access-key-id": await form.text("File with the access key ID", "", checkExisting),
        "s3-secret-access-key": await form.text(
          "File with the secret access key",
          "",
          checkExisting,
        ),
      }
    : { ...flags, ...bucket, "s3-credentials": place };
}

async function askForServer(flags: InitFlags, form: Form): Promise<InitFlags> {
  const remote = await form.text("Address, HOST:PORT", "", checkGiven);
  const psk =
    flags.psk ?? (await form.optional("File or pipe with the shared key (PSK)", checkExisting));
  if (psk !== undefined) {
    const identity = flags["psk-identity"] ?? (await form.text("Identity of that key", "ubiblk"));
    return { ...flags, remote, psk, "psk-identity": identity };
  }
  const isPlain =
    flags["unencrypted-connection"] ||
    (await form.yes("Without a key everybody on the way can read and change it. Go on?", false));
  return { ...flags, remote, "unencrypted-connection": isPlain };
}

async function askForKey(flags: InitFlags, form: Form): Promise<InitFlags> {
  const kind = await form.choice("Encryption", [
    "a new key in a file beside the disk",
    "a new key in the configuration, encrypted with a new KEK in a file",
    "the same with a KEK that is there: a file or pipe",
    "none: who has the disk's file can read it",
  ]);
  switch (kind) {
    case 1:
      return { ...flags, kek: true };
    case 2:
      return {
        ...flags,
        "kek-file": await form.text("File or pipe with the KEK", "", checkExisting),
      };
    case 3:
      return { ...flags, unencrypted: true };
    default:
      return flags;
  }
}

function checkSize(answer: string): string | undefined {
  try {
    const bytes = sizeArgument("size", answer);
    return bytes > 0 && bytes % 512 === 0 ? undefined : "a multiple of 512 bytes is expected";
  } catch (error) {
    if (error instanceof UbiError) {
      return error.message;
    }
    throw error;
  }
}

function checkQueues(answer: string): string | undefined {
  const isFit = /^\d{1,2}$/.test(answer) && Number(answer) >= 1 && Number(answer) <= 63;
  return isFit ? undefined : "a number from 1 to 63 is expected";
}

function checkGiven(answer: string): string | undefined {
  return answer === "" ? "an answer is needed" : undefined;
}

function checkExisting(answer: string): string | undefined {
  return answer !== "" && statusOf(answer) !== undefined
    ? undefined
    : `there is no ${answer === "" ? "file without a name" : answer}`;
}

function checkFile(answer: string): string | undefined {
  const isFolder = statusOf(answer)?.isDirectory() === true;
  return isFolder ? `${answer} is a folder` : checkExisting(answer);
}

function checkFolder(answer: string): string | undefined {
  const isFolder = statusOf(answer)?.isDirectory() === true;
  return isFolder ? undefined : `there is no folder ${answer}`;
}

/** What cannot be looked at is not there for this. */
function statusOf(path: string) {
  try {
    return pathStatus(path);
  } catch (error) {
    if (error instanceof UbiError) {
      return undefined;
    }
    throw error;
  }
}
