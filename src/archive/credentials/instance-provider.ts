/**
 * The role of an EC2 instance, by its metadata service in version 2 (a session is begun with a PUT):
 *
 *   PUT  /latest/api/token                                      -> token
 *   GET  /latest/meta-data/iam/security-credentials/            -> name of the role
 *   GET  /latest/meta-data/iam/security-credentials/ROLE        -> credentials, JSON
 *
 * Version 1 is not spoken: what answers to it answers to forged requests as well.
 */
import { isHeaderText } from "../../config/header-text.ts";
import { isLoopback } from "../../config/loopback.ts";
import type { ExchangeResponse } from "../s3-exchange.ts";
import {
  absent,
  namedService,
  type ProviderAnswer,
  type ProviderSurroundings,
  providerError,
} from "./provider.ts";
import { askProvider } from "./provider-request.ts";
import { readJsonCredentials } from "./temporary-credentials.ts";

export async function instanceCredentials(
  surroundings: ProviderSurroundings,
): Promise<ProviderAnswer> {
  const { variable } = surroundings;
  if (variable("AWS_EC2_METADATA_DISABLED")?.toLowerCase() === "true") {
    return absent("AWS_EC2_METADATA_DISABLED is true");
  }
  const endpoint = metadataEndpoint(surroundings);
  const namedBy = variable(ENDPOINT) === undefined ? undefined : ENDPOINT;
  const ask = (method: "GET" | "PUT", path: string, headers: Readonly<Record<string, string>>) =>
    askProvider(
      "instance",
      { method, url: `${endpoint}${path}`, headers, namedBy, timeoutMs: TIMEOUT_MS },
      surroundings,
    );
  const session = await ask("PUT", "/latest/api/token", { [TTL_HEADER]: TTL_SECONDS });
  const [token = ""] = linesIn(session, "a token for the session", 1);
  const headers = { [TOKEN_HEADER]: token };
  const listed = await ask("GET", ROLES_PATH, headers);
  if (listed.status === 404) {
    throw providerError("instance", "no role is attached to this instance");
  }
  const [role = ""] = linesIn(listed, "the name of a role", ROLES_MAX);
  const answer = await ask("GET", `${ROLES_PATH}${encodeURIComponent(role)}`, headers);
  checkStatus(answer, "the credentials of the role");
  const credentials = readJsonCredentials(answer.body, token);
  if ("wrong" in credentials) {
    throw providerError("instance", `the credentials of the role: ${credentials.wrong}`);
  }
  return { kind: "found", canChange: true, credentials };
}

// --- internal ---

const ENDPOINT = "AWS_EC2_METADATA_SERVICE_ENDPOINT";
const TOKEN_HEADER = "x-aws-ec2-metadata-token";
const TTL_HEADER = "x-aws-ec2-metadata-token-ttl-seconds";
/** One session a reading; credentials last some hours. */
const TTL_SECONDS = "300";
const ROLES_PATH = "/latest/meta-data/iam/security-credentials/";
/** Listed, of which the first one counts. An instance has one. */
const ROLES_MAX = 100;
const TIMEOUT_MS = 2000;
/** What answers there is the machine that this one runs on. */
const IPV4_HOST = "169.254.169.254";
const IPV6_HOST = "[fd00:ec2::254]";
const AWS_HOSTS: ReadonlySet<string> = new Set([IPV4_HOST, IPV6_HOST]);

/** @throws UbiError E_CREDENTIALS, E_CONFIG_DANGER */
function metadataEndpoint(surroundings: ProviderSurroundings): string {
  const isNear = (host: string) => isLoopback(host) || AWS_HOSTS.has(host);
  const named = namedService("instance", ENDPOINT, surroundings, isNear);
  if (named !== undefined) {
    return named.href.replace(/\/+$/, "");
  }
  const mode = surroundings.variable("AWS_EC2_METADATA_SERVICE_ENDPOINT_MODE");
  return `http://${mode?.toLowerCase() === "ipv6" ? IPV6_HOST : IPV4_HOST}`;
}

function checkStatus({ status }: ExchangeResponse, what: string): void {
  if (status !== 200) {
    throw providerError("instance", `${what}: the metadata service refused (status=${status})`);
  }
}

/** One line or more, each of which can be sent in a header. */
function linesIn(response: ExchangeResponse, what: string, linesMax: number): readonly string[] {
  checkStatus(response, what);
  const text = new TextDecoder().decode(response.body).trim();
  const lines = text.split("\n").map((line) => line.trim());
  if (lines.length > linesMax || !lines.every(isHeaderText)) {
    throw providerError("instance", `${what}: the metadata service answers something else`);
  }
  return lines;
}
