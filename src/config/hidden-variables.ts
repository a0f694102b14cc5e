/**
 * Variables of the environment that hold secrets. One that was read is removed from `process.env`, so that no child
 * and no report shows it, and remembered here: it may be asked for again, by another document or when credentials are
 * renewed. That hides nothing from this process, which has its original environment in memory for as long as it lives.
 */
const hidden = new Map<string, string>();

/** The value of a variable, hidden before or not. */
export function variableOf(name: string): string | undefined {
  return process.env[name] ?? hidden.get(name);
}

/** Those that were hidden, with their values. */
export function hiddenVariables(): ReadonlyMap<string, string> {
  return hidden;
}

/** As if it had been hidden here: the process that handed it over has read it. */
export function rememberVariable(name: string, value: string): void {
  hidden.set(name, value);
}

export function hideVariable(name: string): void {
  const value = process.env[name];
  if (value !== undefined) {
    hidden.set(name, value);
    delete process.env[name];
  }
}
