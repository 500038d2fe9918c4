/** What the page says of trouble: a wait for a busy service, with its seconds, and problems that end an action. */

import { byId, element } from "./element.js";
import { Refused } from "./service.js";

export function showProblem(error) {
  const status = error instanceof Refused && error.status ? `${error.status}: ` : "";
  const close = element("button", { type: "button", onclick: clearProblem }, "Close");
  byId("problem").replaceChildren(
    element("div", { class: "notice problem" }, element("p", {}, status + error.message), close),
  );
}

export function clearProblem() {
  byId("problem").replaceChildren();
}

/** Waits as long as the service asked for, in sight; the person may shorten the wait or give up. */
export function pause(refused, attempt, maxTries, signal) {
  const over = Date.now() + 1000 * refused.retryAfterS;
  const seconds = element("span", { class: "seconds", "aria-hidden": "true" }); // not read out every second
  const show = () => (seconds.textContent = `${Math.max(0, Math.ceil((over - Date.now()) / 1000))} s`);
  show();
  return new Promise((resolve, reject) => {
    const ticking = setInterval(() => (Date.now() < over ? show() : end(resolve)), 100);
    const end = (settle, value) => {
      clearInterval(ticking);
      box.remove();
      settle(value);
    };
    const now = element("button", { type: "button", onclick: () => end(resolve) }, "Try now");
    const stop = element("button", { type: "button", onclick: () => end(reject, refused) }, "Give up");
    const text = `The service is busy (${refused.status}), try ${attempt} of ${maxTries}: trying again in `;
    const box = element("div", { class: "notice waiting" }, element("p", {}, text, seconds), now, stop);
    byId("waiting").append(box);
    signal?.addEventListener("abort", () => end(reject, signal.reason));
  });
}
