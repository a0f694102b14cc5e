/**
 * The bill of materials (CycloneDX 1.5): what the executable consists of, with the versions that were really built in:
 * those of the running Bun, of the OpenSSL in the native library, and of package-lock.json.
 */
import { readFileSync } from "node:fs";
import { join, resolve } from "node:path";
import packageJson from "../../package.json" with { type: "json" };

const ROOT = resolve(import.meta.dir, "..", "..");

interface Component {
  readonly type: "application" | "framework" | "library";
  readonly "bom-ref": string;
  readonly name: string;
  readonly version: string;
  readonly purl?: string;
  readonly licenses?: readonly { readonly license: { readonly id: string } }[];
  readonly hashes?: readonly { readonly alg: string; readonly content: string }[];
  readonly components?: readonly Component[];
}

export interface BillOfMaterials {
  readonly bomFormat: "CycloneDX";
  readonly specVersion: "1.5";
  readonly version: 1;
  readonly metadata: { readonly timestamp: string; readonly component: Component };
  readonly components: readonly Component[];
  readonly dependencies: readonly {
    readonly ref: string;
    readonly dependsOn: readonly string[];
  }[];
}

export function billOfMaterials(options: {
  readonly executable: Uint8Array;
  readonly dateSeconds: number;
}): BillOfMaterials {
  const component: Component = {
    type: "application",
    "bom-ref": "ubiblk",
    name: packageJson.name,
    version: packageJson.version,
    purl: `pkg:generic/ubiblk@${packageJson.version}`,
    licenses: licensesOf(packageJson.license),
    hashes: [{ alg: "SHA-256", content: sha256(options.executable) }],
  };
  const components = [bunComponent(), opensslComponent(), ...npmComponents()];
  return {
    bomFormat: "CycloneDX",
    specVersion: "1.5",
    version: 1,
    metadata: { timestamp: new Date(options.dateSeconds * 1000).toISOString(), component },
    components,
    dependencies: [
      { ref: "ubiblk", dependsOn: components.map((each) => each["bom-ref"]) },
      ...components.map((each) => ({ ref: each["bom-ref"], dependsOn: [] })),
    ],
  };
}

// --- internal ---

/** Of the OpenSSL in build/libubissl.so, such as `3.0.17`: a text of its own there. */
function opensslVersion(): string {
  const library = readFileSync(join(ROOT, "build", "libubissl.so")).toString("latin1");
  const found = new Set(library.split("\0").filter((text) => /^[3-9]\.\d+\.\d+$/.test(text)));
  const [version] = found;
  if (version === undefined || found.size > 1) {
    throw new Error("build/libubissl.so does not tell the one version of its OpenSSL");
  }
  return version;
}

function sha256(bytes: Uint8Array): string {
  return new Bun.CryptoHasher("sha256").update(bytes).digest("hex");
}

function licensesOf(id: string | undefined): NonNullable<Component["licenses"]> {
  return id === undefined ? [] : [{ license: { id } }];
}

/** Names of interfaces that Bun has, and not of libraries in it. */
const INTERFACES: readonly string[] = ["bun", "node", "modules", "napi", "openssl"];

/** With the libraries in it, as it names them: releases, or commits of their repositories. */
function bunComponent(): Component {
  const parts = Object.entries(process.versions).filter(
    ([name, version]) => !INTERFACES.includes(name) && version !== "",
  );
  return {
    type: "framework",
    "bom-ref": "bun",
    name: "bun",
    version: Bun.version,
    purl: `pkg:github/oven-sh/bun@bun-v${Bun.version}`,
    licenses: licensesOf("MIT"),
    components: parts.map(([name, version = ""]) => ({
      type: "library",
      "bom-ref": `bun/${name}`,
      name,
      version,
    })),
  };
}

function opensslComponent(): Component {
  const version = opensslVersion();
  return {
    type: "library",
    "bom-ref": "openssl",
    name: "openssl",
    version,
    purl: `pkg:generic/openssl@${version}`,
    licenses: licensesOf("Apache-2.0"),
  };
}

interface LockedPackage {
  readonly version?: string;
  readonly license?: string;
  readonly integrity?: string;
  readonly dev?: boolean;
}

/** Those that the executable is built of, not the tools. */
function npmComponents(): readonly Component[] {
  const lock: { readonly packages: Readonly<Record<string, LockedPackage>> } = JSON.parse(
    readFileSync(join(ROOT, "package-lock.json"), "utf8"),
  );
  return Object.entries(lock.packages)
    .filter(([path, { dev }]) => path !== "" && dev !== true)
    .map(([path, { version = "", license, integrity = "" }]) => {
      const name = path.slice(path.lastIndexOf("node_modules/") + "node_modules/".length);
      const [algorithm, digest = ""] = integrity.split("-");
      if (algorithm !== "sha512") {
        throw new Error(`package-lock.json: ${name} has no SHA-512`);
      }
      return {
        type: "library",
        "bom-ref": `npm/${name}`,
        name,
        version,
        purl: `pkg:npm/${name.replace("@", "%40")}@${version}`,
        licenses: licensesOf(license),
        hashes: [{ alg: "SHA-512", content: Uint8Array.fromBase64(digest).toHex() }],
      } as const;
    });
}
