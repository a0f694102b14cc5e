/**
 * A connection as the loop of one thread sees it: bytes in and out of memory by address, never waiting. Plain
 * (stream.ts) or under TLS (tls.ts); the users do not tell them apart.
 */

export interface ByteStream extends Disposable {
  /** To be polled for what a result asks. Closed by `dispose`. */
  readonly fd: number;
  /** Begins or goes on with the connection: STREAM_READY, 0 when the peer is gone, or one of the codes below. */
  handshake(): number;
  /** Bytes read (at least 1), 0 at the end of the stream, or one of the codes below. */
  read(address: number, lengthBytes: number): number;
  /**
   * Bytes taken (at least 1) or one of the codes below. After WANT_* the next call names the same bytes again,
   * at any address, and perhaps more behind them.
   */
  write(address: number, lengthBytes: number): number;
  /** What a result below 0 other than WANT_* means, in words. */
  problem(result: number): string;
}

/** Of `handshake` only: data can go. */
export const STREAM_READY = 1;
/** Call again when the descriptor can be read. A write may ask for this as well, under TLS. */
export const WANT_READ = -5001;
/** Call again when the descriptor can be written. */
export const WANT_WRITE = -5002;
/** TLS ended the connection; `problem` tells why. Any other negative result is a negative errno. */
export const TLS_FAILED = -5003;
