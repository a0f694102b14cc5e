/** The first messages of a TLS 1.2 client with a pre-shared key, byte by byte (RFC 5246, RFC 4279 section 2). */
import { RawClient } from "./stripe-server.ts";

export interface HelloOptions {
  readonly version?: number;
  readonly ciphers?: readonly number[];
}

const ALERT = 0x15;
const HANDSHAKE = 0x16;
const CLIENT_HELLO = 1;
const CLIENT_KEY_EXCHANGE = 16;
/** The only cipher of the server, and the word that says: renegotiation would be a secure one. */
const CIPHERS = [0x00a9, 0x00ff];

export class HandMadeTls {
  readonly #client: RawClient;

  /** Connects, and says hello. */
  static async connect(port: number, options: HelloOptions = {}): Promise<HandMadeTls> {
    const client = new HandMadeTls(await RawClient.connect(port));
    client.#hello(options);
    return client;
  }

  private constructor(client: RawClient) {
    this.#client = client;
  }

  /** Names an identity, as long as one likes. */
  identify(identity: Uint8Array): void {
    const length = Buffer.alloc(2);
    length.writeUInt16BE(identity.length);
    this.#send(CLIENT_KEY_EXCHANGE, Buffer.concat([length, identity]));
  }

  /** The fatal alert by which the server ends the session; -1 when it ends it without one. */
  async alert(): Promise<number> {
    let rest = await this.#client.rest();
    while (rest.length >= 5) {
      const length = rest.readUInt16BE(3);
      if (rest[0] === ALERT && rest[5] === 2) {
        return rest[6] ?? -1;
      }
      if (rest[0] !== HANDSHAKE) {
        return -1;
      }
      rest = rest.subarray(5 + length);
    }
    return -1;
  }

  #hello({ version = 0x0303, ciphers = CIPHERS }: HelloOptions): void {
    const head = Buffer.alloc(2 + 32 + 1 + 2);
    head.writeUInt16BE(version, 0);
    head.fill(0x5a, 2, 34);
    head.writeUInt16BE(2 * ciphers.length, 35);
    const list = Buffer.from(ciphers.flatMap((cipher) => [cipher >> 8, cipher & 0xff]));
    this.#send(CLIENT_HELLO, Buffer.concat([head, list, Buffer.of(1, 0)]));
  }

  #send(type: number, body: Uint8Array): void {
    const head = Buffer.from([HANDSHAKE, 3, 3, 0, 0, type, 0, 0, 0]);
    head.writeUInt16BE(body.length + 4, 3);
    head.writeUIntBE(body.length, 6, 3);
    this.#client.send(head, body);
  }
}
