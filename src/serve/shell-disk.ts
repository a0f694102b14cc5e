/**
 * The disk of a stripe server as a shell sees it: its flags, and stripes that were fetched, of which the last ones
 * used are kept. A connection that was lost is made again once when something is asked; the disk must be the same.
 */
import { UbiError } from "../errors.ts";
import { mapAnonymous, unmap, viewOf } from "../ffi/memory.ts";
import { STRIPE_FLAG, stripeBytes } from "../formats/metadata.ts";
import { STATUS } from "../formats/stripe-protocol.ts";
import { noDataError } from "../remote/remote-client.ts";
import { differenceOf, isHeld, type RemoteDisk } from "../remote/remote-disk.ts";

/** One connection: a `RemoteClient`, or that of a test. */
export interface ShellClient extends Disposable {
  readonly name: string;
  readonly disk: RemoteDisk;
  readonly isEnded: boolean;
  /** Fills the memory at `address`; a status. @throws UbiError E_REMOTE */
  read(stripe: number, address: number): Promise<number>;
}

/** Stripes kept in memory; one of them at least. */
const CACHE_BYTES = 64 * 2 ** 20;

export class ShellDisk implements Disposable {
  readonly #connect: () => Promise<ShellClient>;
  #client: ShellClient;
  readonly #disk: RemoteDisk;
  readonly #address: number;
  /** In the order of their last use. */
  readonly #cache = new Map<number, Uint8Array>();
  /** Also those that were let go since. */
  readonly #fetched = new Set<number>();

  /** @throws UbiError E_REMOTE* */
  static async open(connect: () => Promise<ShellClient>): Promise<ShellDisk> {
    return new ShellDisk(connect, await connect());
  }

  private constructor(connect: () => Promise<ShellClient>, client: ShellClient) {
    this.#connect = connect;
    this.#client = client;
    this.#disk = client.disk;
    this.#address = mapAnonymous(this.stripeBytes);
  }

  get serverName(): string {
    return this.#client.name;
  }

  get isConnected(): boolean {
    return !this.#client.isEnded;
  }

  get stripeBytes(): number {
    return stripeBytes(this.#disk);
  }

  get stripeCount(): number {
    return this.#disk.stripeCount;
  }

  get flags(): Uint8Array {
    return this.#disk.flags;
  }

  get cachedCount(): number {
    return this.#cache.size;
  }

  flagsOf(stripe: number): number {
    return this.#disk.flags[stripe] ?? 0;
  }

  isWritten(stripe: number): boolean {
    return (this.flagsOf(stripe) & STRIPE_FLAG.WRITTEN) !== 0;
  }

  /** Whether the server has anything for the stripe. */
  isHeld(stripe: number): boolean {
    return isHeld(this.flagsOf(stripe));
  }

  isFetched(stripe: number): boolean {
    return this.#fetched.has(stripe);
  }

  /** The stripe, from memory where it is there. @throws UbiError E_REMOTE* */
  async bytesOf(stripe: number): Promise<Uint8Array> {
    const bytes = this.#cache.get(stripe) ?? (await this.#read(stripe));
    this.#cache.delete(stripe);
    this.#cache.set(stripe, bytes);
    this.#fetched.add(stripe);
    const kept = Math.max(1, Math.floor(CACHE_BYTES / this.stripeBytes));
    for (const oldest of this.#cache.keys()) {
      if (this.#cache.size <= kept) {
        break;
      }
      this.#cache.delete(oldest);
    }
    return bytes;
  }

  /** Asks the server, whatever is in memory. @throws UbiError E_REMOTE* */
  async fetch(stripe: number): Promise<void> {
    this.#cache.delete(stripe);
    await this.bytesOf(stripe);
  }

  [Symbol.dispose](): void {
    this.#client[Symbol.dispose]();
    unmap(this.#address, this.stripeBytes);
  }

  // --- internal ---

  async #read(stripe: number): Promise<Uint8Array> {
    const status = await this.#ask(stripe);
    if (status !== STATUS.OK) {
      throw noDataError(this.serverName, stripe, status);
    }
    return new Uint8Array(viewOf(this.#address, this.stripeBytes)).slice();
  }

  async #ask(stripe: number): Promise<number> {
    if (!this.#client.isEnded) {
      try {
        return await this.#client.read(stripe, this.#address);
      } catch (error) {
        if (!(error instanceof UbiError && this.#client.isEnded)) {
          throw error;
        }
      }
    }
    await this.#reconnect();
    return await this.#client.read(stripe, this.#address);
  }

  async #reconnect(): Promise<void> {
    const client = await this.#connect();
    const difference = differenceOf(this.#disk.identity, client.disk.identity);
    if (difference !== undefined) {
      client[Symbol.dispose]();
      const message = `${client.name}: its disk changed across reconnect: ${difference}; start anew`;
      throw new UbiError("E_REMOTE", message);
    }
    this.#client[Symbol.dispose]();
    this.#client = client;
  }
}
