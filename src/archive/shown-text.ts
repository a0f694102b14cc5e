/** How a stranger's text stands in a message of ours: in one short line, and without what he may know of us. */

/**
 * @param secrets what he was told, and perhaps repeats: taken out before the text is cut, so that no part stays
 * @param instead what stands there in their place
 */
export function shownText(
  text: string,
  {
    secrets,
    instead = "(secret)",
  }: { readonly secrets: readonly string[]; readonly instead?: string },
): string {
  const line = withoutSecrets(text, secrets, instead)
    .replace(/[\p{C}\s]+/gu, " ")
    .trim();
  return line.length > SHOWN_LENGTH_MAX ? `${line.slice(0, SHOWN_LENGTH_MAX)}...` : line;
}

// --- internal ---

const SHOWN_LENGTH_MAX = 300;

/** Also as they are when they are encoded for an address or a document. */
function withoutSecrets(text: string, secrets: readonly string[], instead: string): string {
  const forms = secrets
    .flatMap((secret) => [secret, encodeURIComponent(secret), JSON.stringify(secret).slice(1, -1)])
    .filter((form) => form !== "")
    .sort((one, other) => other.length - one.length); // of what begins alike no end stays
  return forms.reduce((safe, form) => safe.replaceAll(form, instead), text);
}
