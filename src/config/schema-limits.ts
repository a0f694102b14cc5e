/** The section of a device document that limits what a guest may do in a second. */
import { Type } from "@sinclair/typebox";
import { LIMIT_BYTES_MIN } from "./limit-rules.ts";
import { closed, ours } from "./schema-values.ts";

const limit = (minimum: number, description: string, example: number) =>
  Type.Optional(
    Type.Integer({
      minimum,
      maximum: Number.MAX_SAFE_INTEGER,
      description,
      examples: [example],
      ...ours,
    }),
  );
const operations = (description: string, example: number) => limit(1, description, example);
const bytes = (description: string, example: number) =>
  limit(LIMIT_BYTES_MIN, description, example);

export const LimitsSection = Type.Object(
  {
    iops: operations("Operations in a second: reads, writes, discards and write-zeroes.", 5000),
    iops_burst: operations("Operations that may go at once after a rest.", 20_000),
    read_iops: operations("Reads in a second.", 5000),
    read_iops_burst: operations("Reads that may go at once after a rest.", 20_000),
    write_iops: operations("Writes, discards and write-zeroes in a second.", 2000),
    write_iops_burst: operations("Writes that may go at once after a rest.", 8000),
    bytes_per_second: bytes("Bytes that are read and written in a second.", 100 * 2 ** 20),
    bytes_burst: bytes("Bytes that may be moved at once after a rest.", 400 * 2 ** 20),
    read_bytes_per_second: bytes("Bytes that are read in a second.", 100 * 2 ** 20),
    read_bytes_burst: bytes("Bytes that may be read at once after a rest.", 400 * 2 ** 20),
    write_bytes_per_second: bytes("Bytes that are written in a second.", 50 * 2 ** 20),
    write_bytes_burst: bytes("Bytes that may be written at once after a rest.", 200 * 2 ** 20),
  },
  {
    ...closed,
    ...ours,
    default: {},
    description:
      "What a guest may do in a second, over all queues. Off unless set; a burst is a tenth of its limit unless set.",
  },
);
