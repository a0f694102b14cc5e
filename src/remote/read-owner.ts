/** What a connection tells of the end of a read. */

/** Who asked for stripes. */
export interface ReadOwner {
  /**
   * A read has ended. STATUS.OK: its memory is filled; else a status of the server, or READ_BROKEN. Memory is not
   * written any more.
   */
  readEnded(id: number, status: number): void;
}

/** In place of a status: what came is no answer to the read. Asking again elsewhere is of no use. */
export const READ_BROKEN = -1;
