/** One request to a service that gives credentials: bounded in time, length and number of tries. */
import type { CredentialProvider } from "../../config/schema.ts";
import type { UbiError } from "../../errors.ts";
import { abortableSleep } from "../abortable-wait.ts";
import { keepFromProxy } from "../direct-host.ts";
import { BrokenExchange, type ExchangeResponse, exchange } from "../s3-exchange.ts";
import { trustedAuthorities } from "../s3-trust.ts";
import { type ProviderSurroundings, providerError } from "./provider.ts";

export interface ProviderRequest {
  readonly method: "GET" | "PUT" | "POST";
  readonly url: string;
  readonly headers: Readonly<Record<string, string>>;
  readonly body?: Uint8Array;
  /** The variable that says where the service is; undefined: it is where it always is. */
  readonly namedBy: string | undefined;
  /** From the request to the answer's beginning, and for the answer. */
  readonly timeoutMs: number;
}

/**
 * The answer, whatever its status.
 * @throws UbiError E_CREDENTIALS when there is none; the signal's reason
 */
export async function askProvider(
  provider: CredentialProvider,
  request: ProviderRequest,
  { caCertificates, signal }: Pick<ProviderSurroundings, "caCertificates" | "signal">,
): Promise<ExchangeResponse> {
  const { method, url, body, timeoutMs } = request;
  keepFromProxy(url);
  for (let attempt = 1; ; attempt += 1) {
    const isLast = attempt === ATTEMPTS_MAX;
    try {
      const response = await exchange(
        {
          method,
          url,
          headers: new Headers({ ...request.headers, "user-agent": "ubiblk" }),
          body,
          lengthMax: ANSWER_BYTES_MAX,
          caCertificates: trustedAuthorities(url, caCertificates),
          signal,
        },
        { attemptTimeoutMs: timeoutMs, stallMs: timeoutMs },
      );
      if (response.status < 500 || isLast) {
        return response;
      }
    } catch (error) {
      if (!(error instanceof BrokenExchange)) {
        throw error;
      }
      if (isLast || !error.isRetryable) {
        throw unreachable(provider, request, error);
      }
    }
    await abortableSleep(PAUSE_MS * attempt, signal);
  }
}

// --- internal ---

function unreachable(
  provider: CredentialProvider,
  { url, namedBy }: ProviderRequest,
  { message }: BrokenExchange,
): UbiError {
  const why = message.replace(/\.? ?Is the computer able.*$/, "");
  const mend = namedBy === undefined ? "" : `mend ${namedBy}, which names it, or `;
  const advice = `${mend}leave "${provider}" out of credentials`;
  return providerError(provider, `no answer of ${new URL(url).host}: ${why}; ${advice}`);
}

const ATTEMPTS_MAX = 3;
const PAUSE_MS = 200;
const ANSWER_BYTES_MAX = 64 * 1024;
