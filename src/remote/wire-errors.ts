/** What goes wrong between a client and a stripe server, said so that a person can act on it. */
import { UbiError } from "../errors.ts";
import { statusText } from "../formats/stripe-protocol.ts";

/** @param why nothing when the server closed the connection without a word */
export function handshakeError(name: string, why: string, isTls: boolean): UbiError {
  if (!isTls && why !== "") {
    return new UbiError("E_REMOTE", `Failed to connect to ${name}: TLS handshake: ${why}`);
  }
  const reason = why === "" ? "it closed the connection" : why;
  const unknown = why === "" ? `${GENERAL_HINT}; ${FULL_HINT}` : GENERAL_HINT;
  const advice = HINTS.find(([text]) => why.includes(text))?.[1] ?? unknown;
  return new UbiError(
    "E_REMOTE_PSK",
    `Failed to connect to ${name}: TLS handshake: ${reason}; ${advice}`,
  );
}

export function statusError(name: string, request: string, status: number): UbiError {
  const hint = status === TLS_ALERT || status === TLS_HANDSHAKE ? `; ${GENERAL_HINT}` : "";
  return new UbiError(
    "E_REMOTE",
    `${name}: it answered ${request} with ${statusText(status)}${hint}`,
  );
}

/** What a new connection asks for, in words. */
export const GREETING = "its version and metadata";

export function closedError(name: string, awaited: string): UbiError {
  const hint = awaited === GREETING ? `; ${GENERAL_HINT}; ${FULL_HINT}` : "";
  return new UbiError(
    "E_REMOTE",
    `${name}: it closed the connection when asked for ${awaited}${hint}`,
  );
}

// --- internal ---

/** First bytes of a TLS record: what a server with TLS answers to a client without. */
const TLS_ALERT = 0x15;
const TLS_HANDSHAKE = 0x16;
const GENERAL_HINT = "give both sides the same psk, or none to both";
const FULL_HINT = "or it may have max_connections clients";
const HINTS: readonly (readonly [string, string])[] = [
  ["unknown psk identity", "the server does not know this psk.identity"],
  ["bad record mac", "the secrets of psk differ"],
  ["decrypt error", "the secrets of psk differ"],
  ["digest check failed", "the secrets of psk differ"],
];
