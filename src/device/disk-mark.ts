/**
 * Numbers by which a disk is known again: one for the file or device that it lies in, one for what its bytes mean.
 * They find mistakes; nobody is kept out by them.
 */
import { fstatSync } from "node:fs";
import type { SectorCipher } from "../disk/sector-copy.ts";
import { assert } from "../errors.ts";
import { Arena } from "../ffi/arena.ts";
import { SECTOR_BYTES } from "../formats/virtio-blk.ts";

/** Beyond the end of any disk: what is enciphered there tells of the key and of nothing that is stored. */
const PROBE_SECTOR = 2 ** 43;

/** 32 bits for the file or device behind `fd`. */
export function fileMark(fd: number): number {
  const { dev, ino, rdev } = fstatSync(fd, { bigint: true });
  return hash32(rdev === 0n ? `file ${dev} ${ino}` : `device ${rdev}`);
}

/** 16 bits for the key, and for the metadata file that says which stripes are there. */
export function contentMark(
  cipher: Pick<SectorCipher, "encrypt"> | undefined,
  metadataFd: number | undefined,
): number {
  const key = cipher === undefined ? "plain" : probe(cipher);
  const metadata = metadataFd === undefined ? "whole" : fileMark(metadataFd);
  return hash32(`${key} ${metadata}`) & 0xffff;
}

// --- internal ---

function hash32(text: string): number {
  return Number(BigInt(Bun.hash(text)) & 0xffff_ffffn);
}

function probe(cipher: Pick<SectorCipher, "encrypt">): string {
  using arena = new Arena(SECTOR_BYTES);
  const { view, address } = arena.bytes(SECTOR_BYTES);
  const result = cipher.encrypt(PROBE_SECTOR, 1, address, address);
  assert(result === 0, "a cipher that was opened works");
  return new Bun.CryptoHasher("sha256").update(view).digest("hex");
}
