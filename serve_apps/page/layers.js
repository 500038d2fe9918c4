/** The table of what every head says of one candidate, and the sentence of where it stopped. */

import { element } from "./element.js";
import { logit, plural, probability } from "./numbers.js";

const HEADS = ["Layer", "p(yes)", "Evidence", "Text", "May stop", "Criterion holds"];

export function layers(explanation, exitLayer) {
  return element(
    "div",
    { class: "layers" },
    element("p", { class: "stop-sentence" }, explanation.stop),
    element(
      "table",
      {},
      element("caption", {}, "What the head at each layer says; evidence and text in log-odds"),
      element("thead", {}, element("tr", {}, ...HEADS.map((head) => element("th", { scope: "col" }, head)))),
      element("tbody", {}, ...explanation.layers.map((view) => row(view, exitLayer))),
    ),
    element("p", { class: "small" }, context(explanation)),
    element("p", { class: "small" }, "Prompt ", element("code", {}, explanation.prompt_sha256)),
  );
}

function row(view, exitLayer) {
  const stopped = view.layer === exitLayer;
  return element(
    "tr",
    stopped ? { class: "stopped", "aria-current": "true" } : {},
    element("th", { scope: "row" }, `${stopped ? "◆ " : ""}${view.layer === 0 ? "0, evidence" : view.layer}`),
    element("td", {}, probability(view.score)),
    element("td", {}, logit(view.evidence_logit)),
    element("td", {}, logit(view.text_logit)),
    element("td", {}, view.in_use ? "yes" : "no"),
    element("td", {}, view.stops ? "yes" : "no"),
  );
}

function context(explanation) {
  const others = plural(explanation.similarities.length, "similar user");
  if (explanation.evidence_score === null) return `The prompt shows ${others}.`;
  return `The prompt shows ${others}. The evidence alone says ${probability(explanation.evidence_score)}.`;
}
