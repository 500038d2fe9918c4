/** The ranked list: which rank each candidate had, which it has, and the way between. */

import { answering, candidate } from "./candidate.js";
import { largestLogit } from "./contributions.js";
import { scoreRange } from "./curve.js";
import { byId } from "./element.js";
import { plural } from "./numbers.js";

const MOVE_MS = 500;
const opened = new Set(); // item ids of open panels

/** `before`: the ids in their order before, null where there is nothing to compare with. */
export function showRanking(items, before, about) {
  const list = byId("candidates");
  const tops = new Map([...list.children].map((row) => [row.itemId, row.getBoundingClientRect().top]));
  const focused = focusedControl(list);
  const largest = largestLogit(items.map(answering).filter((view) => view !== null));
  const toggle = (itemId, open) => (open ? opened.add(itemId) : opened.delete(itemId));
  const details = { ...about, largest, range: scoreRange(items), isOpen: (itemId) => opened.has(itemId), toggle };
  const rows = items.map((item, index) => {
    const row = candidate(item, index, { rank: index + 1, was: rankBefore(item.item_id, before) }, details);
    row.itemId = item.item_id;
    return row;
  });
  list.replaceChildren(...rows);
  byId("candidate-count").textContent = items.length;
  if (focused) refocus(rows, focused);
  if (before && !matchMedia("(prefers-reduced-motion: reduce)").matches)
    rows.forEach((row) => move(row, tops.get(row.itemId)));
}

export function clearRanking() {
  opened.clear();
  byId("candidates").replaceChildren();
  byId("candidate-count").textContent = "";
}

/** The end of a sentence: how a list differs from the one before. */
export function changes(items, before) {
  if (!before) return "";
  const ids = items.map((item) => item.item_id);
  const places = items.map((item, index) => ({ item, rank: index + 1, was: rankBefore(item.item_id, before) }));
  const moves = places.filter(({ rank, was }) => was !== null && was !== rank);
  const parts = [moves.length ? `${moves.length} of ${ids.length} moved` : "no rank changed"];
  const [most] = moves.toSorted((one, other) => Math.abs(other.was - other.rank) - Math.abs(one.was - one.rank));
  if (most)
    parts.push(`most of all \u2068${most.item.title ?? most.item.item_id}\u2069 from ${most.was} to ${most.rank}`);
  const came = places.filter(({ was }) => was === null).length;
  const left = before.filter((itemId) => !ids.includes(itemId)).length;
  if (came) parts.push(`${plural(came, "item")} came in`);
  if (left) parts.push(`${plural(left, "item")} left`);
  return `: ${parts.join("; ")}`;
}

function rankBefore(itemId, before) {
  if (!before) return undefined;
  const index = before.indexOf(itemId);
  return index < 0 ? null : index + 1;
}

function focusedControl(list) {
  const control = document.activeElement;
  if (!list.contains(control)) return null;
  return { itemId: control.closest(".candidate").itemId, control: control.dataset.control };
}

/** To the same control of the same candidate; where it has left, to the heading. */
function refocus(rows, { itemId, control }) {
  const row = rows.find((other) => other.itemId === itemId);
  (row?.querySelector(`[data-control="${control}"]`) ?? byId("ranking-heading")).focus({ preventScroll: true });
}

function move(row, from) {
  const by = from === undefined ? null : from - row.getBoundingClientRect().top;
  if (by === 0) return;
  const start = by === null ? { opacity: 0 } : { transform: `translateY(${by}px)` };
  const end = by === null ? { opacity: 1 } : { transform: "none" };
  row.animate([start, end], { duration: MOVE_MS, easing: "cubic-bezier(0.2, 0, 0, 1)" });
}
