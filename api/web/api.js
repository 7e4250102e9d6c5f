// The API as the page calls it: with a key where one is known, with a bound on every wait, and with
// an Idempotency-Key on all that makes something, so that a lost answer makes nothing twice.

const ANSWER_MS_MAX = 20_000;
const TRIES_MAX = 3;
const PAUSE_MS_FIRST = 400;
const KEY_STORE = "orders.key";

/** An answer that says no; `errors` are its fields' errors by field name. */
export class Problem extends Error {
  constructor(status, document, retryAfterMs) {
    super(document.detail || `The service answered ${status}.`);
    this.status = status;
    this.code = document.code || "";
    this.retryAfterMs = retryAfterMs;
    this.errors = new Map(
      (document.errors || []).map((one) => [one.pointer.replace(/^\//, ""), one.detail]),
    );
  }
}

/** No answer came, so it is not known what became of the request. */
export class NoAnswer extends Error {
  constructor() {
    super("The service does not answer.");
  }
}

/** The access key, kept until the tab is closed. */
export const accessKey = {
  get: () => sessionStorage.getItem(KEY_STORE),
  set: (key) => sessionStorage.setItem(KEY_STORE, key),
  forget: () => sessionStorage.removeItem(KEY_STORE),
};

/** How far this device's clock is ahead of the service's, in ms, as of the last answer. */
export const clock = { aheadMs: 0, onChange: () => {} };

/** A name for one request that stays the same when it is sent again. */
export function newRequestKey() {
  // randomUUID is missing where the page came over plain HTTP from another machine.
  if (crypto.randomUUID) return crypto.randomUUID();
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

/** The answer to a request; throws Problem, or what fetch throws. */
export async function send(path, { headers = {}, ...options } = {}) {
  const key = accessKey.get();
  const shown = key === null ? headers : { ...headers, Authorization: `Bearer ${key}` };
  const sentAt = Date.now();
  const answer = await fetch(path, {
    ...options,
    headers: shown,
    credentials: "omit",
    redirect: "error",
  });
  readClock(answer, sentAt);
  if (answer.ok) return answer;
  throw await problemOf(answer);
}

/** The JSON of a GET; throws Problem or NoAnswer. */
export const get = (path) => asJson(path, { headers: { Accept: "application/json" } });

/** Cancels an order, which may be sent again and again; throws Problem or NoAnswer. */
export const remove = (path) => withPatience(() => asJson(path, { method: "DELETE" }));

/** Posts `body` under `requestKey`, again where no answer comes; throws Problem or NoAnswer. */
export function post(path, body, requestKey) {
  const headers = { "Content-Type": "application/json", "Idempotency-Key": requestKey };
  const options = { method: "POST", headers, body: JSON.stringify(body) };
  return withPatience(() => asJson(path, options));
}

/** Tells whether the request may have been recorded although `error` came back. */
export function isUnsure(error) {
  if (error instanceof NoAnswer) return true;
  return error instanceof Problem && (error.status >= 500 || isOnItsWay(error));
}

const isOnItsWay = (error) => error.code === "IDEMPOTENCY_KEY_IN_FLIGHT";

async function withPatience(attempt) {
  for (let tries = 1; ; tries += 1) {
    try {
      return await attempt();
    } catch (error) {
      const isWorthIt = error instanceof NoAnswer || error.status === 503 || isOnItsWay(error);
      if (!isWorthIt || tries >= TRIES_MAX) throw error;
      const pause = PAUSE_MS_FIRST * 2 ** tries * (0.5 + Math.random() / 2);
      await new Promise((resolve) => setTimeout(resolve, Math.max(pause, error.retryAfterMs || 0)));
    }
  }
}

async function asJson(path, options) {
  try {
    const answer = await send(path, { ...options, signal: AbortSignal.timeout(ANSWER_MS_MAX) });
    return await answer.json();
  } catch (error) {
    if (error instanceof Problem) throw error;
    throw new NoAnswer();
  }
}

async function problemOf(answer) {
  const seconds = Number(answer.headers.get("Retry-After"));
  const retryAfterMs = seconds > 0 ? Math.min(seconds, 60) * 1000 : 0;
  const isProblem = (answer.headers.get("Content-Type") || "").includes("json");
  const document = isProblem ? await answer.json().catch(() => ({})) : {};
  return new Problem(answer.status, document, retryAfterMs);
}

function readClock(answer, sentAt) {
  const date = Date.parse(answer.headers.get("Date") || "");
  // An answer that the browser kept tells an old time.
  if (Number.isNaN(date) || answer.status === 304) return;
  const heardAt = Date.now();
  // The header has whole seconds, and was written at some time between the two.
  if (date + 1000 < sentAt) clock.aheadMs = sentAt - (date + 1000);
  else if (date > heardAt) clock.aheadMs = heardAt - date;
  else clock.aheadMs = 0;
  clock.onChange();
}
