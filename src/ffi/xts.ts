/**
 * AES-256-XTS over 512-byte sectors (ffi/xts.h). A context is memory of ours that holds expanded keys;
 * workers use it by address. Results are 0 or a negative errno.
 *
 * Cost: about 5 ns for the call, then 350 ns (VAES-512), 500 ns (VAES-256) or 850 ns (AES-NI) for 4 KiB.
 */
import type { Pointer } from "bun:ffi";
import { UbiError } from "../errors.ts";
import { link } from "./library.ts";
import { sslFunctions } from "./ssl-library.ts";

const native = link({
  ubi_xts_context_size: { args: [], returns: "u32" },
  ubi_xts_probe: { args: ["u32"], returns: "i32" },
  ubi_xts_self_test: { args: ["u32"], returns: "i32" },
  ubi_xts_expand: { args: ["ptr", "ptr", "u32"], returns: "i32" },
  ubi_xts_encrypt: { args: ["ptr", "f64", "u32", "ptr", "ptr"], returns: "i32" },
  ubi_xts_decrypt: { args: ["ptr", "f64", "u32", "ptr", "ptr"], returns: "i32" },
  ubi_xts_encrypt_tweak: { args: ["ptr", "ptr", "u32", "ptr", "ptr"], returns: "i32" },
  ubi_xts_decrypt_tweak: { args: ["ptr", "ptr", "u32", "ptr", "ptr"], returns: "i32" },
  ubi_xts_wipe: { args: ["ptr"], returns: "void" },
  ubi_xts_isal_load: { args: ["ptr"], returns: "i32" },
  ubi_xts_portable_set: { args: ["ptr", "ptr", "ptr"], returns: "i32" },
});

export const XTS_KEY_BYTES = 64;

/** As enum ubi_xts_provider. */
export const XTS_PROVIDER_NUMBERS = {
  vaes512: 1,
  vaes256: 2,
  aesni: 3,
  isal: 4,
  portable: 5,
} as const;

/** Bytes of a context; its address is a multiple of 64. */
export function xtsContextBytes(): number {
  return native.ubi_xts_context_size();
}

/** 0, or a negative errno: -95 the CPU lacks it, -2 its library is not loaded. */
export function probeXts(provider: number): number {
  return native.ubi_xts_probe(provider);
}

/** 0, what `probeXts` tells, or -5 when a known answer came out wrong. */
export function selfTestXts(provider: number): number {
  return native.ubi_xts_self_test(provider);
}

/** Fills the context at `context` from a key of 64 bytes. */
export function expandXts(context: number, key: Uint8Array, provider: number): number {
  return native.ubi_xts_expand(context as Pointer, key, provider);
}

/** `source` and `target` are the same address or do not overlap. */
export function encryptXts(
  context: number,
  sector: number,
  sectorCount: number,
  source: number,
  target: number,
): number {
  return native.ubi_xts_encrypt(
    context as Pointer,
    sector,
    sectorCount,
    source as Pointer,
    target as Pointer,
  );
}

export function decryptXts(
  context: number,
  sector: number,
  sectorCount: number,
  source: number,
  target: number,
): number {
  return native.ubi_xts_decrypt(
    context as Pointer,
    sector,
    sectorCount,
    source as Pointer,
    target as Pointer,
  );
}

/** From a whole tweak of 16 bytes at address `tweak`; its upper half grows by 1 a sector. */
export function encryptXtsTweak(
  context: number,
  tweak: number,
  sectorCount: number,
  source: number,
  target: number,
): number {
  return native.ubi_xts_encrypt_tweak(
    context as Pointer,
    tweak as Pointer,
    sectorCount,
    source as Pointer,
    target as Pointer,
  );
}

export function decryptXtsTweak(
  context: number,
  tweak: number,
  sectorCount: number,
  source: number,
  target: number,
): number {
  return native.ubi_xts_decrypt_tweak(
    context as Pointer,
    tweak as Pointer,
    sectorCount,
    source as Pointer,
    target as Pointer,
  );
}

/** Zeroes a context. Nobody may be using it. */
export function wipeXts(context: number): void {
  native.ubi_xts_wipe(context as Pointer);
}

/**
 * Loads libisal_crypto for this process: from an absolute path, or with "" by its soname from where the
 * system's loader looks. 0 or a negative errno, as ffi/xts.h tells.
 */
export function loadIsal(path: string): number {
  const bytes = new Uint8Array(ISAL_PATH_BYTES_MAX + 1);
  const { read } = new TextEncoder().encodeInto(path, bytes.subarray(0, ISAL_PATH_BYTES_MAX));
  return read === path.length ? native.ubi_xts_isal_load(bytes) : -ENAMETOOLONG;
}

/** Loads the second library for this process and lets it cipher. @throws UbiError E_NATIVE_LIBRARY */
export function loadPortableXts(): number {
  const functions = sslFunctions();
  const [create, run, destroy] = ["create", "run", "destroy"].map((verb) =>
    functions.get(`ubi_ssl_xts_${verb}`),
  );
  if (create === undefined || run === undefined || destroy === undefined) {
    throw new UbiError("E_NATIVE_LIBRARY", "the second native library lacks a cipher function");
  }
  return native.ubi_xts_portable_set(create, run, destroy);
}

// --- internal ---

const ISAL_PATH_BYTES_MAX = 4095;
const ENAMETOOLONG = 36;
