/** A thread that reads published bytes until `end`, and counts those that are not all the same byte. */
import { PublishedBytes } from "../../src/archive/credentials/published-bytes.ts";

declare const self: Worker;

self.onmessage = ({ data }) => {
  const published = PublishedBytes.attach(data);
  let mixtures = 0;
  let reads = 0;
  postMessage("reading");
  for (let isOver = false; !isOver; reads += 1) {
    const read = published.read()?.bytes ?? new Uint8Array(0);
    isOver = new TextDecoder().decode(read.subarray(0, 4)) === "end";
    mixtures += !isOver && read.some((byte) => byte !== read[0]) ? 1 : 0;
  }
  postMessage({ mixtures, reads });
};
