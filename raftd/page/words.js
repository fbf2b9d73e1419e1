// Numbers, times and texts as people read them.

const integers = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
const tenths = new Intl.NumberFormat("en", { maximumFractionDigits: 1 });
const hundredths = new Intl.NumberFormat("en", { maximumFractionDigits: 2 });
export const clock = new Intl.DateTimeFormat([], {
  hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23",
});
export const day = new Intl.DateTimeFormat([], { month: "short", day: "numeric" });

export const NONE = "–";

export function number(value) {
  return value === null || value === undefined ? NONE : integers.format(value);
}

export function count(value, noun, nouns = `${noun}s`) {
  return `${number(value)} ${value === 1 ? noun : nouns}`;
}

/** A rate or a latency with the precision that a person wants: three digits or so. */
export function measure(value) {
  if (value === null || value === undefined) return NONE;
  const format = value >= 100 ? integers : value >= 10 ? tenths : hundredths;
  return format.format(value);
}

export function milliseconds(value) {
  return value === null || value === undefined ? NONE : `${measure(value)} ms`;
}

export function duration(ms) {
  const seconds = Math.floor(ms / 1000);
  if (seconds < 120) return `${seconds} s`;
  if (seconds < 7200) return `${Math.floor(seconds / 60)} min`;
  if (seconds < 172800) return `${Math.floor(seconds / 3600)} h`;
  return `${Math.floor(seconds / 86400)} days`;
}

/** How long the leader has not heard from a server. */
export function silence(ms) {
  if (ms === null || ms === undefined) return NONE;
  return ms < 1000 ? `${integers.format(ms)} ms` : ms < 120000 ? `${tenths.format(ms / 1000)} s` : duration(ms);
}

export function bytes(value) {
  let size = value;
  for (const unit of ["B", "KiB", "MiB", "GiB"]) {
    if (size < 1000 || unit === "GiB") {
      return `${unit === "B" ? integers.format(size) : tenths.format(size)} ${unit}`;
    }
    size /= 1024;
  }
  return "";
}

export function names(list) {
  return list.length ? `{${list.join(" ")}}` : "{}";
}
