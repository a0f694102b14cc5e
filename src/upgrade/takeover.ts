/**
 * The side of the new process: takes over the disk of the process that started it (hand-over.ts). The disk is opened as
 * at any start, by the descriptors that come; `prepare` is where it waits for the disk to be its own.
 */
import { resolve } from "node:path";
import packageJson from "../../package.json" with { type: "json" };
import { adoptSecrets, forgetAdoptedSecrets } from "../config/kept-secrets.ts";
import type { DiskDevice, HandedDisk, PreparedDisk } from "../device/disk-device.ts";
import { rehearseOpening } from "../device/rehearsal.ts";
import type { HandedFile } from "../disk/data-file.ts";
import { errorText, UbiError, UbiErrors } from "../errors.ts";
import { adoptSocket, closeDescriptor } from "../ffi/socket.ts";
import type { HandedSocket, SocketPlace } from "../ffi/socket-file.ts";
import { log, setLogLevel } from "../log.ts";
import type { GivenSockets } from "../service/index.ts";
import { deviceFeatures, PROTOCOL_FEATURES } from "../vhost/features.ts";
import { HAND_OVER_FORMAT, type HandedState, HandOver, type Message } from "./hand-over.ts";
import { SecretMemory } from "./secret-memory.ts";
import { TAKEOVER_VARIABLE } from "./variable.ts";

const OFFER_MS = 10_000;
/** The other process ends requests, flushes and publishes meanwhile, all with limits of their own. */
const YOURS_MS = 180_000;
const GO_MS = 30_000;
const END_MS = 10_000;

export class Takeover implements GivenSockets {
  readonly #channel: HandOver;
  readonly #offer: Message<"offer">;
  readonly #descriptors: ReadonlyMap<string, number>;
  #state: HandedState | undefined;

  private constructor(channel: HandOver, offer: Message<"offer">, descriptors: readonly number[]) {
    this.#channel = channel;
    this.#offer = offer;
    this.#descriptors = new Map(offer.descriptors.map((name, i) => [name, descriptors[i] ?? -1]));
  }

  /** Undefined in a process that was started in any other way. @throws UbiError E_UPGRADE */
  static async receive(): Promise<Takeover | undefined> {
    const text = process.env[TAKEOVER_VARIABLE];
    if (text === undefined) {
      return undefined;
    }
    delete process.env[TAKEOVER_VARIABLE];
    if (!/^[0-9]{1,6}$/.test(text)) {
      throw new UbiError("E_UPGRADE", `${TAKEOVER_VARIABLE} is set, and no descriptor`);
    }
    const channel = new HandOver(Number(text), "the process that hands the disk over");
    const { message, descriptors } = await channel.expect("offer", { timeoutMs: OFFER_MS });
    const takeover = new Takeover(channel, message, descriptors);
    if (message.format !== HAND_OVER_FORMAT || descriptors.length !== message.descriptors.length) {
      const error = new UbiError(
        "E_UPGRADE",
        `version ${packageJson.version} cannot take over from version ${message.version}; that needs a restart`,
      );
      takeover.refuse(error);
      throw error;
    }
    return takeover;
  }

  /** The version that served so far. */
  get versionBefore(): string {
    return this.#offer.version;
  }

  /** Files, and secrets: they are to be had from here on. @throws UbiError E_UPGRADE */
  disk(): HandedDisk {
    const secrets = this.#descriptors.get("secrets");
    if (secrets !== undefined) {
      adoptSecrets(SecretMemory.take(secrets));
    }
    const { data, metadata } = this.#offer;
    const handedMetadata = metadata === undefined ? undefined : this.#file("metadata", metadata);
    return {
      data: this.#file("data", data),
      metadata: handedMetadata,
      prepare: (disk) => this.#prepare(disk, handedMetadata),
    };
  }

  // As GivenSockets:

  all(): readonly [] {
    return [];
  }

  has(name: string): boolean {
    return this.#offer.sockets[`${name}_socket`] !== undefined;
  }

  placeOf(
    name: "vhost" | "rpc" | "metrics",
    { path }: { readonly path: string | undefined },
  ): SocketPlace | undefined {
    const socket = this.#socket(`${name}_socket`);
    if (socket === undefined) {
      return undefined;
    }
    if (socket.isFileOurs && (path === undefined || resolve(path) !== resolve(socket.path))) {
      throw moved(`device.${name}_socket`, socket.path, path);
    }
    const { fd, isFileOurs } = socket;
    return { path: socket.path, inheritedFd: fd, isFileOurs };
  }

  /** What listens at the address of the config already. @throws UbiError E_UPGRADE */
  metricsAddressFd(address: string | undefined): number | undefined {
    const socket = this.#socket("metrics_address");
    if (socket === undefined) {
      return undefined;
    }
    const isSame = address === socket.path || address?.replace(/:0$/, ":") === hostOf(socket.path);
    if (!isSame) {
      throw moved("device.metrics_address", socket.path, address);
    }
    return socket.fd;
  }

