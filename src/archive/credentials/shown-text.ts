/** How a stranger's text stands in a message: in one short line, and without what he may know of us. */

/** @param token what he was told, and perhaps repeats; taken out before the text is cut, so that no part of it stays */
export function shownText(text: string, token: string | undefined): string {
  const safe = token === undefined ? text : text.replaceAll(token, "(token)");
  return safe
    .replace(/[\p{C}\s]+/gu, " ")
    .trim()
    .slice(0, SHOWN_LENGTH_MAX);
}

// --- internal ---

const SHOWN_LENGTH_MAX = 200;
