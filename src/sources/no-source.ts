/** The source of a disk that has none, or that needs it no more. It holds nothing, so nothing is asked of it. */
import { AssertionError } from "../errors.ts";
import { SECTOR_BYTES } from "../formats/virtio-blk.ts";
import type { StripeSource } from "./stripe-source.ts";

export const NO_SOURCE: StripeSource = {
  sectors: 0,
  unitBytes: SECTOR_BYTES,
  waitFd: -1,
  has: () => false,
  request: () => {
    throw new AssertionError("nothing is asked of a source that holds nothing");
  },
  raise: () => {},
  submit: () => {},
  completions: () => 0,
  completedId: () => -1,
  completedResult: () => 0,
  release: () => {},
  [Symbol.dispose]: () => {},
};