  /** The guest's choice of the write cache. */
  get isWriteback(): boolean | undefined {
    return this.#state?.isWriteback;
  }

  /** Where its rings stopped. */
  get ringEnds(): HandedState["ringEnds"] {
    return this.#state?.ringEnds;
  }

  /** Before its threads start: what commands had changed. Stripes begin nothing before `serving`. */
  restore(device: DiskDevice): void {
    const { limits, isFetchPaused, fetchBytesPerSecond, logLevel } = this.#state ?? {};
    device.stripes?.startHeld();
    if (limits !== undefined) {
      device.limits.set(limits.map(({ perSecond, burst }) => ({ perSecond, burst })));
    }
    if (isFetchPaused === true) {
      device.stripes?.pause();
    }
    if (fetchBytesPerSecond !== undefined) {
      device.stripes?.limit(fetchBytesPerSecond ?? Number.POSITIVE_INFINITY);
    }
    if (logLevel !== undefined) {
      setLogLevel(logLevel);
    }
  }

  /**
   * All threads are ready: says so, and waits until the disk may be served.
   * @throws UbiError E_UPGRADE when the guest would lose something that it was told
   */
  async built(device: DiskDevice, queues: number): Promise<void> {
    this.#checkPromises(device, queues);
    this.#channel.send({ kind: "built" });
    await this.#channel.expect("go", { timeoutMs: GO_MS });
  }

  /** The disk is served: the other process ends. */
  async serving(device: DiskDevice): Promise<void> {
    device.stripes?.letGo();
    try {
      this.#channel.send({ kind: "serving" });
    } catch (error) {
      log.warn("the process that served the disk before ended early", { cause: errorText(error) });
    }
    await this.#channel.closed(END_MS);
    this.#channel[Symbol.dispose]();
  }

  /** Tells the other process why it has to go on. */
  refuse(error: unknown): void {
    const errors = error instanceof UbiErrors ? error.errors : [error];
    const text = errors
      .map((each) =>
        each instanceof UbiError && each.code !== "E_UPGRADE"
          ? `${each.code}: ${each.message}`
          : errorText(each),
      )
      .join("; ");
    this.#channel.refuse(text);
  }

  // --- internal ---

  async #prepare(
    disk: PreparedDisk,
    metadata: HandedFile | undefined,
  ): ReturnType<typeof rehearseOpening> {
    const source = await rehearseOpening(disk, metadata);
    forgetAdoptedSecrets();
    this.#channel.send({ kind: "prepared", version: packageJson.version });
    const { message } = await this.#channel.expect("yours", { timeoutMs: YOURS_MS });
    this.#state = message.state;
    return source;
  }

  #file(name: string, note: Message<"offer">["data"]): HandedFile {
    const fd = this.#descriptors.get(name);
    if (fd === undefined) {
      throw new UbiError("E_UPGRADE", `the ${name} was not handed over`);
    }
    return { ...note, fd, claimFd: this.#descriptors.get(`${name} claim`) ?? -1 };
  }

  #socket(key: string): HandedSocket | undefined {
    const socket = this.#offer.sockets[key];
    const fd = this.#descriptors.get(key);
    if (socket === undefined || fd === undefined) {
      return undefined;
    }
    if (adoptSocket(fd) === undefined) {
      closeDescriptor(fd);
      throw new UbiError("E_UPGRADE", `what was handed over for ${key} does not listen`);
    }
    return { ...socket, fd };
  }

  #checkPromises({ description, marks }: DiskDevice, queues: number): void {
    const offer = this.#offer;
    if (offer.content !== undefined && offer.content !== marks.content) {
      const message =
        "the disk was served with another key, or other metadata, than this configuration names; a guest would read " +
        "nothing of what it wrote";
      throw new UbiError("E_UPGRADE", message);
    }
    const lost =
      (BigInt(offer.features) & ~deviceFeatures(description)) |
      (BigInt(offer.protocolFeatures) & ~PROTOCOL_FEATURES);
    if (lost !== 0n) {
      const what = `features that a guest may use would go (0x${lost.toString(16)})`;
      throw new UbiError("E_UPGRADE", `${what}; that needs a restart, and of the guest as well`);
    }
    if (queues < offer.queues || description.sectors < offer.sectors) {
      const was = `${offer.queues} queues and ${offer.sectors} sectors`;
      const is = `${queues} and ${description.sectors}`;
      const message = `the guest was told of ${was}, and now there are ${is}; that needs a restart`;
      throw new UbiError("E_UPGRADE", message);
    }
  }
}

// --- internal ---

function hostOf(address: string): string {
  return address.slice(0, address.lastIndexOf(":") + 1);
}

function moved(key: string, before: string, path: string | undefined): UbiError {
  const now = path === undefined ? "is gone from the configuration" : `is ${path} by now`;
  return new UbiError("E_UPGRADE", `${key} was ${before} and ${now}; that needs a restart`);
}
