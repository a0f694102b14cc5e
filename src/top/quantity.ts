/** Numbers as the live view shows them: three digits or so and a unit, in a width that is known. */

/** `7`, `0.5`, `9999`, `12.3k`, `1.23M`; at most 6 characters. */
export function countText(value: number): string {
  if (value < 9999.5) {
    const rounded = Math.round(value);
    return value < 9.95 && Math.abs(value - rounded) >= 0.05 ? value.toFixed(1) : `${rounded}`;
  }
  return scaled(value, COUNT_UNITS, 1000);
}

/** `0 B`, `512 B`, `1.50 KiB`, `12.3 MiB`; at most 8 characters. */
export function bytesText(bytes: number): string {
  return scaled(bytes, BYTE_UNITS, 1024);
}

/** `983ns`, `12.3us`, `1.23ms`, `45.6s`; at most 6 characters. */
export function latencyText(nanoseconds: number): string {
  return nanoseconds < 1e12
    ? scaled(nanoseconds, TIME_UNITS, 1000)
    : durationText(nanoseconds / 1e9);
}

/** `7s`, `4m12s`, `1h05m`, `3d04h`. */
export function durationText(seconds: number): string {
  const whole = Math.min(Math.round(seconds), DURATION_MAX_SECONDS);
  const pad = (value: number): string => `${value}`.padStart(2, "0");
  if (whole < 60) {
    return `${whole}s`;
  }
  if (whole < 3600) {
    return `${Math.floor(whole / 60)}m${pad(whole % 60)}s`;
  }
  const hours = Math.floor(whole / 3600);
  return hours < 24
    ? `${hours}h${pad(Math.floor((whole % 3600) / 60))}m`
    : `${Math.floor(hours / 24)}d${pad(hours % 24)}h`;
}

// --- internal ---

const COUNT_UNITS = ["", "k", "M", "G", "T", "P"];
const BYTE_UNITS = [" B", " KiB", " MiB", " GiB", " TiB", " PiB"];
const TIME_UNITS = ["ns", "us", "ms", "s"];
const DURATION_MAX_SECONDS = 9999 * 86_400;

function scaled(value: number, units: readonly string[], base: number): string {
  let unit = 0;
  let rest = value;
  while (unit < units.length - 1 && digits(rest, unit) >= base) {
    rest /= base;
    unit += 1;
  }
  return `${digitsText(rest, unit)}${units[unit]}`;
}

/** The value as it will be shown: 1023.7 MiB is 1.00 GiB. */
function digits(value: number, unit: number): number {
  return Number(digitsText(value, unit));
}

function digitsText(value: number, unit: number): string {
  if (unit === 0 || value >= 99.95) {
    return `${Math.round(value)}`;
  }
  return value >= 9.995 ? value.toFixed(1) : value.toFixed(2);
}
