/** How the requests of one store in one thread are signed: with the credentials of the day, whichever these are. */
import { S3Signer, type UnsignedRequest } from "../s3-signer.ts";
import { refusesCredentials } from "./credential-refusal.ts";
import { secretsOf } from "./credentials.ts";
import { CredentialUser, type SharedCredentials } from "./shared-credentials.ts";

export interface SignedHeaders {
  readonly headers: Headers;
  /** Of the credentials that it was signed with. */
  readonly generation: number;
  /** What the service got now or before, and may send back, and no message may show. */
  readonly secrets: readonly string[];
}

interface Refusal {
  readonly status: number;
  /** `<Code>` of the error document. */
  readonly code: string | undefined;
}

/** Waits, or until the signal. */
type Sleep = (ms: number, signal: AbortSignal | undefined) => Promise<void>;

export class RequestSigning {
  readonly user: CredentialUser;
  readonly #region: string;
  #signer: { readonly generation: number; readonly signer: S3Signer } | undefined;
  #secrets: readonly string[] = [];
  #formerSecrets: readonly string[] = [];

  constructor(shared: SharedCredentials, region: string) {
    this.user = new CredentialUser(shared);
    this.#region = region;
  }

  /** @throws UbiError E_STORE when the store was closed; the signal's reason */
  async sign(
    request: UnsignedRequest,
    nowMs: number,
    signal: AbortSignal | undefined,
  ): Promise<SignedHeaders> {
    const { generation, credentials } = await this.user.usable(nowMs, signal);
    if (this.#signer?.generation !== generation) {
      this.#signer = { generation, signer: new S3Signer(credentials, this.#region) };
      this.#formerSecrets = [...this.#secrets, ...this.#formerSecrets].slice(0, FORMER_SECRETS_MAX);
      this.#secrets = secretsOf(credentials);
    }
    const { signer } = this.#signer;
    const former = this.#formerSecrets;
    const headers = await signer.sign(request);
    return { headers, generation, secrets: [...signer.secretsIn(headers), ...former] };
  }

  /** Whether other credentials may help a request that was refused: the code says so, or there are others by now. */
  isRefusal({ status, code }: Refusal, generation: number): boolean {
    const isRefused = status === 400 || status === 401 || status === 403;
    return (
      isRefused &&
      (this.user.generation !== generation || refusesCredentials(code, this.user.wereAccepted))
    );
  }

  /** For one request, however often it is tried. */
  renewals(sleep: Sleep): RequestRenewals {
    return new RequestRenewals(this.user, sleep);
  }
}

/**
 * What one request may do about credentials that are refused. They are asked for several times, since a rotation takes
 * its time: what writes files may come after the service has changed, and write them one by one.
 */
export class RequestRenewals {
  readonly #user: CredentialUser;
  readonly #sleep: Sleep;
  #count = 0;

  constructor(user: CredentialUser, sleep: Sleep) {
    this.#user = user;
    this.#sleep = sleep;
  }

  /**
   * Returns undefined when there are others than those of `generation`, so that the request may be tried again; else
   * why not. @throws the signal's reason
   */
  async renew(generation: number, signal: AbortSignal | undefined): Promise<string | undefined> {
    let why: string | undefined = REFUSED_AS_WELL;
    while (this.#count < PAUSES_MS.length) {
      const pauseMs = PAUSES_MS[this.#count] ?? 0;
      this.#count += 1;
      if (pauseMs > 0) {
        await this.#sleep(pauseMs, signal);
      }
      why = await this.#user.renew(generation, signal);
      if (why === undefined || !this.#user.canRenew) {
        return why;
      }
    }
    return why;
  }
}

// --- internal ---

/** So many rotations that what is older has ended by itself: a key and a token each. */
const FORMER_SECRETS_MAX = 2 * 32;
/** Before each renewal. */
const PAUSES_MS = [0, 2000, 5000] as const;
const REFUSED_AS_WELL = "they were read again, and those are refused as well";
