/** What the evidence and the text add to the log-odds at the layer of the answer: two bars around zero. */

import { element, svg } from "./element.js";
import { logit } from "./numbers.js";

const WIDTH = 96;
const HEIGHT = 10;

/** `largest`: the log-odds that fill half of the width, the same for all candidates. */
export function contributions(view, largest) {
  return element(
    "div",
    { class: "contributions" },
    ...line("evidence", view.evidence_logit, largest),
    ...line("text", view.text_logit, largest),
  );
}

export function largestLogit(views) {
  return Math.max(
    1e-9,
    ...views.flatMap((view) => [Math.abs(view.evidence_logit ?? 0), Math.abs(view.text_logit ?? 0)]),
  );
}

function line(name, value, largest) {
  return [
    element("span", { class: "label" }, name),
    bar(name, value ?? 0, largest),
    element("span", { class: "number" }, logit(value)),
  ];
}

function bar(name, value, largest) {
  const zero = WIDTH / 2;
  const length = (zero * Math.abs(value)) / largest;
  return svg(
    "svg",
    { class: "bar-of", viewBox: `0 0 ${WIDTH} ${HEIGHT}`, width: WIDTH, height: HEIGHT, "aria-hidden": "true" },
    svg("rect", { class: `bar-${name}`, x: value < 0 ? zero - length : zero, y: 1, width: length, height: HEIGHT - 2 }),
    svg("line", { class: "bar-zero", x1: zero, x2: zero, y1: 0, y2: HEIGHT }),
  );
}
