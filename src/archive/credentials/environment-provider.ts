/** Credentials in the environment: AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN. They never change. */
import { isHeaderText } from "../../config/header-text.ts";
import {
  absent,
  type ProviderAnswer,
  type ProviderSurroundings,
  providerError,
} from "./provider.ts";

export async function environmentCredentials({
  variable,
  hide,
}: Pick<ProviderSurroundings, "variable" | "hide">): Promise<ProviderAnswer> {
  const accessKeyId = variable(ID);
  const secretAccessKey = variable(SECRET);
  const sessionToken = variable(TOKEN);
  if (accessKeyId === undefined && secretAccessKey === undefined) {
    return absent(`${ID} is not set`);
  }
  if (accessKeyId === undefined || secretAccessKey === undefined) {
    const [is, lacks] = accessKeyId === undefined ? [SECRET, ID] : [ID, SECRET];
    throw providerError("environment", `${is} is set and ${lacks} is not; set both, or none`);
  }
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
