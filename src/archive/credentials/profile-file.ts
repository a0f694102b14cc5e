/**
 * The form of the file ~/.aws/credentials: sections in brackets, `name = value` in lines, comments behind # or ; at
 * the beginning of a line or behind a blank. Indented lines belong to the value above them; of keys none has such.
 */

/** The settings of a profile, names in lower case; undefined: there is no such profile. */
export function readProfile(
  text: string,
  profile: string,
): ReadonlyMap<string, string> | undefined {
  let settings: Map<string, string> | undefined;
  let isInside = false;
  for (const line of text.split(/\r?\n/)) {
    const section = /^\[([^\]]*)\]/.exec(line)?.[1];
    if (section !== undefined) {
      isInside = section.trim() === profile;
      settings ??= isInside ? new Map() : undefined;
      continue;
    }
    const match = /^([^\s#;=][^=]*)=(.*)$/.exec(line);
    if (isInside && match !== null) {
      const [, name = "", value = ""] = match;
      settings?.set(name.trim().toLowerCase(), value.replace(/\s[#;].*$/, "").trim());
    }
  }
  return settings;
}
