/** The user: similar users, and what the user has read. */

import { byId, element, svg, title } from "./element.js";
import { plural } from "./numbers.js";

export function showPerson(user, likeThreshold) {
  byId("user-id").textContent = user.user_id;
  const coldStart = byId("cold-start");
  coldStart.hidden = !user.cold_start;
  coldStart.textContent = user.cold_start
    ? "Cold start: nothing is known of this user yet that finds similar users. Rate an item to change that."
    : "";
  byId("similar-count").textContent = user.num_similar_users;
  byId("similar").replaceChildren(similar(user.similarities));
  byId("history-count").textContent = user.history.length;
  byId("history").replaceChildren(history(user.history, likeThreshold));
}

function similar(similarities) {
  if (!similarities.length) return element("p", { class: "empty" }, "None.");
  return element(
    "ol",
    { class: "similar" },
    ...similarities.map((similarity) => element("li", {}, bar(similarity), similarity.toFixed(3))),
  );
}

function bar(similarity) {
  return svg(
    "svg",
    { class: "similarity", viewBox: "0 0 100 8", preserveAspectRatio: "none", "aria-hidden": "true" },
    svg("rect", { class: "similarity-all", width: 100, height: 8 }),
    svg("rect", { class: "similarity-part", width: 100 * Math.max(0, similarity), height: 8 }),
  );
}

function history(entries, likeThreshold) {
  if (!entries.length) return element("p", { class: "empty" }, "Empty.");
  const rows = entries.toReversed().map((entry) => row(entry, entry.rating > likeThreshold));
  return element(
    "table",
    { class: "history" },
    element("caption", { class: "unseen" }, `${plural(entries.length, "item")}, newest first`),
    element(
      "thead",
      { class: "unseen" },
      element("tr", {}, element("th", { scope: "col" }, "Title"), element("th", { scope: "col" }, "Rating")),
    ),
    element("tbody", {}, ...rows),
  );
}

function row(entry, liked) {
  return element(
    "tr",
    {},
    element("td", {}, title(entry.title)),
    element(
      "td",
      { class: liked ? "liked" : "not-liked" },
      String(entry.rating),
      element("span", { class: "sign", "aria-hidden": "true" }, liked ? "●" : "○"),
      element("span", { class: "unseen" }, liked ? " liked" : " not liked"),
    ),
  );
}
