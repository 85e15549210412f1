// Colours of values, and numbers as text.

const channels = (hex) => [1, 3, 5].map((at) => parseInt(hex.slice(at, at + 2), 16));

function between(stops, share) {
  const above = Math.max(1, stops.findIndex(([at]) => at >= share));
  const [[start, low], [end, high]] = [stops[above - 1], stops[above]];
  const weight = (share - start) / (end - start);
  const [from, to] = [channels(low), channels(high)];
  return `rgb(${from.map((value, i) => Math.round(value + weight * (to[i] - value))).join(" ")})`;
}

const quantile = (sorted, share) => sorted[Math.round(share * (sorted.length - 1))];

// Limits leave out the outermost values, so that one of them does not take all the colours.
export function scaleOf(values, diverging, colours) {
  const sorted = values.filter(Number.isFinite).sort((a, b) => a - b);
  const stops = diverging ? colours.diverging : colours.sequential;
  const background = `linear-gradient(to right, ${stops.map(([at, hex]) => `${hex} ${100 * at}%`).join(", ")})`;
  if (!sorted.length) return { low: NaN, high: NaN, background, colour: () => null };
  let [low, high] = [quantile(sorted, 0.02), quantile(sorted, 0.98)];
  if (diverging) {
    high = Math.max(Math.abs(low), Math.abs(high)) || 1;
    low = -high;
  }
  const share = (value) => (high > low ? Math.min(1, Math.max(0, (value - low) / (high - low))) : 0.5);
  // most effects are small: roots keep them apart
  const rooted = (part) => 0.5 + Math.sign(part - 0.5) * Math.sqrt(Math.abs(part - 0.5) / 2);
  const colour = (value) => {
    if (!Number.isFinite(value)) return null;
    return between(stops, diverging ? rooted(share(value)) : share(value));
  };
  return { low, high, background, colour };
}

export const inUnit = (value, unit) => (unit === "%" ? percent(value) : number(value));

export function number(value, digits = 3) {
  if (value === null || value === undefined || !Number.isFinite(value)) return "n/a";
  if (value !== 0 && (Math.abs(value) >= 1e5 || Math.abs(value) < 1e-3)) return value.toExponential(digits - 1);
  return String(Number(value.toPrecision(digits)));
}

export function percent(value) {
  if (value === null || value === undefined || !Number.isFinite(value)) return "n/a";
  const digits = Math.abs(value) >= 1 ? 0 : 1;
  return `${value >= 0 ? "+" : "−"}${Math.abs(100 * value).toFixed(digits)} %`;
}
