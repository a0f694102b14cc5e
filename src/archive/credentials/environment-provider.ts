/** Credentials in the environment: AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN. They never change. */
import { isHeaderText } from "../../config/header-text.ts";
import {
  absent,
  type ProviderAnswer,
  type ProviderSurroundings,
  pairOf,
  providerError,
} from "./provider.ts";

export async function environmentCredentials({
  variable,
  hide,
}: Pick<ProviderSurroundings, "variable" | "hide">): Promise<ProviderAnswer> {
  const keys = pairOf("environment", variable, [ID, SECRET]);
  if (keys === undefined) {
    return absent(`${ID} is not set`);
  }
  const [accessKeyId, secretAccessKey] = keys;
  const sessionToken = variable(TOKEN);
  for (const [name, value] of [
    [ID, accessKeyId],
    [TOKEN, sessionToken],
  ] as const) {
    if (value !== undefined && !isHeaderText(value)) {
      throw providerError("environment", `${name} has a character that none has`);
    }
  }
  hide(SECRET);
  hide(TOKEN);
  return {
    kind: "found",
    canChange: false,
    credentials: {
      accessKeyId,
      secretAccessKey,
      ...(sessionToken === undefined ? {} : { sessionToken }),
    },
  };
}

// --- internal ---

const ID = "AWS_ACCESS_KEY_ID";
const SECRET = "AWS_SECRET_ACCESS_KEY";
const TOKEN = "AWS_SESSION_TOKEN";
