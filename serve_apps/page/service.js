/** Calls of the endpoint. The browser sends the credentials that it asked the person for. */

const MAX_TRIES = 6;
const DEFAULT_WAIT_S = 2;
const BUSY = [429, 503];

/** An answer of 4xx or 5xx, or none at all (status 0). */
export class Refused extends Error {
  constructor(status, message, retryAfterS = null) {
    super(message);
    this.status = status;
    this.retryAfterS = retryAfterS;
  }
}

/**
 * One call, repeated while the service is busy.
 * `pause(refused, attempt, maxTries, signal)` resolves when a wait is over, and throws to give up.
 * Resolves to {answer, ms}: `ms` is the time of the try that succeeded, as this page saw it.
 */
export async function ask(path, { body = null, signal = null, pause }) {
  for (let attempt = 1; ; attempt += 1) {
    try {
      const began = performance.now();
      const answer = await once(path, body, signal);
      return { answer, ms: performance.now() - began };
    } catch (error) {
      if (!(error instanceof Refused) || !BUSY.includes(error.status) || attempt === MAX_TRIES) throw error;
      await pause(error, attempt, MAX_TRIES, signal);
    }
  }
}

/** /v1/users/ID, whatever characters the id has. */
export function userPath(userId) {
  if (userId === "." || userId === "..") throw new Refused(0, `no URL can hold the id ${userId}: pick another one`);
  return `/v1/users/${encodeURIComponent(userId)}`;
}

async function once(path, body, signal) {
  // From the origin: a page that was opened as user:token@host has credentials in its URL, and fetch refuses those.
  const url = new URL(path, location.origin);
  const options = { signal, cache: "no-store" };
  if (body)
    Object.assign(options, {
      method: "POST",
      body: JSON.stringify(body),
      headers: { "Content-Type": "application/json" },
    });
  let response;
  try {
    response = await fetch(url, options);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Refused(0, "the service cannot be reached: is it running?");
  }
  if (response.ok) return response.json();
  throw await refusal(response);
}

async function refusal(response) {
  const wait = Number(response.headers.get("Retry-After")) || DEFAULT_WAIT_S;
  if (response.status === 401)
    return new Refused(401, "a valid token is needed: reload the page and give it as the password");
  let told;
  try {
    told = await response.json();
  } catch {
    return new Refused(response.status, response.statusText || "no reason was given", wait); // a proxy's own answer
  }
  return new Refused(response.status, told.problem?.message ?? JSON.stringify(told), wait);
}
