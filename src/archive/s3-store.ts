/**
 * An archive in a bucket of an S3-compatible service. Each operation is one request, tried again by the rules of
 * s3-retry.ts; all that a request needs to be right (length, checksum, a whole body) is checked inside of a try.
 * Its time is bounded: `max_attempts` times what s3-exchange.ts allows, and the waits between.
 */
import { assert, UbiError } from "../errors.ts";
import { abortableSleep } from "./abortable-wait.ts";
import { RequestSigning, type SignedHeaders } from "./credentials/request-signing.ts";
import { keepFromProxy } from "./direct-host.ts";
import { assertKeyPrefix, assertObjectKey, isObjectKey } from "./object-key.ts";
import type {
  GetOptions,
  NewObject,
  ObjectEntry,
  ObjectStore,
  PutNewResult,
  StoreOptions,
} from "./object-store.ts";
import { bucketUrl, encodeComponent, encodePath } from "./s3-address.ts";
import { checksumHeaders, isToldToBe, wrongChecksum } from "./s3-checksum.ts";
import { ReachableHost } from "./s3-connect.ts";
import type { S3StoreDescription } from "./s3-description.ts";
import { BrokenExchange, type ExchangeResponse, exchange, OverlongAnswer } from "./s3-exchange.ts";
import { adviceFor, type Failure, failureText, readFailure } from "./s3-failure.ts";
import { RETRY_COST, S3Limits } from "./s3-limits.ts";
import { readListPage } from "./s3-list.ts";
import {
  BROKEN_CONNECTION,
  classify,
  delayBefore,
  type ResponseFailure,
  type Retry,
  type RetryRules,
} from "./s3-retry.ts";
import { trustedAuthorities } from "./s3-trust.ts";

/** Time and dice, which tests replace. */
export interface S3Surroundings {
  readonly sleep: (ms: number, signal: AbortSignal | undefined) => Promise<void>;
  readonly random: () => number;
  readonly nowMs: () => number;
  /** A body of which nothing comes for this long is given up. */
  readonly stallMs: number;
}

interface Operation {
  /** As S3 calls it. */
  readonly name: string;
  readonly method: string;
  /** With the prefix; empty: the bucket itself. */
  readonly key: string;
  readonly query: string;
  readonly headers: Readonly<Record<string, string>>;
  readonly body?: Uint8Array;
  readonly lengthMax: number;
  readonly isChecksummed?: boolean;
  readonly signal: AbortSignal | undefined;
}

interface Answer extends Pick<SignedHeaders, "generation" | "secrets"> {
  readonly response: ExchangeResponse;
}

/** How one try ended, where it did not succeed. */
interface FailedTry {
  readonly failure: Failure;
  /** undefined: final. */
  readonly retry: Retry | undefined;
  /** Of the credentials, when others may help. */
  readonly refusedGeneration?: number | undefined;
  readonly cause?: unknown;
}

export class S3Store implements ObjectStore {
  readonly name: string;
  readonly #description: S3StoreDescription;
  readonly #surroundings: S3Surroundings;
  readonly #bucketUrl: string;
  readonly #signing: RequestSigning;
  readonly #limits: S3Limits;
  readonly #rules: RetryRules;
  readonly #caCertificates: string | undefined;
  readonly #host: ReachableHost;

