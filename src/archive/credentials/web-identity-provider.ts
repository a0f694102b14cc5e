/**
 * A role for the identity that a platform vouches for (Kubernetes and others): the token in AWS_WEB_IDENTITY_TOKEN_FILE
 * is exchanged for credentials of AWS_ROLE_ARN at the security token service. The request is not signed: the token is
 * the proof.
 */
import { hostname } from "node:os";
import { isLoopback } from "../../config/loopback.ts";
import { UbiError } from "../../errors.ts";
import {
  absent,
  type ProviderAnswer,
  type ProviderSurroundings,
  providerError,
} from "./provider.ts";
import { askProvider } from "./provider-request.ts";
import { readXmlCredentials, readXmlRefusal } from "./temporary-credentials.ts";
import { readTokenFile } from "./token-file.ts";

export async function webIdentityCredentials(
  surroundings: ProviderSurroundings,
): Promise<ProviderAnswer> {
  const { variable, files } = surroundings;
  const file = variable(TOKEN_FILE);
  const role = variable(ROLE);
  if (file === undefined && role === undefined) {
    return absent(`${TOKEN_FILE} is not set`);
  }
  if (file === undefined || role === undefined) {
    const [is, lacks] = file === undefined ? [ROLE, TOKEN_FILE] : [TOKEN_FILE, ROLE];
    throw providerError("web_identity", `${is} is set and ${lacks} is not; set both, or none`);
  }
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

/** @throws UbiError E_CREDENTIALS, E_CONFIG_DANGER: the token is a secret, and so is the answer */
function tokenServiceUrl({
  variable,
  region,
  mayConnectUnencrypted,
}: ProviderSurroundings): string {
  const named = variable(ENDPOINT);
  if (named === undefined) {
    if (!/^[a-z]{2,}(-[a-z]+)+-\d+$/.test(region)) {
      const what = `${JSON.stringify(region)} is no region of AWS; set region, or ${ENDPOINT}`;
      throw providerError("web_identity", what);
    }
    const domain = region.startsWith("cn-") ? "amazonaws.com.cn" : "amazonaws.com";
    return `https://sts.${region}.${domain}/`;
  }
  const url = URL.canParse(named) ? new URL(named) : undefined;
  if (url === undefined || (url.protocol !== "http:" && url.protocol !== "https:")) {
    throw providerError("web_identity", `${ENDPOINT} is not the URL of a service`);
  }
  if (url.protocol === "http:" && !isLoopback(url.hostname) && !mayConnectUnencrypted) {
    throw new UbiError(
      "E_CONFIG_DANGER",
      `credentials "web_identity": ${ENDPOINT} is http to another machine; use https, or set danger_zone.enabled ` +
        "with danger_zone.allow_unencrypted_connection",
    );
  }
  return url.href;
}

/** Who it was, in the log of the service: 2 to 64 of the characters that it accepts. */
function sessionName(): string {
  return `ubiblk-${hostname()}`.replace(/[^\w+=,.@-]/g, "-").slice(0, 64);
}
