/**
 * An S3 service in this process, on loopback, that does on demand what real ones do on bad days. It checks every
 * signature (sigv4.ts) and every checksum, takes both styles of address, and lists in small pages.
 */
import type { Server } from "bun";
import type { S3StoreDescription } from "../../src/archive/s3-description.ts";
import { createSharedLimits } from "../../src/archive/s3-limits.ts";
import { fixedCredentials } from "./fixed-credentials.ts";
import { accessKeyIn, type SigningKey, signatureFault } from "./sigv4.ts";

/** What a request meets instead of a good answer. */
export interface Fault {
  readonly status?: number;
  readonly code?: string;
  readonly headers?: Readonly<Record<string, string>>;
  /** Instead of the error document of `code`. */
  readonly body?: string;
  readonly delayMs?: number;
  /** It is held back until this is done. */
  readonly until?: Promise<unknown>;
  /** How the body of a good GET comes. */
  readonly spoil?: "cut" | "checksum" | "stall" | "endless";
}

export interface SeenRequest {
  /** `PUT data/00`: the method and the key. */
  readonly what: string;
  readonly headers: Headers;
  readonly target: string;
  readonly timeMs: number;
}

export const TEST_KEY: SigningKey = {
  accessKeyId: "test-id",
  secretAccessKey: "test/secret+key",
  region: "test-region-1",
};

export const TEST_BUCKET = "test-bucket";

export class S3Server implements Disposable {
  readonly bucket = TEST_BUCKET;
  /** By the full key. */
  readonly objects = new Map<string, Uint8Array>();
  readonly seen: SeenRequest[] = [];
  /** Asked for each request that is signed well; the first answer to a key counts from 1. */
  fault: (what: string, nth: number) => Fault | undefined = () => undefined;
  pageSize = 3;
  sessionToken: string | undefined;
  /** What requests have to be signed with. */
  key: SigningKey = TEST_KEY;
  /** Of requests that were refused for their credentials. */
  refusals = 0;
  /** Done before such a refusal is sent. */
  onRefusal: () => unknown = () => {};
  concurrencyMax = 0;
  /** What a HEAD tells of an object's content. */
  tells: "checksum" | "md5" | "nothing" = "checksum";
  /** What it makes of `If-None-Match: *`. */
  conditions: "kept" | "refused" | "ignored" = "kept";
  #underWay = 0;
  readonly #counts = new Map<string, number>();
  /** What those hear that come with credentials that were good before. */
  readonly #former = new Map<string, { readonly status: number; readonly code: string }>();
  readonly #server: Server<undefined>;

