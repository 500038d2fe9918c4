/** The page: a user, a ranked list of candidates, and ratings that move it. */

import { combobox } from "./combobox.js";
import { byId, element, title } from "./element.js";
import { eventId } from "./event_id.js";
import { showModel } from "./model.js";
import { clearProblem, pause, showProblem } from "./notice.js";
import { milliseconds, plural } from "./numbers.js";
import { showPerson } from "./person.js";
import { changes, clearRanking, showRanking } from "./ranking.js";
import { scale } from "./rating.js";
import { ask, userPath } from "./service.js";

const NUM_CANDIDATES = 20;

let model = null;
let person = null; // UserAnswer of whom the page shows
let ranked = null; // ScoreAnswer of the list
let asked = null; // ids of the person's own list; null: what the retriever finds
let action = new AbortController(); // of what the page is doing; the next thing ends it
let stored = Promise.resolve(); // the last rating that was sent: ratings are stored in their order

/** Does one thing at a time, and says what went wrong. */
async function act(work) {
  action.abort();
  action = new AbortController();
  const { signal } = action;
  clearProblem();
  byId("main").setAttribute("aria-busy", "true");
  try {
    await work(signal);
  } catch (error) {
    if (!signal.aborted) showProblem(error);
  } finally {
    if (!signal.aborted) byId("main").removeAttribute("aria-busy");
  }
}

function pick(userId) {
  return act(async (signal) => {
    byId("user-search").value = userId;
    history.replaceState(null, "", `#${encodeURIComponent(userId)}`);
    await known(userId, signal);
    [asked, ranked] = [null, null];
    clearRanking();
    byId("facts").replaceChildren();
    byId("hint").hidden = true;
    byId("main").hidden = false;
    const ms = await rank(signal);
    const none = ranked.items.length ? "" : " The retriever finds none for this user: add items by their titles.";
    say(`${plural(ranked.items.length, "candidate")} ranked in ${milliseconds(ms)}.${none}`);
  });
}

function rate(item, value) {
  return act(async (signal) => {
    const event = { event_id: eventId(), user_id: person.user_id, item_id: item.item_id, rating: value };
    const before = order();
    const wasCold = ranked.cold_start;
    stored = stored.catch(() => null).then(() => store(event));
    const { outcome, ms } = await stored;
    signal.throwIfAborted();
    const [, rankMs] = await Promise.all([known(person.user_id, signal), rank(signal, before)]);
    const similar = plural(ranked.num_similar_users, "similar user");
    const warm = wasCold && !ranked.cold_start ? ` No cold start any more: ${similar}.` : "";
    const took = `${outcome.status} in ${milliseconds(ms)}, ranked again in ${milliseconds(rankMs)}`;
    say(`\u2068${item.title}\u2069 rated ${value}, ${took}${changes(ranked.items, before)}.${warm}`);
  });
}

/** Sends a rating. Goes on when the person does something else meanwhile, and says so if it fails then. */
async function store(event) {
  try {
    const { answer, ms } = await ask("/v1/interactions", { body: { events: [event] }, pause });
    const [outcome] = answer.outcomes;
    if (outcome.problem) throw new Error(outcome.problem.message);
    return { outcome, ms };
  } catch (error) {
    showProblem(error);
    throw error;
  }
}

/** Ranks another list of the same user. */
function relist(itemIds, what) {
  return act(async (signal) => {
    const before = order();
    asked = itemIds;
    const ms = await rank(signal, before);
    say(`${what}, ranked again in ${milliseconds(ms)}${changes(ranked.items, before)}.`);
  });
}

async function known(userId, signal) {
  model ??= (await ask("/v1/model", { pause })).answer;
  showModel(model);
  person = (await ask(userPath(userId), { signal, pause })).answer;
  showPerson(person, model.like_threshold);
}

/** Asks for the ranking and shows it; resolves to milliseconds. */
async function rank(signal, before = null) {
  const body = { user_id: person.user_id, explain: true };
  const [path, more] = asked?.length
    ? ["/v1/rank", { item_ids: asked }]
    : ["/v1/recommend", { top_k: NUM_CANDIDATES, num_candidates: NUM_CANDIDATES }];
  const { answer, ms } = await ask(path, { body: { ...body, ...more }, signal, pause });
  ranked = answer;
  const values = scale(
    model.like_threshold,
    person.history.map((entry) => entry.rating),
  );
  showRanking(ranked.items, before, { values, likeThreshold: model.like_threshold, rate, remove });
  showFacts(ms);
  return ms;
}

/** Ids of the list as it is shown; null where there is none yet. */
function order() {
  return ranked && ranked.items.map((item) => item.item_id);
}

/** Ids of the list as the person wants it, which may not have been ranked yet. */
function wanted() {
  return asked?.length ? asked : (order() ?? []);
}

function add(item) {
  byId("item-search").value = "";
  if (wanted().includes(item.item_id)) return say(`\u2068${item.title}\u2069 is on the list already.`);
  return relist([...wanted(), item.item_id], `\u2068${item.title}\u2069 added`);
}

function remove(item) {
  return relist(
    wanted().filter((itemId) => itemId !== item.item_id),
    `\u2068${item.title ?? item.item_id}\u2069 taken off`,
  );
}

function showFacts(ms) {
  const { policy, cold_start: coldStart, tokens, timings } = ranked;
  const facts = [
    ["Policy", policy === "overload" ? "overload: busy, so it stops earlier" : policy],
    ["Cold start", coldStart ? "yes" : "no"],
    ["Prompt", `${tokens.prefix.toLocaleString("en")} + ${tokens.suffixes.toLocaleString("en")} tokens`],
    ["Context", milliseconds(timings.context_ms)],
    ["Queue", milliseconds(timings.queue_ms)],
    ["Engine", milliseconds(timings.engine_ms)],
    ["Round trip", milliseconds(ms)],
    ["Model", ranked.model_version],
  ];
  byId("facts").replaceChildren(
    ...facts.map(([name, value]) => element("div", {}, element("dt", {}, name), element("dd", {}, value))),
  );
}

function say(text) {
  byId("news").textContent = text;
}

/** Suggestions are a convenience: where they fail, the page says why and shows none. */
async function suggested(path, signal) {
  try {
    return (await ask(path, { signal, pause })).answer;
  } catch (error) {
    if (!signal.aborted) showProblem(error);
    return { user_ids: [], items: [] };
  }
}

combobox(byId("user-search"), {
  search: async (text, signal) => (await suggested(`/v1/users?query=${encodeURIComponent(text)}`, signal)).user_ids,
  label: (userId) => element("bdi", {}, userId),
  choose: pick,
  free: pick,
});
combobox(byId("item-search"), {
  search: async (text, signal) => (await suggested(`/v1/items?query=${encodeURIComponent(text)}`, signal)).items,
  label: (item) => title(item.title),
  choose: add,
});
byId("new-user").addEventListener("click", () => pick(`new-${eventId().slice(0, 8)}`));
byId("recommend").addEventListener("click", () => relist(null, "Recommended anew"));

act(async () => {
  model = (await ask("/v1/model", { pause })).answer;
  showModel(model);
});
const named = decodeURIComponent(location.hash.slice(1));
if (named) pick(named);
