/** One candidate: a row, and what it opens. */

import { contributions } from "./contributions.js";
import { curve } from "./curve.js";
import { element, title } from "./element.js";
import { layers } from "./layers.js";
import { probability } from "./numbers.js";
import { rating } from "./rating.js";

/** The head whose answer a candidate got. */
export function answering(item) {
  return item.explanation?.layers.find((view) => view.layer === item.exit_layer) ?? null;
}

/**
 * `place`: {rank, was}: `was` is the rank before, null for one that was not there, undefined where there is no before.
 * `about`: {largest, range, values, likeThreshold, isOpen, toggle, rate, remove}.
 */
export function candidate(item, index, place, about) {
  const panelId = `candidate-${index}`;
  const open = about.isOpen(item.item_id);
  const panel = element("div", { class: "panel", id: panelId }, ...opened(item, about));
  panel.hidden = !open;
  const button = element(
    "button",
    {
      type: "button",
      class: "title-button",
      "data-control": "toggle",
      "aria-expanded": String(open),
      "aria-controls": panelId,
      onclick: () => toggle(),
    },
    title(item.title ?? item.item_id),
  );
  const toggle = (force = panel.hidden) => {
    panel.hidden = !force;
    button.setAttribute("aria-expanded", String(force));
    about.toggle(item.item_id, force);
  };
  const rateNow = () => {
    toggle(true);
    panel.querySelector(".rating button").focus();
  };
  const rateButton =
    item.title === null
      ? null
      : element(
          "button",
          { type: "button", class: "rate-button", "data-control": "rate", onclick: rateNow },
          "Rate",
          element("span", { class: "unseen" }, ` ${item.title}`),
        );
  return element(
    "li",
    { class: "candidate" },
    element("div", { class: "row" }, rankCell(place), button, ...told(item, about), rateButton),
    panel,
  );
}

function rankCell({ rank, was }) {
  return element("div", { class: "rank" }, element("span", { class: "rank-now" }, String(rank)), moved(rank, was));
}

function moved(rank, was) {
  if (was === undefined || was === rank) return null;
  if (was === null) return element("span", { class: "moved moved-new" }, "new");
  const way = was > rank ? "up" : "down";
  return element(
    "span",
    { class: `moved moved-${way}`, "aria-label": `${way} from ${was} to ${rank}`, role: "img" },
    `${was > rank ? "▲" : "▼"} ${was}→${rank}`,
  );
}

function told(item, about) {
  if (item.problem) return [element("p", { class: "item-problem" }, `Not scored: ${item.problem.message}`)];
  const view = answering(item);
  const { explanation } = item;
  return [
    element("div", { class: "score" }, element("span", { class: "unseen" }, "p(yes) "), probability(item.score)),
    element("div", { class: "curve-cell" }, explanation ? curve(explanation.layers, item.exit_layer, about.range) : ""),
    element("div", { class: "contributions-cell" }, view ? contributions(view, about.largest) : ""),
    element("div", { class: "exit" }, item.exit_layer === 0 ? "evidence" : `layer ${item.exit_layer}`),
  ];
}

function opened(item, about) {
  const rate =
    item.title === null ? null : rating(about.values, about.likeThreshold, (value) => about.rate(item, value));
  const remove = element(
    "button",
    { type: "button", "data-control": "remove", onclick: () => about.remove(item) },
    "Take off the list",
  );
  return [
    element("div", { class: "panel-bar" }, rate, remove),
    item.explanation ? layers(item.explanation, item.exit_layer) : null,
    element("p", { class: "small" }, "Item ", element("code", {}, element("bdi", {}, item.item_id))),
  ].filter((part) => part !== null);
}
