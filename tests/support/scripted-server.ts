/**
 * A stripe server on a loopback port, in the thread of the test, whose answers are made by hand: independent of the
 * product's protocol code. It answers what a script says, and else as a good old server (or a new one) does.
 */
import type { Socket, TCPSocketListener } from "bun";

const STRIPE_SHIFT = 3;
export const STRIPE_BYTES = 4096;

export interface ServerScript {
  /** Of each stripe, as in a metadata file. */
  readonly flags: readonly number[];
  /** Knows the requests from 0x10 on. */
  readonly isNew?: boolean;
  /** Bytes in place of the usual answer; "close" closes; nothing goes on as usual. */
  readonly answer?: (request: Request, server: ScriptedServer) => Uint8Array | "close" | undefined;
}

interface Request {
  readonly opcode: number;
  readonly stripe: number;
  /** Counts connections from 0. */
  readonly connection: number;
}

interface State {
  readonly connection: number;
  received: Buffer;
  unsent: Buffer;
}

export class ScriptedServer implements Disposable {
  readonly port: number;
  script: ServerScript;
  connections = 0;
  /** Opcodes in the order of their arrival, of all connections. */
  readonly opcodes: number[] = [];
  readonly #listener: TCPSocketListener<State>;
  readonly #sockets = new Set<Socket<State>>();

  constructor(script: ServerScript, port = 0) {
    this.script = script;
    this.#listener = Bun.listen<State>({
      hostname: "127.0.0.1",
      port,
      socket: {
        open: (socket) => {
          const nothing = Buffer.alloc(0);
          socket.data = { connection: this.connections, received: nothing, unsent: nothing };
          this.connections += 1;
          this.#sockets.add(socket);
        },
        data: (socket, bytes) => this.#receive(socket, bytes),
        drain: (socket) => this.#send(socket, Buffer.alloc(0)),
        close: (socket) => void this.#sockets.delete(socket),
      },
    });
    this.port = this.#listener.port;
  }

  get address(): string {
    return `127.0.0.1:${this.port}`;
  }

  /** Ends all connections as a server that dies does. */
  dropAll(): void {
    for (const socket of this.#sockets) {
      socket.terminate();
    }
  }

  drop(connection: number): void {
    this.#socket(connection)?.terminate();
  }

  /** Ends all connections as a server does that has nothing more to say. */
  closeAll(): void {
    for (const socket of this.#sockets) {
      socket.end();
    }
  }

  say(connection: number, bytes: Uint8Array): void {
    const socket = this.#socket(connection);
    if (socket !== undefined) {
      this.#send(socket, bytes);
    }
  }

  /** A byte on every connection, which nobody asked for or waits for. */
  trickle(): void {
    for (const socket of this.#sockets) {
      this.#send(socket, Uint8Array.of(0x77));
    }
  }

  [Symbol.dispose](): void {
    this.#listener.stop(true);
  }

  #socket(connection: number): Socket<State> | undefined {
    return [...this.#sockets].find((socket) => socket.data.connection === connection);
  }

  #receive(socket: Socket<State>, bytes: Uint8Array): void {
    const state = socket.data;
    state.received = Buffer.concat([state.received, bytes]);
    for (;;) {
      const opcode = state.received[0];
      const length = opcode === 0x01 || opcode === 0x11 ? 9 : 1;
      if (opcode === undefined || state.received.length < length) {
        return;
      }
      const stripe = length === 9 ? Number(state.received.readBigUInt64LE(1)) : -1;
      state.received = state.received.subarray(length);
      this.opcodes.push(opcode);
      const request = { opcode, stripe, connection: state.connection };
      const answer = this.script.answer?.(request, this) ?? usualAnswer(request, this.script);
      if (answer === "close") {
        socket.end();
        return;
      }
      this.#send(socket, answer);
    }
  }

  #send(socket: Socket<State>, bytes: Uint8Array): void {
    const state = socket.data;
    state.unsent = Buffer.concat([state.unsent, bytes]);
    const sent = socket.write(state.unsent);
    state.unsent = state.unsent.subarray(Math.max(0, sent));
  }
}

export function usualAnswer(request: Request, script: ServerScript): Uint8Array {
  const { opcode, stripe } = request;
  const flags = script.flags[stripe];
  switch (opcode) {
    case 0x00:
      return sized(metadataOf(script.flags));
    case 0x02:
      return Uint8Array.of(0, 1, 0, 0, 0);
    case 0x01:
    case 0x11:
      if (flags === undefined) {
        return Uint8Array.of(1);
      }
      return (flags & 6) === 0 ? Uint8Array.of(2) : sized(stripeData(stripe));
    case 0x10:
      return script.isNew === true ? Uint8Array.of(0, 3, 0, 0, 0) : Uint8Array.of(0xfe);
    case 0x12: {
      const digest = new Bun.CryptoHasher("sha256").update(metadataOf(script.flags)).digest();
      return Buffer.concat([Uint8Array.of(0), digest]);
    }
    default:
      return Uint8Array.of(0xfe);
  }
}

/** The content of a stripe: its number, and a counter that goes on over its 8-byte words. */
export function stripeData(stripe: number, sizeBytes = STRIPE_BYTES): Uint8Array {
  const words = new Uint32Array(sizeBytes / 4);
  for (let i = 0; i < words.length; i += 2) {
    words[i] = stripe + 1;
    words[i + 1] = i;
  }
  return new Uint8Array(words.buffer);
}

/** An answer with a size before its data. */
export function sized(data: Uint8Array, announced = data.length): Uint8Array {
  const head = Buffer.alloc(9);
  head.writeBigUInt64LE(BigInt(announced), 1);
  return Buffer.concat([head, data]);
}

/** A metadata file of version 2.0. */
export function metadataOf(flags: readonly number[], shift = STRIPE_SHIFT): Uint8Array {
  const groups = Math.ceil(flags.length / 508);
  const file = Buffer.alloc(512 * (1 + groups));
  file.write("BDEV_UBI\0", "latin1");
  file.writeUInt16LE(2, 9);
  file.writeUInt8(shift, 13);
  file.writeUInt32LE(flags.length, 14);
  file.writeUInt32LE(Bun.hash.crc32(file.subarray(0, 508)), 508);
  for (let group = 0; group < groups; group++) {
    const sector = file.subarray(512 * (group + 1), 512 * (group + 2));
    sector.set(flags.slice(group * 508, (group + 1) * 508));
    sector.writeUInt32LE(Bun.hash.crc32(sector.subarray(0, 508)), 508);
  }
  return file;
}
