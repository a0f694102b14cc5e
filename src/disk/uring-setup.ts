/** Setting up an io_uring: io_uring_setup(2), and the mappings of its rings. */
import { errnoText, UbiError } from "../errors.ts";
import type { ArenaView } from "../ffi/arena.ts";
import { mapFile } from "../ffi/memory.ts";
import { closeDescriptor } from "../ffi/socket.ts";
import { uringSetup } from "../ffi/uring.ts";
import { u32 } from "../ffi/view.ts";

/** Entries in hand beside the requests: watches and their removal. */
export const ENTRIES_SPARE = 16;
/** Words of struct io_uring_params. */
export const PARAMS_WORDS = 30;

/**
 * Makes a ring for `entries` submissions, with the best way of doing its work that the kernel has.
 * @param params struct io_uring_params: what the kernel answers
 * @returns its descriptor
 * @throws UbiError E_URING
 */
export function setUpRing(entries: number, params: ArenaView<Uint32Array>): number {
  const wanted = IORING_SETUP_CQSIZE | IORING_SETUP_CLAMP;
  const flagsInOrder = [
    wanted |
      IORING_SETUP_COOP_TASKRUN |
      IORING_SETUP_TASKRUN_FLAG |
      IORING_SETUP_SINGLE_ISSUER |
      IORING_SETUP_DEFER_TASKRUN, // kernel 6.1
    wanted | IORING_SETUP_COOP_TASKRUN | IORING_SETUP_TASKRUN_FLAG, // kernel 5.19
    wanted,
  ];
  const { submissions, completions } = ringEntries(entries);
  let result = 0;
  for (const flags of flagsInOrder) {
    params.view.fill(0);
    params.view[1] = completions;
    params.view[2] = flags;
    result = uringSetup(submissions, params.address);
    if (result >= 0) {
      if ((u32(params.view, 5) & IORING_FEAT_RSRC_TAGS) === 0) {
        closeDescriptor(result);
        throw new UbiError("E_URING", "the kernel's io_uring is too old, 5.13 is needed");
      }
      return result;
    }
  }
  throw new UbiError("E_URING", `the kernel refuses io_uring: ${errnoText(result)}`);
}

/** Memory of a ring for so many requests in flight: its entries, and the kernel's of both queues. */
export function ringBytes(requestsMax: number): number {
  const { submissions, completions } = ringEntries(requestsMax + ENTRIES_SPARE);
  return submissions * (SQE_BYTES + 4) + completions * CQE_BYTES;
}

/** Maps a part of a ring. @throws UbiError E_MEMORY */
export function mapRing(fd: number, offsetBytes: number, lengthBytes: number) {
  const address = mapFile({ fd, offsetBytes, lengthBytes, writable: true });
  return { address, lengthBytes };
}

// --- internal ---

const SQE_BYTES = 64;
const CQE_BYTES = 16;
/** The kernel takes no more (IORING_SETUP_CLAMP). */
const SUBMISSIONS_MAX = 32_768;

function ringEntries(entries: number) {
  const submissions = Math.min(SUBMISSIONS_MAX, 2 ** Math.ceil(Math.log2(entries)));
  return { submissions, completions: Math.max(submissions * 2, 256) };
}

const IORING_SETUP_CQSIZE = 1 << 3;
const IORING_SETUP_CLAMP = 1 << 4;
const IORING_SETUP_COOP_TASKRUN = 1 << 8;
const IORING_SETUP_TASKRUN_FLAG = 1 << 9;
const IORING_SETUP_SINGLE_ISSUER = 1 << 12;
const IORING_SETUP_DEFER_TASKRUN = 1 << 13;

/** Came with multishot polls (kernel 5.13), which have no flag of their own. */
const IORING_FEAT_RSRC_TAGS = 1 << 10;