  /** @throws UbiError E_STORE */
  constructor(description: S3StoreDescription, surroundings: Partial<S3Surroundings> = {}) {
    this.#description = description;
    this.#surroundings = { ...REAL_SURROUNDINGS, ...surroundings };
    this.name = `s3://${description.bucket}/${description.prefix}`;
    this.#bucketUrl = bucketUrl(description);
    this.#signing = new RequestSigning(description.credentials, description.region);
    this.#limits = new S3Limits(description.shared);
    this.#rules = description;
    this.#caCertificates = trustedAuthorities(this.#bucketUrl, description.caCertificates);
    this.#host = new ReachableHost(this.#bucketUrl, description.connectTimeoutMs);
    keepFromProxy(this.#bucketUrl);
  }

  async get(key: string, options: GetOptions): Promise<Uint8Array | undefined> {
    const response = await this.#run({
      name: "GetObject",
      method: "GET",
      key: this.#fullKey(key),
      query: "?x-id=GetObject",
      headers: this.#isChecksumming ? { "x-amz-checksum-mode": "ENABLED" } : {},
      lengthMax: options.lengthMax,
      isChecksummed: this.#isChecksumming,
      signal: options.signal,
    });
    return response?.body;
  }

  async put(key: string, bytes: Uint8Array, options: StoreOptions = {}): Promise<void> {
    await this.#put(key, bytes, { headers: {}, signal: options.signal });
  }

  async putAll(objects: readonly NewObject[], options: StoreOptions = {}): Promise<void> {
    for (const { key, bytes } of objects) {
      await this.put(key, bytes, options);
    }
  }

  /** Some services refuse the condition, some do not look at it. After a lost answer `exists` may be our own. */
  async putNew(key: string, bytes: Uint8Array, options: StoreOptions = {}): Promise<PutNewResult> {
    try {
      await this.#put(key, bytes, { headers: { "if-none-match": "*" }, signal: options.signal });
      return "put";
    } catch (error) {
      const status = error instanceof S3Refusal ? error.status : undefined;
      const result = status === undefined ? undefined : REFUSED_CONDITIONS[status];
      if (result === undefined) {
        throw error;
      }
      return result;
    }
  }

  async sizeOf(key: string, options: StoreOptions = {}): Promise<number | undefined> {
    const response = await this.#head(key, {}, options);
    return response === undefined ? undefined : this.#lengthIn(response, key);
  }

  /** By what the service tells of the object, without its content: see s3-checksum.ts. */
  async holds(key: string, bytes: Uint8Array, options: StoreOptions = {}): Promise<boolean> {
    const headers = this.#isChecksumming ? { "x-amz-checksum-mode": "ENABLED" } : {};
    const response = await this.#head(key, headers, options);
    return (
      response !== undefined &&
      this.#lengthIn(response, key) === bytes.length &&
      isToldToBe(response.headers, bytes)
    );
  }

  async *list(prefix: string, options: StoreOptions = {}): AsyncGenerator<ObjectEntry> {
    assertKeyPrefix(prefix);
    const fullPrefix = this.#description.prefix + prefix;
    const seen = new Set<string>();
    let continuation = "";
    for (let page = 0; page < LIST_PAGES_MAX; page++) {
      const next =
        continuation === "" ? "" : `continuation-token=${encodeComponent(continuation)}&`;
      const response = await this.#run({
        name: "ListObjectsV2",
        method: "GET",
        key: "",
        query: `?${next}list-type=2&max-keys=1000&prefix=${encodeComponent(fullPrefix)}`,
        headers: {},
        lengthMax: LIST_BYTES_MAX,
        signal: options.signal,
      });
      const list = response === undefined ? undefined : readListPage(response.body);
      if (list === undefined) {
        throw new UbiError("E_STORE", `ListObjectsV2 failed for ${this.name}: not a list`);
      }
      for (const { key, sizeBytes } of list.entries) {
        const own = key.slice(this.#description.prefix.length);
        if (key.startsWith(fullPrefix) && isObjectKey(own)) {
          yield { key: own, sizeBytes };
        }
      }
      if (list.continuation === undefined) {
        return;
      }
      continuation = list.continuation;
      if (seen.has(continuation)) {
        break;
      }
      seen.add(continuation);
    }
    throw new UbiError("E_STORE", `ListObjectsV2 failed for ${this.name}: the list has no end`);
  }

  async remove(key: string, options: StoreOptions = {}): Promise<void> {
    this.#assertWriter();
    await this.#run({
      name: "DeleteObject",
      method: "DELETE",
      key: this.#fullKey(key),
      query: "?x-id=DeleteObject",
      headers: {},
      lengthMax: ANSWER_BYTES_MAX,
      signal: options.signal,
    });
  }

  /** An object that a service has acknowledged is durable. */
  async sync(): Promise<void> {}

  lock(): "unsupported" {
    return "unsupported";
  }

  /** Connections belong to the process; requests under way end by their signals. */
  async [Symbol.asyncDispose](): Promise<void> {}

  // --- internal ---

  async #put(
    key: string,
    bytes: Uint8Array,
    options: Pick<Operation, "headers" | "signal">,
  ): Promise<void> {
    this.#assertWriter();
    const { storageClass, serverSideEncryption } = this.#description;
    await this.#run({
      name: "PutObject",
      method: "PUT",
      key: this.#fullKey(key),
      query: "?x-id=PutObject",
      headers: {
        ...options.headers,
        "content-type": "application/octet-stream",
        ...(this.#isChecksumming ? checksumHeaders(bytes) : {}),
        ...(storageClass === undefined ? {} : { "x-amz-storage-class": storageClass }),
        ...(serverSideEncryption === undefined
          ? {}
          : { "x-amz-server-side-encryption": serverSideEncryption }),
      },
      body: bytes,
      lengthMax: ANSWER_BYTES_MAX,
      signal: options.signal,
    });
  }

  async #head(
    key: string,
    headers: Operation["headers"],
    options: StoreOptions,
  ): Promise<ExchangeResponse | undefined> {
    return this.#run({
      name: "HeadObject",
      method: "HEAD",
      key: this.#fullKey(key),
      query: "",
      headers,
      lengthMax: 0,
      signal: options.signal,
    });
  }

  #lengthIn({ headers }: ExchangeResponse, key: string): number {
    const length = headers.get("content-length");
    if (length === null || !/^\d{1,15}$/.test(length)) {
      const what = `HeadObject failed for key '${this.#fullKey(key)}'`;
      throw new UbiError("E_STORE", `${what}: no length was told`);
    }
    return Number(length);
  }

  get #isChecksumming(): boolean {
    return this.#description.checksums === "always";
  }

  #fullKey(key: string): string {
    assertObjectKey(key);
    return this.#description.prefix + key;
  }

  #assertWriter(): void {
    assert(this.#description.role === "write", "a store opened for reading is not written");
  }

  /** The answer, or undefined where there is no such object. @throws UbiError E_STORE */
  async #run(operation: Operation): Promise<ExchangeResponse | undefined> {
    let paid = 0;
    const { signal } = operation;
    const { sleep, random } = this.#surroundings;
    const renewals = this.#signing.renewals(sleep);
    for (let attempt = 1; ; ) {
      const outcome = await this.#limits.withPlace(signal, () => this.#try(operation, signal));
      if (!("failure" in outcome)) {
        this.#limits.giveBack(paid);
        return outcome.response;
      }
      const { failure, retry, refusedGeneration, cause } = outcome;
      let stale = "";
      if (refusedGeneration !== undefined) {
        const why = await renewals.renew(refusedGeneration, signal);
        if (why === undefined) {
          continue; // not an attempt of those that are counted: the service did not fail
        }
        stale = `; there are no other credentials: ${why}`;
      }
      const cost = retry === undefined ? 0 : RETRY_COST[retry.kind];
      const isLast = retry === undefined || attempt >= this.#description.attemptsMax;
      if (isLast || !this.#limits.takeRetry(cost)) {
        const tries = attempt > 1 ? `; gave up after ${attempt} attempts` : "";
        const quota = isLast ? "" : "; no more retries, since too many requests failed";
        const advice = stale === "" ? adviceFor(failure) : stale;
        const message = `${failureText(operation, failure)}${tries}${quota}${advice}`;
        const code = cause instanceof OverlongAnswer ? "E_STORE_OBJECT" : "E_STORE";
        throw new S3Refusal(code, message, { cause, status: failure.status });
      }
      paid += cost;
      await sleep(delayBefore(retry, attempt, this.#rules, random), signal);
      attempt += 1;
    }
  }

  async #try(
    operation: Operation,
    signal: AbortSignal | undefined,
  ): Promise<{ readonly response: ExchangeResponse | undefined } | FailedTry> {
    let answer: Answer;
    try {
      answer = await this.#exchange(operation, signal);
    } catch (error) {
      if (!(error instanceof BrokenExchange)) {
        throw error;
      }
      const failure = { text: `${new URL(this.#bucketUrl).host}: ${error.message}` };
      return { failure, retry: error.isRetryable ? BROKEN_CONNECTION : undefined, cause: error };
    }
    const { response, secrets, generation } = answer;
    if (response.status >= 200 && response.status < 300) {
      this.#signing.user.accepted();
      return this.#checked(operation, answer);
    }
    const told = readFailure(response, secrets);
    if (isAbsence(operation, told, response)) {
      this.#signing.user.accepted();
      return { response: undefined };
    }
    const failure = isUnexplained(operation, told) ? await this.#explained(operation, told) : told;
    const { random, nowMs } = this.#surroundings;
    const refusedGeneration = this.#signing.isRefusal(failure, generation) ? generation : undefined;
    const retry = classify(failure, this.#rules, random, nowMs());
    return { failure, retry, refusedGeneration };
  }

  /** What a HEAD was refused for: its answer has no document, that of a GET of the same object has. */
  async #explained(
    { key, signal }: Operation,
    failure: Failure & ResponseFailure,
  ): Promise<Failure & ResponseFailure> {
    if (!this.#signing.user.canRenew) {
      return failure;
    }
    try {
      const { response, secrets } = await this.#exchange(
        {
          name: "GetObject",
          method: "GET",
          key,
          query: "?x-id=GetObject",
          headers: { range: "bytes=0-0" },
          lengthMax: 1,
          signal,
        },
        signal,
      );
      const { code, message } = readFailure(response, secrets);
      return response.status < 300 ? failure : { ...failure, code, message };
    } catch (error) {
      if (!(error instanceof BrokenExchange)) {
        throw error;
      }
      return failure;
    }
  }

  async #exchange(operation: Operation, signal: AbortSignal | undefined): Promise<Answer> {
    await this.#host.check(signal);
    const { method, body, lengthMax } = operation;
    const key = operation.key === "" ? "" : encodePath(operation.key);
    const url = `${this.#bucketUrl}/${key}${operation.query}`;
    const { headers, ...signed } = await this.#signing.sign(
      { method, url, headers: operation.headers, body },
      this.#surroundings.nowMs(),
      signal,
    );
    headers.set("accept-encoding", "identity");
    headers.set("user-agent", "ubiblk");
    const response = await exchange(
      { method, url, headers, body, lengthMax, caCertificates: this.#caCertificates, signal },
      { ...this.#description, stallMs: this.#surroundings.stallMs },
    );
    this.#host.answered();
    return { response, ...signed };
  }

  /** Only a 200 (or the 204 of a removal) is what was asked for; part of an object is none. */
  #checked(
    operation: Operation,
    { response, secrets }: Answer,
  ): { readonly response: ExchangeResponse } | FailedTry {
    if (response.status !== 200 && !(operation.method === "DELETE" && response.status === 204)) {
      return {
        failure: { ...readFailure(response, secrets), text: "an unexpected answer" },
        retry: undefined,
      };
    }
    const wrong = operation.isChecksummed === true ? wrongChecksum(response) : undefined;
    if (wrong !== undefined) {
      return { failure: { text: `the ${wrong} of what came is wrong` }, retry: BROKEN_CONNECTION };
    }
    return { response };
  }
}

