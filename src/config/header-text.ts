/** Whether a text can stand in a header of HTTP, and comes there as it is: access keys and tokens do. */
export function isHeaderText(text: string): boolean {
  return /^[\x21-\x7e\xa1-\xff]([\x20-\x7e\xa0-\xff]*[\x21-\x7e\xa1-\xff])?$/.test(text);
}
