/** Buttons that rate an item. */

import { element } from "./element.js";

/** The scale is not part of the contract: 1 to 10 where the data use it, else 1 to 5. */
export function scale(likeThreshold, ratings) {
  const top = Math.max(likeThreshold + 1, ...ratings) > 5 ? 10 : 5;
  return Array.from({ length: top }, (_, index) => index + 1);
}

/** `rate(value)` is called with what the person chose. */
export function rating(values, likeThreshold, rate) {
  const button = (value) =>
    element(
      "button",
      {
        type: "button",
        class: value > likeThreshold ? "likes" : null,
        "data-control": `rate-${value}`,
        "aria-label": `Rate ${value} of ${values.at(-1)}`,
        onclick: () => rate(value),
      },
      String(value),
    );
  return element(
    "div",
    { class: "rating", role: "group", "aria-label": "Your rating" },
    element("span", { class: "label" }, "Your rating"),
    element("div", { class: "rating-buttons" }, ...values.map(button)),
    element("span", { class: "label" }, `above ${likeThreshold} is liked`),
  );
}
