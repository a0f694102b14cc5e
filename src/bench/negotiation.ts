/** What the bench and a backend agree on when they meet. */
import { UbiError } from "../errors.ts";
import {
  bitMask,
  decodeConfigPart,
  encodeConfigPart,
  hasBit,
  PROTOCOL_FEATURE,
  REQUEST,
} from "../formats/vhost-user.ts";
import {
  type BlockConfig,
  CONFIG_BYTES,
  decodeBlockConfig,
  FEATURE,
} from "../formats/virtio-blk.ts";
import type { Connection } from "./connection.ts";
import type { FrontEndOptions } from "./front-end.ts";

const WANTED_FEATURES = bitMask(
  FEATURE.BLK_SIZE_MAX,
  FEATURE.BLK_SEG_MAX,
  FEATURE.BLK_RO,
  FEATURE.BLK_BLK_SIZE,
  FEATURE.BLK_FLUSH,
  FEATURE.BLK_TOPOLOGY,
  FEATURE.BLK_CONFIG_WCE,
  FEATURE.BLK_MQ,
  FEATURE.VHOST_USER_PROTOCOL_FEATURES,
  FEATURE.VERSION_1,
);

export interface Negotiated {
  readonly features: bigint;
  readonly protocol: bigint;
  readonly config: BlockConfig;
}

/** @throws UbiError E_BENCH, E_PROTOCOL */
export function negotiate(connection: Connection, options: FrontEndOptions): Negotiated {
  const offered = connection.askFirst(REQUEST.GET_FEATURES);
  requireBit(offered, FEATURE.VHOST_USER_PROTOCOL_FEATURES, "protocol features");
  requireBit(offered, FEATURE.VERSION_1, "virtio 1");
  const offeredProtocol = connection.askU64(REQUEST.GET_PROTOCOL_FEATURES);
  requireBit(offeredProtocol, PROTOCOL_FEATURE.CONFIG, "the configuration space");
  const protocol = offeredProtocol & wantedProtocol(options);
  connection.commandU64(REQUEST.SET_PROTOCOL_FEATURES, protocol);
  connection.isAcknowledging = hasBit(protocol, PROTOCOL_FEATURE.REPLY_ACK);
  connection.command(REQUEST.SET_OWNER);
  checkQueueCount(connection, protocol, options.queueCount);
  const part = encodeConfigPart({ offset: 0, flags: 0, bytes: new Uint8Array(CONFIG_BYTES) });
  const reply = connection.ask(REQUEST.GET_CONFIG, part);
  if (reply.length === 0) {
    throw new UbiError("E_PROTOCOL", "the backend has no configuration space");
  }
  const config = decodeBlockConfig(decodeConfigPart(reply).bytes);
  const features = offered & wantedFeatures(options);
  requireChosen(features, options);
  connection.commandU64(REQUEST.SET_FEATURES, features);
  return { features, protocol, config };
}

export function requireBit(mask: bigint, bit: number, what: string): void {
  if (!hasBit(mask, bit)) {
    throw new UbiError("E_PROTOCOL", `the backend does not offer ${what}`);
  }
}

// --- internal ---

function wantedProtocol(options: FrontEndOptions): bigint {
  const bits: number[] = [PROTOCOL_FEATURE.MQ, PROTOCOL_FEATURE.CONFIG];
  if (options.usesReplyAck) {
    bits.push(PROTOCOL_FEATURE.REPLY_ACK);
  }
  if (options.usesMemorySlots) {
    bits.push(PROTOCOL_FEATURE.CONFIGURE_MEM_SLOTS);
  }
  if (options.isReconnecting && options.usesInflight) {
    bits.push(PROTOCOL_FEATURE.INFLIGHT_SHMFD);
  }
  return bitMask(...bits);
}

function wantedFeatures(options: FrontEndOptions): bigint {
  const eventIndex = options.usesEventIndex ? bitMask(FEATURE.RING_EVENT_IDX) : 0n;
  const indirect = options.isIndirect ? bitMask(FEATURE.RING_INDIRECT_DESC) : 0n;
  const packed = options.isPacked ? bitMask(FEATURE.RING_PACKED) : 0n;
  return WANTED_FEATURES | eventIndex | indirect | packed;
}

function requireChosen(features: bigint, options: FrontEndOptions): void {
  if (options.isIndirect) {
    requireBit(features, FEATURE.RING_INDIRECT_DESC, "indirect descriptors");
  }
  if (options.isPacked) {
    requireBit(features, FEATURE.RING_PACKED, "packed rings");
  }
}

function checkQueueCount(connection: Connection, protocol: bigint, queueCount: number): void {
  const offered = hasBit(protocol, PROTOCOL_FEATURE.MQ)
    ? Number(connection.askU64(REQUEST.GET_QUEUE_NUM))
    : 1;
  if (queueCount > offered) {
    const queues = `${offered} queue${offered === 1 ? "" : "s"}`;
    const hint = "raise num_queues in its [tuning], or lower --queues";
    throw new UbiError("E_BENCH", `the backend has ${queues}, ${queueCount} are wanted; ${hint}`);
  }
}
