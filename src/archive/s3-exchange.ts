/**
 * One request to an S3 service and its whole answer, with every limit that a hostile or broken peer calls for:
 * time to the headers, time without a byte, time for the body, length of the body. Redirects are not followed.
 *
 * What Bun's fetch cannot express is a limit for the connect alone: see s3-connect.ts. Connections are kept and
 * shared by all threads of the process. The environment's HTTPS_PROXY and NO_PROXY count, as Bun reads them, for
 * https; plain http never leaves through a proxy.
 */
import { errorText } from "../errors.ts";
import { startTimer } from "./abortable-wait.ts";

export interface ExchangeTimes {
  /** From the request to the headers of the answer. */
  readonly attemptTimeoutMs: number;
  /** A body of which nothing comes for this long is given up. */
  readonly stallMs: number;
}

export interface ExchangeRequest {
  readonly method: string;
  readonly url: string;
  readonly headers: Headers;
  readonly body: Uint8Array | undefined;
  /** Of the body of a good answer. */
  readonly lengthMax: number;
  readonly caCertificates: string | undefined;
  readonly signal: AbortSignal | undefined;
}

export interface ExchangeResponse {
  readonly status: number;
  readonly headers: Headers;
  /** Of an error only the beginning. Empty for HEAD. */
  readonly body: Uint8Array;
}

/** The answer did not come, or not whole. */
export class BrokenExchange extends Error {
  /** False where another try meets the same, such as a certificate that is not trusted. */
  readonly isRetryable: boolean;

  constructor(message: string, isRetryable: boolean, cause?: unknown) {
    super(message, { cause });
    this.name = "BrokenExchange";
    this.isRetryable = isRetryable;
  }
}

/** A good answer, but longer than was asked for. */
export class OverlongAnswer extends BrokenExchange {
  constructor(message: string) {
    super(message, false);
    this.name = "OverlongAnswer";
  }
}

/**
 * @throws BrokenExchange; the reason of `request.signal` when that ends it
 */
export async function exchange(
  request: ExchangeRequest,
  times: ExchangeTimes,
): Promise<ExchangeResponse> {
  const { signal } = request;
  signal?.throwIfAborted();
  const controller = new AbortController();
  const onAbort = () => controller.abort(signal?.reason);
  signal?.addEventListener("abort", onAbort, { once: true });
  const watch = new Watch(controller);
  try {
    const bodyBytes = request.body?.length ?? 0;
    const headersMs = transferMs(bodyBytes, times);
    watch.expect(headersMs, `no answer within ${headersMs} ms`);
    const response = await fetch(request.url, {
      method: request.method,
      headers: request.headers,
      redirect: "manual",
      decompress: false,
      signal: controller.signal,
      ...(request.body === undefined ? {} : { body: request.body }),
      // Said in so many words: it outweighs NODE_TLS_REJECT_UNAUTHORIZED in the environment.
      tls: {
        rejectUnauthorized: true,
        ...(request.caCertificates === undefined ? {} : { ca: request.caCertificates }),
      },
    });
    const body = await readBody(response, request, times, watch);
    return { status: response.status, headers: response.headers, body };
  } catch (error) {
    controller.abort(); // what is left of the answer
    signal?.throwIfAborted();
    throw watch.failure ?? (error instanceof BrokenExchange ? error : brokenBy(error));
  } finally {
    watch.end();
    signal?.removeEventListener("abort", onAbort);
  }
}

// --- internal ---

/** Bytes per second. */
const TRANSFER_RATE_MIN = 256 * 1024;
/** An error document is short; of a longer one the beginning is enough. */
const ERROR_BODY_BYTES_MAX = 64 * 1024;

/** What a large body is given at least: also on a slow line it shall get through. */
function transferMs(bytes: number, times: ExchangeTimes): number {
  return Math.max(times.attemptTimeoutMs, Math.ceil((bytes / TRANSFER_RATE_MIN) * 1000));
}

/** Ends the exchange when what is expected does not come in time. */
class Watch {
  readonly #controller: AbortController;
  #stopTimer: (() => void) | undefined;
  #failure: BrokenExchange | undefined;

