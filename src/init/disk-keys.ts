/** The key of a new disk: made, wrapped where that was asked for, and how the configuration refers to it. */
import { randomBytes } from "node:crypto";
import { KEK_BYTES } from "../config/envelope.ts";
import { readKekFile } from "../config/kek-file.ts";
import { sealSecret } from "../config/secret-envelope.ts";
import { assertNever } from "../errors.ts";
import { FILE_NAMES, type KeyTable, type KeyTables } from "./disk-document.ts";
import type { RequestedKey } from "./disk-request.ts";

interface KeyFile {
  readonly name: string;
  readonly content: Uint8Array;
}

/** Belongs to who made it. */
export class DiskKeys implements Disposable {
  /** The configuration's. */
  readonly tables: KeyTables;
  /** Those for making the metadata, where a KEK was read already and may not be had again. */
  readonly makingTables: KeyTables;
  /** Files to make in the disk's folder. */
  readonly files: readonly KeyFile[];

  private constructor(tables: KeyTables, files: readonly KeyFile[], makingTables = tables) {
    this.tables = tables;
    this.files = files;
    this.makingTables = makingTables;
  }

  /** @throws UbiError E_SECRET_READ, E_SECRET_SIZE; the signal's reason */
  static async make(key: RequestedKey, signal: AbortSignal): Promise<DiskKeys> {
    if (key.kind === "none") {
      return new DiskKeys({}, []);
    }
    const xtsKey = randomBytes(XTS_KEY_BYTES);
    try {
      switch (key.kind) {
        case "file": {
          const table = { source: { file: FILE_NAMES.xtsKey }, encoding: "base64" };
          return new DiskKeys({ xts_key: table }, [keyFile(FILE_NAMES.xtsKey, xtsKey)]);
        }
        case "new-kek": {
          const kek = randomBytes(KEK_BYTES);
          const kekTable = { source: { file: FILE_NAMES.kek }, encoding: "base64" };
          const tables = { xts_key: wrappedTable(xtsKey, kek), kek: kekTable };
          return new DiskKeys(tables, [keyFile(FILE_NAMES.kek, kek)]);
        }
        case "given-kek": {
          const { kek, encoding } = await readKekFile(key.path, signal);
          const kekTable = { source: givenSource(key), encoding };
          const tables = { xts_key: wrappedTable(xtsKey, kek), kek: kekTable };
          kek.fill(0);
          const inline = { source: { inline: xtsKey.toBase64() }, encoding: "base64" };
          return new DiskKeys(tables, [], { xts_key: inline });
        }
        default:
          return assertNever(key);
      }
    } finally {
      xtsKey.fill(0);
    }
  }

  [Symbol.dispose](): void {
    for (const { content } of this.files) {
      content.fill(0);
    }
  }
}

/** The tables without the keys: what can be checked before they are made. */
export function expectedTables(key: RequestedKey): KeyTables {
  const inline = { source: { inline: "" }, encoding: "base64", encrypted_by: { ref: "kek" } };
  switch (key.kind) {
    case "none":
      return {};
    case "file":
      return { xts_key: { source: { file: FILE_NAMES.xtsKey }, encoding: "base64" } };
    case "new-kek":
      return { xts_key: inline, kek: { source: { file: FILE_NAMES.kek } } };
    case "given-kek":
      return { xts_key: inline, kek: { source: givenSource(key) } };
    default:
      return assertNever(key);
  }
}

// --- internal ---

const XTS_KEY_BYTES = 64;

type GivenKek = Extract<RequestedKey, { readonly kind: "given-kek" }>;

/** In base64, without a newline. Wipes the key. */
function keyFile(name: string, key: Uint8Array): KeyFile {
  const content = new TextEncoder().encode(key.toBase64());
  key.fill(0);
  return { name, content };
}

function givenSource({ path, credential }: GivenKek): KeyTable["source"] {
  return credential === undefined ? { file: path } : { credential };
}

function wrappedTable(xtsKey: Uint8Array, kek: Uint8Array): KeyTable {
  const envelope = sealSecret(xtsKey, { name: "xts_key", kek });
  return {
    source: { inline: envelope.toBase64() },
    encoding: "base64",
    encrypted_by: { ref: "kek" },
  };
}
