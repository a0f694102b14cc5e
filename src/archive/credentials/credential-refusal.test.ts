import { expect, test } from "bun:test";
import { refusesCredentials } from "./credential-refusal.ts";

test.each(["ExpiredToken", "TokenRefreshRequired"])(
  "%s: they have ended, whoever saw it first",
  (code) => {
    expect(refusesCredentials(code, false)).toBe(true);
  },
);

test.each(["InvalidAccessKeyId", "InvalidToken", "SignatureDoesNotMatch"])(
  "%s: a wrong setting at first, a rotation once they were good",
  (code) => {
    expect(refusesCredentials(code, false)).toBe(false);
    expect(refusesCredentials(code, true)).toBe(true);
  },
);

test.each([undefined, "AccessDenied", "NoSuchBucket", "RequestTimeTooSkewed"])(
  "%s: other credentials would not help",
  (code) => {
    expect(refusesCredentials(code, true)).toBe(false);
  },
);
