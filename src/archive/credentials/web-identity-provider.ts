/**
 * A role for the identity that a platform vouches for (Kubernetes and others): the token in AWS_WEB_IDENTITY_TOKEN_FILE
 * is exchanged for credentials of AWS_ROLE_ARN at the security token service. The request is not signed: the token is
 * the proof.
 */
import { hostname } from "node:os";
import { isLoopback } from "../../config/loopback.ts";
import {
  absent,
  namedService,
  type ProviderAnswer,
  type ProviderSurroundings,
  pairOf,
  providerError,
} from "./provider.ts";
import { askProvider } from "./provider-request.ts";
import { readXmlCredentials, readXmlRefusal } from "./temporary-credentials.ts";
import { readTokenFile } from "./token-file.ts";

export async function webIdentityCredentials(
  surroundings: ProviderSurroundings,
): Promise<ProviderAnswer> {
  const { variable, files } = surroundings;
  const names = pairOf("web_identity", variable, [TOKEN_FILE, ROLE]);
  if (names === undefined) {
    return absent(`${TOKEN_FILE} is not set`);
  }
  const [file, role] = names;
  const url = tokenServiceUrl(surroundings);
  const token = await readTokenFile("web_identity", { variable: TOKEN_FILE, path: file }, files);
  const form = new URLSearchParams({
    Action: "AssumeRoleWithWebIdentity",
    Version: "2011-06-15",
    RoleArn: role,
    RoleSessionName: variable("AWS_ROLE_SESSION_NAME") ?? sessionName(),
    WebIdentityToken: token,
  });
  const answer = await askProvider(
    "web_identity",
    {
      method: "POST",
      url,
      headers: { "content-type": "application/x-www-form-urlencoded", accept: "text/xml" },
      body: new TextEncoder().encode(form.toString()),
      namedBy: variable(ENDPOINT) === undefined ? undefined : ENDPOINT,
      timeoutMs: TIMEOUT_MS,
    },
    surroundings,
  );
  const { host } = new URL(url);
  if (answer.status !== 200) {
    const reason = readXmlRefusal(answer.body, token) ?? "no reason is given";
    throw providerError("web_identity", `${host} refused (status=${answer.status}): ${reason}`);
  }
  const credentials = readXmlCredentials(answer.body);
  if ("wrong" in credentials) {
    throw providerError("web_identity", `${host}: ${credentials.wrong}`);
  }
  return { kind: "found", canChange: true, credentials };
}

// --- internal ---

const TOKEN_FILE = "AWS_WEB_IDENTITY_TOKEN_FILE";
const ROLE = "AWS_ROLE_ARN";
const ENDPOINT = "AWS_ENDPOINT_URL_STS";
const TIMEOUT_MS = 5000;

/** @throws UbiError E_CREDENTIALS, E_CONFIG_DANGER */
function tokenServiceUrl(surroundings: ProviderSurroundings): string {
  const named = namedService("web_identity", ENDPOINT, surroundings, isLoopback);
  if (named !== undefined) {
    return named.href;
  }
  const { region } = surroundings;
  if (!/^[a-z]{2,}(-[a-z]+)+-\d+$/.test(region)) {
    const what = `${JSON.stringify(region)} is no region of AWS; set region, or ${ENDPOINT}`;
    throw providerError("web_identity", what);
  }
  const domain = region.startsWith("cn-") ? "amazonaws.com.cn" : "amazonaws.com";
  return `https://sts.${region}.${domain}/`;
}

/** Who it was, in the log of the service: 2 to 64 of the characters that it accepts. */
function sessionName(): string {
  return `ubiblk-${hostname()}`.replace(/[^\w+=,.@-]/g, "-").slice(0, 64);
}
