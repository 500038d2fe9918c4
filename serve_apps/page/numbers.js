/** Numbers as the page writes them. */

export const NONE = "–";

export function probability(score) {
  return score === null ? NONE : score.toFixed(3);
}

/** Log-odds with their sign. */
export function logit(value) {
  if (value === null) return NONE;
  const text = Math.abs(value).toFixed(2);
  if (Number(text) === 0) return text;
  return (value < 0 ? "−" : "+") + text;
}

export function milliseconds(ms) {
  return `${ms < 10 ? ms.toFixed(1) : Math.round(ms).toLocaleString("en")} ms`;
}

export function plural(count, one, many = `${one}s`) {
  return `${count.toLocaleString("en")} ${count === 1 ? one : many}`;
}
