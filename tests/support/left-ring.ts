/** Rings as a backend that died left them in the hands of a front end that keeps no notes. */
import { encodeMemoryTable, REQUEST } from "../../src/formats/vhost-user.ts";
import { REQUEST_TYPE } from "../../src/formats/virtio-blk.ts";
import { AVAILABLE, ENTRIES, HostileClient, USED } from "./hostile-client.ts";

/** Three requests, of which `used` were answered, the first one first. */
export function startLeftRing(
  socketPath: string,
  used: number,
  change: (client: HostileClient) => void,
): HostileClient {
  const client = new HostileClient(socketPath);
  client.negotiate([]);
  for (const head of [4, 8, 12]) {
    client.setChain(head, [client.header(head, REQUEST_TYPE.FLUSH, 0), client.statusByte(head)]);
  }
  client.offer(4, 8, 12);
  client.memory.setUint32(USED + 4, 4, true);
  client.memory.setUint32(USED + 8, 1, true);
  change(client);
  client.memory.setUint16(USED + 2, used, true);
  client.command(REQUEST.SET_MEM_TABLE, encodeMemoryTable([client.region]), [client.memoryFd]);
  client.startRing(0, used);
  return client;
}

/** One head over and over: an older one may be open behind it. */
export function startUncertainRing(socketPath: string): HostileClient {
  return startLeftRing(socketPath, 2 * ENTRIES, ({ memory }) => {
    for (let i = 0; i < ENTRIES; i++) {
      memory.setUint16(AVAILABLE + 4 + i * 2, 4, true);
      memory.setUint32(USED + 4 + i * 8, 4, true);
    }
    memory.setUint16(AVAILABLE + 2, 2 * ENTRIES + 1, true);
  });
}