/** A failure with what the service answered, if it did. */
class S3Refusal extends UbiError {
  readonly status: number | undefined;

  constructor(
    code: "E_STORE" | "E_STORE_OBJECT",
    message: string,
    options: { readonly cause: unknown; readonly status: number | undefined },
  ) {
    super(code, message, { cause: options.cause });
    this.status = options.status;
  }
}

/** 412 PreconditionFailed, 409 ConditionalRequestConflict (another put is under way), 501 NotImplemented. */
const REFUSED_CONDITIONS: Readonly<Record<number, PutNewResult>> = {
  409: "exists",
  412: "exists",
  501: "unsupported",
};

const REAL_SURROUNDINGS: S3Surroundings = {
  sleep: abortableSleep,
  random: Math.random,
  nowMs: Date.now,
  stallMs: 5000,
};

/** Of answers whose content is of no interest. */
const ANSWER_BYTES_MAX = 64 * 1024;
/** A page has 1000 keys of at most 1024 bytes, and some text about each. */
const LIST_BYTES_MAX = 8 * 2 ** 20;
const LIST_PAGES_MAX = 100_000;

/** Some services send a 404 without a document; one for the bucket is an error. */
function isAbsence(operation: Operation, failure: Failure, response: ExchangeResponse): boolean {
  return (
    operation.key !== "" &&
    operation.method !== "PUT" &&
    response.status === 404 &&
    (failure.code === "NoSuchKey" || (failure.code === undefined && response.body.length === 0))
  );
}

/** A HEAD that was refused and may have been so for its credentials. */
function isUnexplained(operation: Operation, { status, code }: Failure): boolean {
  return operation.method === "HEAD" && code === undefined && [400, 401, 403].includes(status ?? 0);
}
