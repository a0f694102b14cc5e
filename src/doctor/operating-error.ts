/** What goes wrong with a system is a finding; what is wrong with this program is thrown on. */
import { errorText, UbiError } from "../errors.ts";

/** The text of an operating error. @throws `error` when it is none */
export function operatingErrorText(error: unknown): string {
  if (!(error instanceof UbiError)) {
    throw error;
  }
  return errorText(error);
}
