/** Where the metrics of a process can be scraped: the same keys for all that serve. */
import { Type } from "@sinclair/typebox";
import { ours, path, socketGroup, socketMode, socketOwner, text } from "./schema-values.ts";

/** @param socket an example of one */
export const metricsKeys = (socket: string) => ({
  metrics_socket: Type.Optional(
    path({
      description: "Unix socket where metrics can be scraped over HTTP. Absent: there is none.",
      examples: [socket],
      ...ours,
    }),
  ),
  metrics_socket_mode: socketMode(),
  metrics_socket_owner: socketOwner(),
  metrics_socket_group: socketGroup(),
  metrics_address: Type.Optional(
    text({
      description:
        "Address where metrics can be scraped over HTTP: IP:PORT, [IPv6]:PORT or localhost:PORT. One that other machines reach needs allow_remote_metrics.",
      examples: ["127.0.0.1:9464"],
      ...ours,
    }),
  ),
});
