/** Credentials with an end, in the two forms in which services answer them. Pure. */
import { isHeaderText } from "../../config/header-text.ts";
import { childText, parseXml } from "../s3-xml.ts";
import { shownText } from "../shown-text.ts";
import type { Credentials } from "./credentials.ts";

/** Credentials, or what is wrong with the answer: never a part of it that can hold a secret. */
export type ReadCredentials = Credentials | { readonly wrong: string };

/**
 * The JSON of an instance's metadata and of containers.
 * @param token that was sent with the request
 */
export function readJsonCredentials(body: Uint8Array, token?: string): ReadCredentials {
  const answer = parsedJson(body);
  if (typeof answer !== "object" || answer === null) {
    return { wrong: "the answer is not a JSON object" };
  }
  const members = new Map<string, unknown>(Object.entries(answer));
  const code = members.get("Code");
  if (code !== undefined && code !== "Success") {
    return {
      wrong: `its Code is ${typeof code === "string" ? withoutToken(code, token) : "not a text"}`,
    };
  }
  return credentialsFrom((name) => members.get(name === "SessionToken" ? "Token" : name));
}

/** The XML of AssumeRoleWithWebIdentity. */
export function readXmlCredentials(body: Uint8Array): ReadCredentials {
  const root = parseXml(new TextDecoder().decode(body));
  const result = root?.children.find(({ name }) => name === "AssumeRoleWithWebIdentityResult");
  const credentials = result?.children.find(({ name }) => name === "Credentials");
  if (root?.name !== "AssumeRoleWithWebIdentityResponse" || credentials === undefined) {
    return { wrong: "the answer has no credentials" };
  }
  return credentialsFrom((name) => childText(credentials, name));
}

/**
 * `code: message` of a refusal of STS; undefined: it gives no reason.
 * @param token that was sent with the request
 */
export function readXmlRefusal(body: Uint8Array, token: string): string | undefined {
  const root = parseXml(new TextDecoder().decode(body));
  const error = root?.children.find(({ name }) => name === "Error");
  const [code, message] = [childText(error, "Code"), childText(error, "Message")];
  return code === undefined
    ? undefined
    : `${withoutToken(code, token)}: ${withoutToken(message ?? "", token)}`;
}

// --- internal ---

function withoutToken(text: string, token: string | undefined): string {
  return shownText(text, { secrets: token === undefined ? [] : [token], instead: "(token)" });
}

function parsedJson(body: Uint8Array): unknown {
  try {
    return JSON.parse(new TextDecoder().decode(body));
  } catch {
    return undefined; // its message would show a part of the answer
  }
}

function credentialsFrom(
  member: (name: "AccessKeyId" | "SecretAccessKey" | "SessionToken" | "Expiration") => unknown,
): ReadCredentials {
  const accessKeyId = member("AccessKeyId");
  const secretAccessKey = member("SecretAccessKey");
  const sessionToken = member("SessionToken");
  const expiration = member("Expiration");
  if (!isText(accessKeyId) || !isText(secretAccessKey) || !isText(sessionToken)) {
    const faults = [
      faultOf("access key", accessKeyId),
      faultOf("secret key", secretAccessKey),
      faultOf("token", sessionToken),
    ];
    return { wrong: faults.filter((fault) => fault !== undefined).join("; ") };
  }
  const expiresAtMs = typeof expiration === "string" ? Date.parse(expiration) : undefined;
  if (expiration !== undefined && (expiresAtMs === undefined || Number.isNaN(expiresAtMs))) {
    return { wrong: "its Expiration is not a time" };
  }
  return {
    accessKeyId,
    secretAccessKey,
    sessionToken,
    ...(expiresAtMs === undefined ? {} : { expiresAtMs }),
  };
}

function faultOf(name: string, value: unknown): string | undefined {
  if (isText(value)) {
    return undefined;
  }
  const isMissing = typeof value !== "string" || value === "";
  return `the ${name} ${isMissing ? "is missing" : "has a character that none has"}`;
}

function isText(value: unknown): value is string {
  return typeof value === "string" && isHeaderText(value);
}
