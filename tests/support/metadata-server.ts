/**
 * What a machine may offer credentials with, in this process on loopback: the metadata service of an instance, the
 * endpoint of a container, and a security token service. It answers well, or as a hostile one would.
 */
import type { Server } from "bun";
import type { TestCredentials } from "./fixed-credentials.ts";

const ROLE = "the-role";
export const CONTAINER_TOKEN = "container-token-1";
export const WEB_IDENTITY = "eyJ.web.identity";

const SESSION = "metadata-session";
const ROLES = "/latest/meta-data/iam/security-credentials/";

export class MetadataServer implements Disposable {
  readonly seen: string[] = [];
  credentials: TestCredentials;
  expiration: string | undefined = new Date(Date.now() + 6 * 3_600_000).toISOString();
  /** Instead of the good answer to a request (`GET /path`), if it returns one. */
  spoil: (what: string, nth: number) => Response | Promise<Response> | undefined = () => undefined;
  readonly #server: Server<undefined>;

  constructor(credentials: TestCredentials) {
    this.credentials = credentials;
    this.#server = Bun.serve({
      hostname: "127.0.0.1",
      port: 0,
      fetch: (request) => this.#answer(request),
    });
  }

  get url(): string {
    return `http://127.0.0.1:${this.#server.port}`;
  }

  [Symbol.dispose](): void {
    this.#server.stop(true);
  }

  // --- internal ---

  async #answer(request: Request): Promise<Response> {
    const { pathname } = new URL(request.url);
    const what = `${request.method} ${pathname}`;
    this.seen.push(what);
    const nth = this.seen.filter((each) => each === what).length;
    return (await this.spoil(what, nth)) ?? this.#good(what, request);
  }

  async #good(what: string, request: Request): Promise<Response> {
    const { headers } = request;
    const isInSession = headers.get("x-aws-ec2-metadata-token") === SESSION;
    switch (what) {
      case "PUT /latest/api/token":
        return headers.has("x-aws-ec2-metadata-token-ttl-seconds")
          ? new Response(SESSION)
          : new Response("", { status: 400 });
      case `GET ${ROLES}`:
        return isInSession ? new Response(`${ROLE}\n`) : new Response("", { status: 401 });
      case `GET ${ROLES}${ROLE}`:
        return isInSession ? Response.json(this.#json()) : new Response("", { status: 401 });
      case "GET /container":
        return headers.get("authorization") === CONTAINER_TOKEN
          ? Response.json(this.#json())
          : new Response("", { status: 403 });
      case "POST /sts":
        return this.#assumeRole(new URLSearchParams(await request.text()));
      default:
        return new Response("", { status: 404 });
    }
  }

  #assumeRole(form: URLSearchParams): Response {
    const isGood =
      form.get("Action") === "AssumeRoleWithWebIdentity" &&
      form.get("Version") === "2011-06-15" &&
      form.get("WebIdentityToken") === WEB_IDENTITY &&
      /^[\w+=,.@-]{2,64}$/.test(form.get("RoleSessionName") ?? "");
    const namespace = 'xmlns="https://sts.amazonaws.com/doc/2011-06-15/"';
    if (!isGood) {
      const text = `it was ${form.get("WebIdentityToken")}`;
      const body = `<ErrorResponse ${namespace}><Error><Type>Sender</Type><Code>InvalidIdentityToken</Code><Message>${text}</Message></Error></ErrorResponse>`;
      return new Response(body, { status: 400 });
    }
    const { accessKeyId, secretAccessKey, sessionToken } = this.credentials;
    return new Response(
      `<AssumeRoleWithWebIdentityResponse ${namespace}><AssumeRoleWithWebIdentityResult>` +
        `<AssumedRoleUser><Arn>${form.get("RoleArn")}</Arn></AssumedRoleUser><Credentials>` +
        `<AccessKeyId>${accessKeyId}</AccessKeyId><SecretAccessKey>${secretAccessKey}</SecretAccessKey>` +
        `<SessionToken>${sessionToken}</SessionToken><Expiration>${this.expiration}</Expiration>` +
        "</Credentials></AssumeRoleWithWebIdentityResult></AssumeRoleWithWebIdentityResponse>",
    );
  }

  #json(): Record<string, unknown> {
    const { accessKeyId, secretAccessKey, sessionToken } = this.credentials;
    return {
      Code: "Success",
      Type: "AWS-HMAC",
      AccessKeyId: accessKeyId,
      SecretAccessKey: secretAccessKey,
      Token: sessionToken,
      Expiration: this.expiration,
    };
  }
}
