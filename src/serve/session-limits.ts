/** The limits of a client: of its time, its memory and its turn. */

export interface SessionLimits {
  readonly handshakeMs: number;
  /** For the rest of a request, for the client to take some of an answer, and, in part, for one to be ready. */
  readonly answerMs: number;
  readonly idleMs: number;
}

export const INPUT_BYTES = 4096;
export const ANSWERS_MAX = 32;
/** A client that takes an answer more slowly than this holds a buffer for too long. */
export const BYTES_PER_MS_MIN = 64;
/** Sent in one turn, so that the others get theirs; requests are as many as rounds can take. */
export const TURN_BYTES = 4 * 2 ** 20;
export const TURN_ROUNDS = 256 / ANSWERS_MAX;
/** A read has this share of the time of an answer: a client that waits as long gets a status, and not nothing. */
export const READ_SHARE = 0.75;
/** For the last answer to arrive: closing with requests unread would make the system drop it. */
export const LINGER_MS = 500;
