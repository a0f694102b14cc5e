/** How much the log tells: error = a person must act, warn = may have to, info = life cycle, debug = all else. */

export const LOG_LEVELS = ["error", "warn", "info", "debug"] as const;
export type LogLevel = (typeof LOG_LEVELS)[number];

/** The level up to which events are told, or none at all. */
export type LogThreshold = LogLevel | "off";

export function isLogLevel(value: unknown): value is LogLevel {
  return LOG_LEVELS.some((level) => level === value);
}

/** 1 for `error` to 4 for `debug`; 0 for `off`. An event is told when its rank is not above that of the threshold. */
export function rankOf(threshold: LogThreshold): number {
  return threshold === "off" ? 0 : LOG_LEVELS.indexOf(threshold) + 1;
}

export function thresholdOf(rank: number): LogThreshold {
  return LOG_LEVELS[rank - 1] ?? "off";
}
