/** The `[danger_zone]`: which dangers a document allows, and what it then uses of them. */
import type { Static } from "@sinclair/typebox";
import type { Findings } from "./findings.ts";
import type { KeyPath } from "./key-positions.ts";
import { type DangerFlag, DangerZoneSection } from "./schema.ts";

/** Nothing is allowed. */
export const DANGER_ZONE_OFF: Static<typeof DangerZoneSection> = {
  enabled: false,
  allow_unencrypted_disk: false,
  allow_inline_plaintext_secrets: false,
  allow_secret_over_regular_file: false,
  allow_unencrypted_connection: false,
  allow_env_secrets: false,
  allow_plain_archive: false,
  allow_archive_keys_in_clear: false,
  allow_remote_metrics: false,
};

/** The flags that are set although `enabled` is false, in the order of the schema. */
export function ignoredFlags(zone: Static<typeof DangerZoneSection>): readonly string[] {
  return zone.enabled ? [] : setFlags(zone);
}

export interface FlagInForce {
  readonly flag: string;
  readonly users: readonly string[];
}

/** Asks the zone for permissions and remembers which were used, and by what. */
export class DangerGate {
  readonly #zone: Static<typeof DangerZoneSection>;
  readonly #uses: { readonly flag: DangerFlag; readonly user: string }[] = [];

  constructor(zone: Static<typeof DangerZoneSection>) {
    this.#zone = zone;
  }

  /** Whether a flag is in force, for a use that is found later. */
  isAllowed(flag: DangerFlag): boolean {
    return this.#zone.enabled && this.#zone[flag];
  }

  /** `user` names the section or secret that needs the flag. */
  allows(flag: DangerFlag, user: string): boolean {
    const isAllowed = this.isAllowed(flag);
    if (isAllowed) {
      this.#uses.push({ flag, user });
    }
    return isAllowed;
  }

  /** The flags that are in force, each with the sections and secrets that need it. */
  get inForce(): readonly FlagInForce[] {
    return this.#active().map((flag) => ({
      flag,
      users: this.#uses.filter((use) => use.flag === flag).map((use) => use.user),
    }));
  }

  /** Warns of flags that are set but not in force, and of those in force with what uses them. */
  report(path: KeyPath, findings: Findings): void {
    const ignored = ignoredFlags(this.#zone);
    if (ignored.length > 0) {
      const flags = ignored.join(", ");
      findings.warn(path, `ignored, because danger_zone.enabled is not true: ${flags}`);
    }
    const active = this.#active();
    if (active.length > 0) {
      const uses = this.#uses.map(({ flag, user }) => `${user} (${flag})`);
      const users = uses.length > 0 ? uses.join(", ") : "nothing";
      findings.warn(path, `in force: ${active.join(", ")}; used by: ${users}`);
    }
  }

  // --- internal ---

  #active(): readonly string[] {
    return this.#zone.enabled ? setFlags(this.#zone) : [];
  }
}

// --- internal ---

function setFlags(zone: Static<typeof DangerZoneSection>): readonly string[] {
  const flags: readonly string[] = Object.keys(DangerZoneSection.properties);
  return flags.filter((flag) => flag !== "enabled" && isSet(zone, flag));
}

function isSet(zone: Readonly<Record<string, boolean>>, flag: string): boolean {
  return zone[flag] === true;
}
