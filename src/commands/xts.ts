/** `ubiblk xts`: enciphers or deciphers an image with the key of a disk. */
import { writeSync } from "node:fs";
import { defineCommand } from "citty";
import { type KeyConfig, loadKeyConfig, resolveSecrets } from "../config/index.ts";
import { isSameFile, statusIfSeen } from "../copy/input-file.ts";
import { convertXtsFile, type XtsProgress } from "../copy/xts-file.ts";
import { XtsCipher } from "../disk/cipher.ts";
import { XTS_PROVIDERS, type XtsProvider } from "../disk/cipher-provider.ts";
import { assert, UbiError } from "../errors.ts";
import { isJsonLog } from "../log.ts";
import { integerArgument } from "./arguments.ts";
import { hardenOrWarn } from "./hardening.ts";

/** Sectors up to here have exact byte offsets. */
const SECTOR_MAX = 2 ** 44 - 1;
const SECTORS = { minimum: 0, maximum: SECTOR_MAX };

export default defineCommand({
  meta: {
    name: "xts",
    description:
      "Enciphers or deciphers an image with the key of a disk. OUTPUT appears when it is whole; " +
      "of the configuration only [encryption] and its secret are needed",
  },
  args: {
    config: {
      type: "string",
      alias: "f",
      required: true,
      valueHint: "FILE",
      description: "configuration with [encryption]",
    },
    action: {
      type: "enum",
      options: ["encode", "decode"],
      default: "decode",
      description: "encode enciphers, decode deciphers",
    },
    start: {
      type: "string",
      default: "0",
      valueHint: "SECTOR",
      description: "first sector of INPUT, also the number it is ciphered by",
      integer: SECTORS,
    },
    len: {
      type: "string",
      valueHint: "SECTORS",
      description: "sectors of 512 bytes to convert (default: to the end)",
      integer: SECTORS,
    },
    "output-offset": {
      type: "string",
      valueHint: "SECTOR",
      description: "where they go in OUTPUT (default: 0 for decode, --start for encode)",
      integer: SECTORS,
    },
    provider: {
      type: "enum",
      options: [...XTS_PROVIDERS],
      description: "code to cipher with (default: the fastest that works here)",
    },
    input: {
      type: "positional",
      required: true,
      valueHint: "FILE",
      description: "file or block device to read",
    },
    output: {
      type: "positional",
      required: true,
      valueHint: "FILE",
      description: "file to write or replace, or block device",
    },
  },
  run: ({ args }) =>
    convert({
      configPath: args.config,
      action: args.action === "encode" ? "encode" : "decode",
      inputPath: args.input,
      outputPath: args.output,
      startSector: integerArgument(args.start),
      sectorCount: integerArgument(args.len),
      outputSector: integerArgument(args["output-offset"]),
      provider: XTS_PROVIDERS.find((known) => known === args.provider),
    }),
});

// --- internal ---

interface ConvertOptions {
  readonly configPath: string;
  readonly action: "encode" | "decode";
  readonly inputPath: string;
  readonly outputPath: string;
  readonly startSector: number;
  readonly sectorCount: number | undefined;
  readonly outputSector: number | undefined;
  readonly provider: XtsProvider | undefined;
}

async function convert(options: ConvertOptions): Promise<void> {
  hardenOrWarn();
  const config = await loadKeyConfig(options.configPath);
  refuseConfig(
    options,
    config.files.filter((file) => file !== config.device?.dataPath),
  );
  const progress = new ProgressLine();
  const interruption = new AbortController();
  const { signal } = interruption;
  const interrupt = () =>
    interruption.abort(new UbiError("E_XTS_OUTPUT", "interrupted; the output was not written"));
  process.on("SIGINT", interrupt).on("SIGTERM", interrupt);
  try {
    await convertXtsFile(() => openCipher(config, options.provider, signal), {
      ...options,
      signal,
      onProgress: (done) => progress.show(done),
    });
  } finally {
    progress.end();
    process.off("SIGINT", interrupt).off("SIGTERM", interrupt);
  }
}

/** Two names exchanged would cost the only copy of the key. The disk itself is what an image is enciphered for. */
function refuseConfig({ configPath, outputPath }: ConvertOptions, files: readonly string[]): void {
  const output = statusIfSeen(outputPath);
  for (const file of files) {
    const input = statusIfSeen(file);
    if (output !== undefined && input !== undefined && isSameFile(input, output)) {
      const what =
        file === configPath ? "the configuration itself" : `${file} of the configuration`;
      throw new UbiError("E_XTS_OUTPUT", `output ${outputPath} is ${what}`);
    }
  }
}

async function openCipher(
  config: KeyConfig,
  provider: XtsProvider | undefined,
  signal: AbortSignal,
): Promise<XtsCipher> {
  assert(config.encryption !== undefined, "a key document has its key");
  using secrets = await resolveSecrets(config, ["encryption"], signal);
  return XtsCipher.create(secrets.get(config.encryption.xtsKey).bytes, { provider });
}

/** On a terminal, one line that is written again and again; elsewhere nothing. */
class ProgressLine {
  readonly #isTerminal = process.stderr.isTTY === true && !isJsonLog();
  readonly #startMs = performance.now();
  #shownMs = this.#startMs;

  show({ doneBytes, totalBytes }: XtsProgress): void {
    const nowMs = performance.now();
    if (!this.#isTerminal || nowMs - this.#shownMs < SHOW_MS) {
      return;
    }
    this.#shownMs = nowMs;
    const mibPerSecond = doneBytes / MIB / ((nowMs - this.#startMs) / 1000);
    const share = ((100 * doneBytes) / totalBytes).toFixed(0).padStart(3);
    const amount = `${(doneBytes / MIB).toFixed(0)} of ${(totalBytes / MIB).toFixed(0)} MiB`;
    writeSync(2, `\r${share} %  ${amount}, ${mibPerSecond.toFixed(0)} MiB/s\u001b[K`);
  }

  end(): void {
    if (this.#shownMs !== this.#startMs) {
      writeSync(2, "\r\u001b[K");
    }
  }
}

const SHOW_MS = 200;
const MIB = 2 ** 20;
