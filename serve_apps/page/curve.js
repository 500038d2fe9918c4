/** p(yes) by layer as a small curve. */

import { svg } from "./element.js";
import { probability } from "./numbers.js";

const WIDTH = 128;
const HEIGHT = 40;
const EDGE = 6;

/** Solid up to the layer where the model stopped, dashed for what deeper layers would have said. */
export function curve(layers, exitLayer, [low, high]) {
  const deepest = Math.max(1, layers.at(-1).layer);
  const x = (layer) => EDGE + ((WIDTH - 2 * EDGE) * layer) / deepest;
  const y = (score) => EDGE + ((HEIGHT - 2 * EDGE) * (high - score)) / (high - low);
  const points = (views) => views.map((view) => `${x(view.layer).toFixed(1)},${y(view.score).toFixed(1)}`).join(" ");
  const picture = svg(
    "svg",
    {
      class: "curve",
      viewBox: `0 0 ${WIDTH} ${HEIGHT}`,
      width: WIDTH,
      height: HEIGHT,
      role: "img",
      "aria-label": said(layers, exitLayer),
    },
    svg("line", { class: "curve-half", x1: 0, x2: WIDTH, y1: y(0.5), y2: y(0.5) }),
    svg("polyline", { class: "curve-beyond", points: points(layers.filter((view) => view.layer >= exitLayer)) }),
    svg("polyline", { class: "curve-run", points: points(layers.filter((view) => view.layer <= exitLayer)) }),
    ...layers.map((view) => svg("circle", { class: "curve-head", cx: x(view.layer), cy: y(view.score), r: 1.8 })),
  );
  const stop = layers.find((view) => view.layer === exitLayer);
  if (stop) picture.append(...marker(x(stop.layer), y(stop.score)));
  return picture;
}

/** Lowest and highest p(yes) of all curves, so that they can be compared; 0.5 is always among them. */
export function scoreRange(items) {
  const scores = items.flatMap((item) => item.explanation?.layers.map((view) => view.score) ?? []);
  return [Math.min(0.4, ...scores), Math.max(0.6, ...scores)];
}

function marker(x, y) {
  const size = 5;
  const diamond = `${x},${y - size} ${x + size},${y} ${x},${y + size} ${x - size},${y}`;
  return [
    svg("line", { class: "curve-stop-line", x1: x, x2: x, y1: 0, y2: HEIGHT }),
    svg("polygon", { class: "curve-stop", points: diamond }),
  ];
}

function said(layers, exitLayer) {
  const views = layers.map((view) => `${probability(view.score)} at layer ${view.layer}`).join(", ");
  return `p(yes): ${views}; stopped at layer ${exitLayer}`;
}
