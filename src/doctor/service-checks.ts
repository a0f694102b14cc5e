/** An S3 service, seen without credentials: its name, a TLS connection, and its clock against ours. */
import { readFileSync } from "node:fs";
import { regionOf, type S3Settings } from "../archive/open-store.ts";
import { bucketUrl } from "../archive/s3-address.ts";
import { errorText } from "../errors.ts";
import type { Finding } from "./finding.ts";

export async function* examineService(settings: S3Settings): AsyncGenerator<Finding> {
  const check = "service";
  const url = bucketUrl({
    bucket: settings.bucket,
    region: regionOf(settings),
    endpoint: settings.endpoint,
    isPathStyleForced: settings.forcePathStyle,
  });
  const { host } = new URL(url);
  try {
    const ca = settings.caFile === undefined ? undefined : readFileSync(settings.caFile, "utf8");
    const response = await fetch(url, {
      method: "HEAD",
      redirect: "manual",
      signal: AbortSignal.timeout(ANSWER_MS),
      tls: { rejectUnauthorized: true, ...(ca === undefined ? {} : { ca }) },
    });
    const found = `${host} answers (HTTP ${response.status} without credentials)`;
    yield { check, verdict: "ok", found };
    yield* clockFindings(response.headers.get("date"), Date.now());
  } catch (error) {
    const advice = "check endpoint, region, ca_file, the name server, the network and a proxy";
    yield { check, verdict: "fail", found: `${host}: ${errorText(error)}`, advice };
  }
}

/** Services refuse requests whose time is 15 minutes off. */
export function* clockFindings(date: string | null, nowMs: number): Generator<Finding> {
  const check = "clock";
  const offSeconds = Math.round((nowMs - Date.parse(date ?? "")) / 1000);
  if (Number.isNaN(offSeconds)) {
    return;
  }
  const found = `this machine's is ${Math.abs(offSeconds)} s ${offSeconds < 0 ? "behind" : "ahead of"} the service's`;
  const advice = "set the clock (chrony, systemd-timesyncd)";
  const off = Math.abs(offSeconds);
  yield off > REFUSED_SECONDS
    ? { check, verdict: "fail", found: `${found}, requests are refused`, advice }
    : off > WARNED_SECONDS
      ? { check, verdict: "warn", found, advice }
      : { check, verdict: "ok", found: "agrees with the service's" };
}

// --- internal ---

const ANSWER_MS = 5_000;
const WARNED_SECONDS = 60;
const REFUSED_SECONDS = 900;
