/** What a scrape is answered: metrics at /metrics in the format that the client prefers, and short texts elsewhere. */
import type { HttpRequest } from "./http-request.ts";
import { CONTENT_TYPES, type MetricFormat } from "./text.ts";

/** Why a request that nobody could read is not answered. */
export type HttpRefusal = "invalid" | "too_long" | "too_many";

/** The whole answer, head and body. The connection closes behind it. */
export function httpAnswer(
  request: HttpRequest,
  metrics: (format: MetricFormat) => string,
): string {
  const { method, path, accept } = request;
  const hasBody = method !== "HEAD";
  if (path !== "/metrics") {
    return answer({ status: "404 Not Found", body: "metrics are at /metrics\n", hasBody });
  }
  if (method !== "GET" && method !== "HEAD") {
    const fields = "Allow: GET, HEAD\r\n";
    return answer({ status: "405 Method Not Allowed", body: "GET or HEAD\n", fields, hasBody });
  }
  const format = formatFor(accept);
  return answer({ status: "200 OK", type: CONTENT_TYPES[format], body: metrics(format), hasBody });
}

/** @param message for people */
export function refusalAnswer(refusal: HttpRefusal, message: string): string {
  return answer({ status: REFUSALS[refusal], body: `${message}\n`, hasBody: true });
}

/** OpenMetrics for whoever names it, unless with a weight of nothing. */
export function formatFor(accept: string): MetricFormat {
  const isAccepted = accept
    .split(",")
    .map((part) => part.split(";").map((word) => word.trim().toLowerCase()))
    .some(
      ([type, ...parameters]) =>
        type === "application/openmetrics-text" &&
        !parameters.some((parameter) => /^q=0(\.0*)?$/.test(parameter)),
    );
  return isAccepted ? "openmetrics" : "prometheus";
}

// --- internal ---

const REFUSALS: Readonly<Record<HttpRefusal, string>> = {
  invalid: "400 Bad Request",
  too_long: "431 Request Header Fields Too Large",
  too_many: "503 Service Unavailable",
};

function answer(options: {
  readonly status: string;
  readonly type?: string;
  /** Further lines of the head. */
  readonly fields?: string;
  readonly body: string;
  readonly hasBody: boolean;
}): string {
  const { status, type = "text/plain; charset=utf-8", fields = "", body, hasBody } = options;
  const lengthBytes = Buffer.byteLength(body);
  return (
    `HTTP/1.1 ${status}\r\nContent-Type: ${type}\r\nContent-Length: ${lengthBytes}\r\n` +
    `Cache-Control: no-store\r\nX-Content-Type-Options: nosniff\r\n${fields}Connection: close\r\n\r\n` +
    (hasBody ? body : "")
  );
}
