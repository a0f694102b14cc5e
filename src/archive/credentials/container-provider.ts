/**
 * The role of a container: its platform names an address in AWS_CONTAINER_CREDENTIALS_RELATIVE_URI (ECS) or
 * AWS_CONTAINER_CREDENTIALS_FULL_URI (EKS and others), and what to say there in AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE
 * or AWS_CONTAINER_AUTHORIZATION_TOKEN.
 */
import { isHeaderText } from "../../config/header-text.ts";
import { isLoopback } from "../../config/loopback.ts";
import { UbiError } from "../../errors.ts";
import {
  absent,
  type ProviderAnswer,
  type ProviderSurroundings,
  providerError,
} from "./provider.ts";
import { askProvider } from "./provider-request.ts";
import { readJsonCredentials } from "./temporary-credentials.ts";
import { readTokenFile } from "./token-file.ts";

export async function containerCredentials(
  surroundings: ProviderSurroundings,
): Promise<ProviderAnswer> {
  const url = containerUrl(surroundings.variable);
  if (url === undefined) {
    return absent(`${RELATIVE} is not set, nor is ${FULL}`);
  }
  const token = await authorization(surroundings);
  const answer = await askProvider(
    "container",
    {
      method: "GET",
      url,
      headers: {
        accept: "application/json",
        ...(token === undefined ? {} : { authorization: token }),
      },
      namedBy: surroundings.variable(RELATIVE) === undefined ? FULL : RELATIVE,
      timeoutMs: TIMEOUT_MS,
    },
    surroundings,
  );
  const { host } = new URL(url);
  if (answer.status !== 200) {
    throw providerError("container", `${host} refused (status=${answer.status})`);
  }
  const credentials = readJsonCredentials(answer.body, token);
  if ("wrong" in credentials) {
    throw providerError("container", `${host}: ${credentials.wrong}`);
  }
  return { kind: "found", canChange: true, credentials };
}

/**
 * Where to ask. Without encryption that is this machine or one of the addresses that AWS has for it, and no name that
 * somebody else could resolve.
 * @throws UbiError E_CREDENTIALS
 */
export function containerUrl(variable: ProviderSurroundings["variable"]): string | undefined {
  const relative = variable(RELATIVE);
  if (relative !== undefined) {
    if (!/^\/[\x21-\x7e]*$/.test(relative)) {
      throw providerError("container", `${RELATIVE} does not begin with /, or is no path`);
    }
    return `http://${ECS_HOST}${relative}`;
  }
  const full = variable(FULL);
  if (full === undefined) {
    return undefined;
  }
  const url = URL.canParse(full) ? new URL(full) : undefined;
  const isAllowed =
    url?.protocol === "https:" ||
    (url?.protocol === "http:" && (isLoopback(url.hostname) || AWS_HOSTS.has(url.hostname)));
  if (url === undefined || url.username !== "" || url.password !== "" || !isAllowed) {
    const allowed = [...AWS_HOSTS].join(", ");
    throw providerError(
      "container",
      `${FULL} must be https, or http at this machine's loopback addresses, ${allowed}`,
    );
  }
  return url.href;
}

// --- internal ---

const RELATIVE = "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI";
const FULL = "AWS_CONTAINER_CREDENTIALS_FULL_URI";
const TOKEN = "AWS_CONTAINER_AUTHORIZATION_TOKEN";
const TOKEN_FILE = "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE";
const ECS_HOST = "169.254.170.2";
/** ECS, and the pod identity agent of EKS. */
const AWS_HOSTS: ReadonlySet<string> = new Set([ECS_HOST, "169.254.170.23", "[fd00:ec2::23]"]);
const TIMEOUT_MS = 2000;

/** The file counts more: it is exchanged while the program runs. */
async function authorization(surroundings: ProviderSurroundings): Promise<string | undefined> {
  const { variable, hide, files, mayReadEnvironment } = surroundings;
  const file = variable(TOKEN_FILE);
  if (file !== undefined) {
    return await readTokenFile("container", { variable: TOKEN_FILE, path: file }, files);
  }
  const token = variable(TOKEN);
  if (token === undefined) {
    return undefined;
  }
  if (!mayReadEnvironment) {
    throw new UbiError(
      "E_CONFIG_DANGER",
      `credentials "container": ${TOKEN} is a secret in the environment; set danger_zone.enabled with ` +
        "danger_zone.allow_env_secrets",
    );
  }
  if (!isHeaderText(token)) {
    throw providerError("container", `${TOKEN} has a character that no token has`);
  }
  hide(TOKEN);
  return token;
}
