/** Where a ring's areas lie in this process, by the user addresses that the front end tells. */
import { descriptorRingBytes, EVENT_AREA_ALIGN, EVENT_AREA_BYTES } from "../formats/packed-ring.ts";
import type { VringAddress } from "../formats/vhost-user.ts";
import {
  AVAILABLE_ALIGN,
  DESCRIPTORS_ALIGN,
  ringLayout,
  USED_ALIGN,
} from "../formats/virtio-ring.ts";
import type { MemoryMap } from "./memory-map.ts";

export interface RingPlace {
  readonly descriptors: number;
  /** Of a packed ring the driver's event area. */
  readonly available: number;
  /** Of a packed ring the device's event area. */
  readonly used: number;
}

interface PlacedRing {
  readonly index: number;
  readonly entries: number;
  readonly memory: MemoryMap;
}

/** @throws UbiError E_PROTOCOL when an area is not in guest memory */
export function splitPlace(ring: PlacedRing, address: VringAddress): RingPlace {
  const { memory } = ring;
  const layout = ringLayout(ring.entries);
  const name = `of ring ${ring.index}`;
  return {
    descriptors: memory.translateUser(
      `descriptor table ${name}`,
      address.descriptors,
      layout.descriptorsBytes,
      DESCRIPTORS_ALIGN,
    ),
    available: memory.translateUser(
      `available ring ${name}`,
      address.available,
      layout.availableBytes,
      AVAILABLE_ALIGN,
    ),
    used: memory.translateUser(`used ring ${name}`, address.used, layout.usedBytes, USED_ALIGN),
  };
}

/** @throws UbiError E_PROTOCOL when an area is not in guest memory */
export function packedPlace(ring: PlacedRing, address: VringAddress): RingPlace {
  const { memory } = ring;
  const name = `of ring ${ring.index}`;
  const event = (who: string, at: number) =>
    memory.translateUser(`${who} event area ${name}`, at, EVENT_AREA_BYTES, EVENT_AREA_ALIGN);
  return {
    descriptors: memory.translateUser(
      `descriptor ring ${name}`,
      address.descriptors,
      descriptorRingBytes(ring.entries),
      DESCRIPTORS_ALIGN,
    ),
    available: event("driver", address.available),
    used: event("device", address.used),
  };
}