  constructor(controller: AbortController) {
    this.#controller = controller;
  }

  /** Why it was ended, if it was. */
  get failure(): BrokenExchange | undefined {
    return this.#failure;
  }

  expect(withinMs: number, otherwise: string): void {
    this.end();
    this.#stopTimer = startTimer(withinMs, () => {
      this.#failure = new BrokenExchange(otherwise, true);
      this.#controller.abort(this.#failure);
    });
  }

  end(): void {
    this.#stopTimer?.();
  }
}

async function readBody(
  response: Response,
  request: ExchangeRequest,
  times: ExchangeTimes,
  watch: Watch,
): Promise<Uint8Array> {
  if (response.body === null || request.method === "HEAD") {
    return new Uint8Array(0);
  }
  const isError = response.status >= 300;
  const lengthMax = isError ? ERROR_BODY_BYTES_MAX : request.lengthMax;
  const announced = announcedLength(response);
  if (!isError && announced !== undefined && announced > lengthMax) {
    throw new OverlongAnswer(`${announced} bytes, at most ${lengthMax} are expected there`);
  }
  const deadlineMs = performance.now() + transferMs(announced ?? lengthMax, times);
  const collected = new Collector(
    announced === undefined ? lengthMax : Math.min(announced, lengthMax),
  );
  const reader = response.body.getReader();
  while (true) {
    const leftMs = Math.max(deadlineMs - performance.now(), 1);
    watch.expect(
      Math.min(times.stallMs, leftMs),
      leftMs > times.stallMs
        ? `the answer stalled for ${times.stallMs} ms after ${collected.length} bytes`
        : `the answer takes too long: ${collected.length} bytes so far`,
    );
    const { done, value } = await reader.read();
    if (done) {
      break;
    }
    if (!collected.add(value)) {
      if (isError) {
        await reader.cancel();
        return collected.bytes();
      }
      throw new OverlongAnswer(`more than ${lengthMax} bytes were sent`);
    }
  }
  if (!isError && announced !== undefined && collected.length !== announced) {
    throw new BrokenExchange(`${collected.length} bytes came, ${announced} were announced`, true);
  }
  return collected.bytes();
}

function announcedLength(response: Response): number | undefined {
  const header = response.headers.get("content-length");
  return header !== null && /^\d{1,15}$/.test(header) ? Number(header) : undefined;
}

/** Grows to what comes, never beyond its limit. */
class Collector {
  readonly #lengthMax: number;
  #buffer: Uint8Array;
  length = 0;

  constructor(lengthMax: number) {
    this.#lengthMax = lengthMax;
    this.#buffer = new Uint8Array(Math.min(lengthMax, FIRST_BUFFER_BYTES_MAX));
  }

  /** False when it is more than the limit; what fits is kept. */
  add(chunk: Uint8Array): boolean {
    const room = this.#lengthMax - this.length;
    const fitting = chunk.length <= room ? chunk : chunk.subarray(0, room);
    if (this.length + fitting.length > this.#buffer.length) {
      const wanted = Math.max(this.length + fitting.length, 2 * this.#buffer.length);
      const larger = new Uint8Array(Math.min(wanted, this.#lengthMax));
      larger.set(this.#buffer.subarray(0, this.length));
      this.#buffer = larger;
    }
    this.#buffer.set(fitting, this.length);
    this.length += fitting.length;
    return fitting.length === chunk.length;
  }

  bytes(): Uint8Array {
    return this.#buffer.subarray(0, this.length);
  }
}

/** What is believed of an announced length before any byte came. */
const FIRST_BUFFER_BYTES_MAX = 4 * 2 ** 20;

function brokenBy(error: unknown): BrokenExchange {
  const code = error instanceof Error && "code" in error ? String(error.code) : "";
  const text = errorText(error).split(". For more information")[0]?.split(" fetching ")[0] ?? "";
  if (/CERT|SIGNATURE|ISSUER|ALTNAME/.test(code)) {
    return new BrokenExchange(`the certificate is not trusted: ${text}; see ca_file`, false, error);
  }
  return new BrokenExchange(text, true, error);
}
