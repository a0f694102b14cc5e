/** Stripe servers: how a server listens and how a client reaches one. */
import { Type } from "@sinclair/typebox";
import { metricsKeys } from "./schema-metrics.ts";
import {
  closed,
  flag,
  milliseconds,
  ours,
  path,
  secret,
  socketGroup,
  socketMode,
  socketOwner,
  text,
} from "./schema-values.ts";

const address = () =>
  text({
    description: "Address of the stripe server: HOST:PORT or [IPv6]:PORT.",
    examples: ["192.0.2.1:7777"],
  });

/** Of a client, and of a server but for the address, which it can do without. */
export const remoteKeys = {
  address: address(),
  psk: Type.Optional(
    Type.Object(
      {
        identity: text({
          description: "Name of the key, 1 to 255 bytes, the same on both sides.",
          examples: ["host-b"],
        }),
        secret: secret(
          { bytesMin: 16, bytesMax: 512 },
          { description: "The key itself, 16 to 512 bytes.", examples: ["psk"] },
        ),
      },
      { ...closed, description: "Pre-shared key of the connection, which encrypts it (TLS)." },
    ),
  ),
  autofetch: flag("Fetches all stripes in the background. Has no effect in [server]."),
  connect_timeout_ms: milliseconds(
    5000,
    "How long connecting may take, in milliseconds; at a server the TLS handshake.",
  ),
  operation_attempt_timeout_ms: milliseconds(
    20_000,
    "How long an answer, or the rest of a request, may take, in milliseconds.",
  ),
  connections: Type.Integer({
    minimum: 1,
    maximum: 65_535,
    default: 16,
    description: "Connections of a client to the server. Has no effect in [server].",
  }),
};

export const ServerSection = Type.Object(
  {
    ...remoteKeys,
    address: Type.Optional(address()),
    unix_socket: Type.Optional(
      path({
        description: "Unix socket to serve stripes at, beside address or instead of it.",
        examples: ["/run/ubiblk/stripes.sock"],
        ...ours,
      }),
    ),
    unix_socket_mode: socketMode(),
    unix_socket_owner: socketOwner(),
    unix_socket_group: socketGroup(),
    rpc_socket: Type.Optional(
      path({
        description: "Unix socket for status and counters of the server. Absent: there is none.",
        examples: ["/run/ubiblk/stripes-rpc.sock"],
        ...ours,
      }),
    ),
    rpc_socket_mode: socketMode(),
    rpc_socket_owner: socketOwner(),
    rpc_socket_group: socketGroup(),
    ...metricsKeys("/run/ubiblk/stripes-metrics.sock"),
    max_connections: Type.Integer({
      minimum: 1,
      maximum: 4096,
      default: 256,
      description: "How many clients are served at a time. Further ones are turned away.",
      ...ours,
    }),
    idle_timeout_ms: Type.Integer({
      minimum: 1,
      maximum: Number.MAX_SAFE_INTEGER,
      default: 3_600_000,
      description: "How long a client may ask for nothing, in milliseconds.",
      ...ours,
    }),
  },
  { ...closed, description: "A stripe server, for the server itself and for its shell." },
);