  constructor() {
    this.#server = Bun.serve({
      hostname: "127.0.0.1",
      port: 0,
      idleTimeout: 60,
      fetch: (request) => this.#counted(request),
    });
  }

  get port(): number {
    return this.#server.port ?? 0;
  }

  /** For a store of this server: quick to give up, unless the test says otherwise. */
  description(changes: Partial<S3StoreDescription> = {}): S3StoreDescription {
    const connections = changes.connections ?? 4;
    return {
      kind: "s3",
      role: "write",
      bucket: this.bucket,
      prefix: "some/prefix/",
      region: TEST_KEY.region,
      endpoint: `http://127.0.0.1:${this.port}`,
      isPathStyleForced: false,
      credentials: fixedCredentials({ ...this.key, sessionToken: this.sessionToken }),
      connections,
      connectTimeoutMs: 2000,
      attemptTimeoutMs: 5000,
      attemptsMax: 3,
      rateLimitedRetry: undefined,
      caCertificates: undefined,
      storageClass: undefined,
      serverSideEncryption: undefined,
      checksums: "always",
      shared: createSharedLimits(connections),
      ...changes,
    };
  }

  /** From now on only these credentials are good. */
  rotate(key: SigningKey, told = { status: 400, code: "ExpiredToken" }): void {
    this.#former.set(this.key.accessKeyId, told);
    this.key = key;
  }

  [Symbol.dispose](): void {
    this.#server.stop(true);
  }

  // --- internal ---

  async #counted(request: Request): Promise<Response> {
    this.#underWay += 1;
    this.concurrencyMax = Math.max(this.concurrencyMax, this.#underWay);
    try {
      return await this.#answer(request);
    } finally {
      this.#underWay -= 1;
    }
  }

  async #answer(request: Request): Promise<Response> {
    const body = await request.bytes();
    const target = request.url.slice(request.url.indexOf("/", "http://".length));
    const { headers, method } = request;
    const token = this.sessionToken === undefined ? {} : { sessionToken: this.sessionToken };
    const wrong = signatureFault({ method, target, headers, body }, { ...this.key, ...token });
    if (wrong !== undefined) {
      const { status, code } = this.#former.get(accessKeyIn(headers)) ?? {
        status: 403,
        code: wrong,
      };
      this.refusals += 1;
      await this.onRefusal();
      return errorResponse(status, code);
    }
    const url = new URL(request.url);
    const isVirtual = url.hostname.startsWith(`${this.bucket}.`);
    const path = decodeURIComponent(url.pathname).slice(1);
    if (!isVirtual && path.split("/")[0] !== this.bucket) {
      return errorResponse(404, "NoSuchBucket");
    }
    const key = isVirtual ? path : path.slice(this.bucket.length + 1);
    const what = `${method} ${key}`;
    this.seen.push({ what, headers, target, timeMs: performance.now() });
    const nth = (this.#counts.get(what) ?? 0) + 1;
    this.#counts.set(what, nth);
    const fault = this.fault(what, nth);
    if (fault?.delayMs !== undefined) {
      await Bun.sleep(fault.delayMs);
    }
    if (fault?.until !== undefined) {
      await fault.until;
    }
    if (fault?.status !== undefined) {
      const text = fault.body ?? errorDocument(fault.code ?? "");
      const shown = method === "HEAD" ? null : text;
      return new Response(shown, { status: fault.status, headers: fault.headers ?? {} });
    }
    return this.#serve({ method, key, url, headers, body }, fault?.spoil);
  }

  #serve(
    request: { method: string; key: string; url: URL; headers: Headers; body: Uint8Array },
    spoil: Fault["spoil"],
  ): Response {
    const { method, key, url, headers, body } = request;
    const object = this.objects.get(key);
    if (key === "" && url.searchParams.get("list-type") === "2") {
      return this.#listPage(url.searchParams);
    }
    switch (method) {
      case "PUT": {
        const told = headers.get("x-amz-checksum-crc32");
        if (told !== null && told !== crc32(body)) {
          return errorResponse(400, "BadDigest");
        }
        if (headers.get("if-none-match") === "*" && this.conditions !== "ignored") {
          if (this.conditions === "refused") {
            return errorResponse(501, "NotImplemented");
          }
          if (object !== undefined) {
            return errorResponse(412, "PreconditionFailed");
          }
        }
        this.objects.set(key, body);
        return new Response(null, { headers: { etag: '"x"' } });
      }
      case "DELETE":
        this.objects.delete(key);
        return new Response(null, { status: 204 });
      case "HEAD":
        return object === undefined
          ? new Response(null, { status: 404 })
          : new Response(object, { headers: this.#toldOf(object, headers) });
      default:
        return object === undefined
          ? errorResponse(404, "NoSuchKey")
          : objectResponse(object, spoil, headers.has("x-amz-checksum-mode"));
    }
  }

  #toldOf(object: Uint8Array, asked: Headers): Record<string, string> {
    switch (this.tells) {
      case "checksum":
        return asked.has("x-amz-checksum-mode") ? { "x-amz-checksum-crc32": crc32(object) } : {};
      case "md5":
        return { etag: `"${new Bun.CryptoHasher("md5").update(object).digest("hex")}"` };
      case "nothing":
        return { etag: '"0123456789abcdef0123456789abcdef-2"' };
    }
  }

  #listPage(parameters: URLSearchParams): Response {
    const prefix = parameters.get("prefix") ?? "";
    const after = parameters.get("continuation-token") ?? "";
    const keys = [...this.objects.keys()]
      .filter((key) => key.startsWith(prefix) && key > after)
      .sort();
    const page = keys.slice(0, this.pageSize);
    const contents = page.map((key) => {
      const size = this.objects.get(key)?.length;
      return `<Contents><Key>${Bun.escapeHTML(key)}</Key><Size>${size}</Size></Contents>`;
    });
    const isTruncated = page.length < keys.length;
    const next = isTruncated
      ? `<NextContinuationToken>${Bun.escapeHTML(page.at(-1) ?? "")}</NextContinuationToken>`
      : "";
    return new Response(
      '<?xml version="1.0" encoding="UTF-8"?>\n' +
        '<ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">' +
        `<IsTruncated>${isTruncated}</IsTruncated>${next}${contents.join("")}</ListBucketResult>`,
    );
  }
}

/** The length of a body that has no end. */
const ENDLESS_BYTES = 256 * 2 ** 20;

function objectResponse(object: Uint8Array, spoil: Fault["spoil"], isChecked: boolean): Response {
  const sum = crc32(spoil === "checksum" ? new Uint8Array(1) : object);
  const headers = isChecked ? { "x-amz-checksum-crc32": sum } : {};
  if (spoil === undefined || spoil === "checksum") {
    return new Response(object.slice(), { headers });
  }
  const half = object.slice(0, object.length / 2);
  const stream = new ReadableStream({
    async start(controller) {
      controller.enqueue(half);
      if (spoil === "cut") {
        await Bun.sleep(20);
        controller.error(new Error("cut, as the test wants it"));
      } else if (spoil === "endless") {
        for (let sent = 0; sent < ENDLESS_BYTES; sent += 65_536) {
          controller.enqueue(new Uint8Array(65_536));
          await Bun.sleep(0);
        }
      }
    },
  });
  return new Response(stream, { headers });
}

function errorResponse(status: number, code: string): Response {
  return new Response(errorDocument(code), { status });
}

function errorDocument(code: string): string {
  return `<?xml version="1.0"?><Error><Code>${code}</Code><Message>as the test &quot;wants&quot; it</Message></Error>`;
}

function crc32(bytes: Uint8Array): string {
  const sum = Buffer.alloc(4);
  sum.writeUInt32BE(Bun.hash.crc32(bytes));
  return sum.toString("base64");
}
