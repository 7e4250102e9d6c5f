// The page: what a person does becomes a call, what the service says becomes what they see.

import { accessKey, clock, get, isUnsure, newRequestKey, post, Problem, remove } from "./api.js";
import { Blotter } from "./blotter.js";
import { isLess, minus, times } from "./decimal.js";
import { amount, byId, make, say } from "./dom.js";
import { Follower } from "./events.js";
import { describe, fieldWords, seconds, STATUSES, wordsFor } from "./words.js";

const TITLE = "Order processor";
const PAGE_ORDERS = 50;
const REFRESH_MS = 500;
const FIRST_LOAD_MS_MAX = 1500;
const SKEW_MS_SHOWN = 2000;
const TOAST_MS = 6000;
const ACCOUNT_PATH = /^#\/accounts\/(\d{1,18})$/;
const CONNECTION_WORDS = {
  connecting: "Connecting…",
  live: "Live",
  waiting: "Not connected, trying again",
  paused: "Paused",
  ended: "Not connected",
};

let view = null; // of the account that is shown

// Small things that the whole page uses

function toast(text) {
  say(byId("toast"), text);
  clearTimeout(toast.timer);
  toast.timer = setTimeout(() => say(byId("toast"), ""), TOAST_MS);
}

function setBusy(button, text) {
  if (text === null) {
    button.removeAttribute("aria-disabled");
    button.textContent = button.dataset.text;
    return;
  }
  button.dataset.text = button.textContent;
  // Not `disabled`: that would take the focus away.
  button.setAttribute("aria-disabled", "true");
  button.textContent = text;
}

const isBusy = (button) => button.getAttribute("aria-disabled") === "true";

function clearErrors(form) {
  for (const error of form.querySelectorAll(".error")) say(error, "");
  for (const input of form.querySelectorAll("[aria-invalid]")) input.removeAttribute("aria-invalid");
}

function showFieldError(input, text) {
  input.setAttribute("aria-invalid", "true");
  say(byId(`${input.id}-error`), text);
}

/** Shows what is wrong beside the fields it concerns, the rest at the form's end. */
function showErrors(form, error) {
  const rest = [];
  let first = null;
  for (const [name, detail] of error.errors ?? []) {
    const input = form.querySelector(`input[name="${CSS.escape(name)}"]:not([type=radio])`);
    const words = fieldWords(name, detail);
    if (!input) rest.push(words);
    else {
      showFieldError(input, words);
      first ??= input;
    }
  }
  if (!first && !rest.length) rest.push(wordsFor(error));
  say(form.querySelector(".form-error"), rest.join(" "));
  first?.focus();
}

const filled = (form) =>
  Object.fromEntries(
    [...new FormData(form)].map(([name, value]) => [name, value.trim()]).filter(([, value]) => value),
  );

// Access keys

const isKeyError = (error) => error instanceof Problem && error.status === 401;

function showKeyButton() {
  const button = byId("key-button");
  const asks = document.documentElement.dataset.keys === "required";
  button.hidden = !asks && accessKey.get() === null;
  byId("key-forget").hidden = accessKey.get() === null;
}

function askForKey(why = "") {
  const dialog = byId("key-dialog");
  if (why) say(byId("key-why"), why);
  document.documentElement.dataset.keys = "required";
  showKeyButton();
  if (!dialog.open) dialog.showModal();
}

/** Asks for a key if that is what `error` is about; tells whether it was. */
function isAboutKey(error) {
  if (!isKeyError(error)) return false;
  const isRefused = error.code === "KEY_REFUSED";
  askForKey(isRefused ? "The key is not good: it is unknown, has expired or was revoked." : "");
  return true;
}

function setUpKeys() {
  const dialog = byId("key-dialog");
  byId("key-button").addEventListener("click", () => askForKey());
  byId("key-close").addEventListener("click", () => dialog.close());
  byId("key-forget").addEventListener("click", () => {
    accessKey.forget();
    location.hash = "#/";
    location.reload();
  });
  byId("key-form").addEventListener("submit", (event) => {
    event.preventDefault();
    const key = byId("key").value.trim();
    // A field of HTTP holds no other characters.
    if (!/^[!-~]+$/.test(key)) {
      showFieldError(byId("key"), "A key begins with op_live_ and has no blanks.");
      byId("key").focus();
      return;
    }
    clearErrors(byId("key-form"));
    byId("key").value = "";
    accessKey.set(key);
    dialog.close();
    showKeyButton();
    if (view) view.restart();
  });
}

// The start

/** A form that opens an account; sent again unchanged, it keeps its request's name. */
function setUpOpening() {
  const form = byId("open-form");
  const button = form.querySelector("button");
  let sent = { text: null, key: null };
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    if (isBusy(button)) return;
    clearErrors(form);
    const body = filled(form);
    const text = JSON.stringify(body);
    if (sent.text !== text) sent = { text, key: newRequestKey() };
    setBusy(button, "Opening…");
    try {
      const account = await post("/v1/accounts", body, sent.key);
      sent = { text: null, key: null };
      form.reset();
      location.hash = `#/accounts/${account.id}`;
      toast(`Account ${account.id} is open.`);
    } catch (error) {
      if (!isUnsure(error)) sent = { text: null, key: null };
      if (!isAboutKey(error)) showErrors(form, error);
    } finally {
      setBusy(button, null);
    }
  });
}

function setUpGoing() {
  const form = byId("go-form");
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    clearErrors(form);
    const id = form.elements.id.value.trim();
    if (!/^\d{1,18}$/.test(id)) {
      showFieldError(form.elements.id, "An account's number has digits only.");
      form.elements.id.focus();
      return;
    }
    form.reset();
    location.hash = `#/accounts/${id.replace(/^0+(?=\d)/, "")}`;
  });
}

// An order that got no answer

/** Kept with its name over a reload, so that it can be sent again without being a second order. */
const unanswered = {
  name: (accountId) => `orders.unanswered.${accountId}`,
  get(accountId) {
    return JSON.parse(sessionStorage.getItem(this.name(accountId)));
  },
  set(accountId, sent) {
    sessionStorage.setItem(this.name(accountId), JSON.stringify(sent));
  },
  forget(accountId) {
    sessionStorage.removeItem(this.name(accountId));
  },
};

// An account

/** What is shown of one account, from its address being opened to its being left. */
class AccountView {
  #id;
  #path;
  #account = null;
  #follower = null;
  #cursor = null;
  #isLoaded = false;
  #isLeft = false;
  #loading = null;
  #refreshTimer = 0;
  #refreshedAt = 0;
  #blotter = new Blotter((order) => this.#cancel(order));

  constructor(id) {
    this.#id = id;
    this.#path = `/v1/accounts/${id}`;
    document.title = `Account ${id} - ${TITLE}`;
    say(byId("account-title"), `Account ${id}`);
    byId("account-trouble").hidden = true;
    byId("account-body").hidden = false;
    byId("cash").replaceChildren(make("span", { class: "skeleton" }));
    byId("cash").setAttribute("aria-busy", "true");
    byId("positions-rows").replaceChildren();
    byId("positions-table").hidden = byId("positions-empty").hidden = true;
    byId("blotter-empty").hidden = byId("blotter-note").hidden = byId("older").hidden = true;
    byId("order-form").reset();
    showUnanswered(this);
    showSide();
    this.restart();
  }

  get id() {
    return this.#id;
  }

  get path() {
    return this.#path;
  }

  get account() {
    return this.#account;
  }

  /** Connects and reads anew. */
  restart() {
    this.#follower?.stop();
    byId("connection").hidden = false;
    this.#follower = new Follower(this.#id, {
      state: (state) => this.#showConnection(state),
      fresh: () => this.#load(),
      order: (order) => this.#onDecided(order),
      refused: (problem) => this.#onRefused(problem),
    });
    // A stream that is slow to begin does not keep what is known already from being shown.
    setTimeout(() => this.#isLoaded || this.#isLeft || this.#load(), FIRST_LOAD_MS_MAX);
  }

  retryNow() {
    this.#follower.retryNow();
  }

  /** Leaves it: nothing that comes late is shown. */
  leave() {
    this.#isLeft = true;
    this.#follower.stop();
    clearTimeout(this.#refreshTimer);
    byId("connection").hidden = byId("retry").hidden = true;
  }

  /** Shows an order that was placed here. */
  placed(order) {
    if (!this.#isLeft) this.#blotter.merge([order], { isNews: true });
  }

  #showConnection(state) {
    if (this.#isLeft) return;
    byId("connection").dataset.state = state;
    say(byId("connection-word"), CONNECTION_WORDS[state]);
    byId("retry").hidden = state !== "waiting";
  }

  #onDecided(order) {
    if (this.#isLeft) return;
    this.#blotter.merge([order], { isNews: true });
    if (order.status === "executed") this.#refreshSoon();
  }

  /** Tells whether to go on trying. */
  #onRefused(problem) {
    if (this.#isLeft || isAboutKey(problem)) return false;
    if (problem.status === 404 || problem.status === 403) {
      this.#giveUp(problem);
      return false;
    }
    // Too many streams, say: what can be read is shown all the same.
    this.#load();
    return true;
  }

  #giveUp(problem) {
    byId("account-body").hidden = true;
    byId("connection").hidden = byId("retry").hidden = true;
    this.#trouble(problem);
  }

  #trouble(error) {
    const box = byId("account-trouble");
    box.hidden = false;
    say(box, wordsFor(error));
  }

  /** The account and its newest orders; while that is under way, it is not asked for twice. */
  #load() {
    this.#loading ??= this.#loadNow().finally(() => (this.#loading = null));
    return this.#loading;
  }

  async #loadNow() {
    try {
      const [account, page] = await Promise.all([
        get(this.#path),
        get(`${this.#path}/orders?limit=${PAGE_ORDERS}`),
      ]);
      if (this.#isLeft) return;
      byId("account-trouble").hidden = true;
      this.#showAccount(account);
      this.#blotter.merge(page.orders);
      if (!this.#isLoaded) this.#setCursor(page.next_cursor);
      this.#isLoaded = true;
    } catch (error) {
      if (this.#isLeft || isAboutKey(error)) return;
      if (error.status === 404) this.#giveUp(error);
      else this.#trouble(error);
    }
  }

  /** Reads the account again, at once or a moment after the last time. */
  #refreshSoon() {
    if (this.#refreshTimer) return;
    const ms = Math.max(0, this.#refreshedAt + REFRESH_MS - Date.now());
    this.#refreshTimer = setTimeout(() => this.#refresh(), ms);
  }

  async #refresh() {
    this.#refreshTimer = 0;
    this.#refreshedAt = Date.now();
    try {
      const account = await get(this.#path);
      if (!this.#isLeft) this.#showAccount(account);
    } catch (error) {
      if (!this.#isLeft && !isAboutKey(error)) setTimeout(() => this.#refreshSoon(), 4 * REFRESH_MS);
    }
  }

  #showAccount(account) {
    this.#account = account;
    byId("cash").replaceChildren(amount(account.cash));
    byId("cash").setAttribute("aria-busy", "false");
    const rows = account.issuers.map((position) => this.#positionRow(position));
    const focused = document.activeElement?.dataset?.sell;
    byId("positions-rows").replaceChildren(...rows);
    if (focused !== undefined) {
      const again = rows.find((row) => row.querySelector("button").dataset.sell === focused);
      (again?.querySelector("button") ?? byId("order-submit")).focus();
    }
    byId("positions-empty").hidden = rows.length > 0;
    byId("positions-table").hidden = rows.length === 0;
    byId("issuers").replaceChildren(
      ...account.issuers.map((one) => make("option", { value: one.issuer_name })),
    );
    showEstimate();
  }

  #positionRow({ issuer_name: issuer, total_shares: shares, share_price: price }) {
    const sell = make(
      "button",
      { type: "button", class: "quiet small", "data-sell": issuer, "aria-label": `Sell ${issuer}` },
      "Sell",
    );
    sell.addEventListener("click", () => prepareSale(issuer, shares, price));
    return make(
      "tr",
      {},
      make("th", { scope: "row", class: "issuer" }, make("bdi", {}, issuer)),
      make("td", { class: "number" }, amount(String(shares))),
      make("td", { class: "number" }, amount(price)),
      make("td", { class: "action" }, sell),
    );
  }

  // Older orders

  #setCursor(cursor) {
    this.#cursor = cursor;
    byId("older").hidden = cursor === null || this.#blotter.isTrimmed;
    byId("blotter-note").hidden = !this.#blotter.isTrimmed;
    if (this.#blotter.isTrimmed) say(byId("blotter-note"), "The newest orders alone are shown.");
  }

  /** Adds the page of orders that comes after the oldest one. */
  async older() {
    const button = byId("older");
    if (isBusy(button) || this.#cursor === null) return;
    setBusy(button, "Looking…");
    try {
      const cursor = encodeURIComponent(this.#cursor);
      const page = await get(`${this.#path}/orders?limit=${PAGE_ORDERS}&cursor=${cursor}`);
      if (this.#isLeft) return;
      this.#blotter.merge(page.orders);
      this.#setCursor(page.next_cursor);
      if (button.hidden) byId("blotter-rows").lastElementChild?.focus();
    } catch (error) {
      if (!isAboutKey(error)) toast(wordsFor(error));
    } finally {
      setBusy(button, null);
    }
  }

  // Cancelling

  async #cancel(order) {
    this.#blotter.setBusy(order.id, true);
    try {
      const cancelled = await remove(`${this.#path}/orders/${order.id}`);
      if (!this.#isLeft) this.#blotter.merge([cancelled], { isNews: true });
    } catch (error) {
      if (this.#isLeft || isAboutKey(error)) return;
      await this.#cancelFailed(order, error);
    } finally {
      this.#blotter.setBusy(order.id, false);
    }
  }

  async #cancelFailed(order, error) {
    try {
      const now = await get(`${this.#path}/orders/${order.id}`);
      if (this.#isLeft) return;
      this.#blotter.merge([now], { isNews: true });
      if (error.code === "ORDER_DECIDED") {
        toast(`Too late to cancel: it is ${STATUSES[now.status].word.toLowerCase()}.`);
        return;
      }
      if (now.status === "cancelled") return;
    } catch (again) {
      if (isAboutKey(again)) return;
    }
    toast(`It may not be cancelled. ${wordsFor(error)}`);
  }
}

// The order form

const side = () => byId("order-form").elements.operation.value;

function showSide() {
  const text = side() === "BUY" ? "Place the buy order" : "Place the sell order";
  const button = byId("order-submit");
  button.dataset.text = text;
  if (!isBusy(button)) button.textContent = text;
  showEstimate();
}

/** What the order would cost or bring, and whether the account has that. */
function showEstimate() {
  const { total_shares: shares, share_price: price, issuer_name: issuer } = byId("order-form").elements;
  const total = times(shares.value, price.value);
  byId("estimate").replaceChildren(total === null ? "–" : amount(total));
  say(byId("estimate-note"), total === null ? "" : noteOn(total, shares.value.trim(), issuer.value.trim()));
}

function noteOn(total, shares, issuer) {
  const account = view?.account;
  if (!account) return "";
  if (side() === "BUY") {
    if (isLess(account.cash, total)) return `More than the account holds: ${account.cash}.`;
    return `Leaves ${minus(account.cash, total)} of ${account.cash}.`;
  }
  const held = account.issuers.find((one) => one.issuer_name === issuer)?.total_shares ?? 0;
  if (!issuer || !isLess(String(held), shares)) return "";
  return `More than the account holds: ${held}.`;
}

function prepareSale(issuer, shares, price) {
  const { elements } = byId("order-form");
  elements.operation.value = "SELL";
  elements.issuer_name.value = issuer;
  elements.total_shares.value = String(shares);
  elements.share_price.value = price;
  showSide();
  elements.total_shares.focus();
  elements.total_shares.select();
}

function showUnanswered(shown) {
  const sent = unanswered.get(shown.id);
  byId("unanswered").hidden = sent === null;
  if (sent === null) return;
  say(
    byId("unanswered-text"),
    `No answer came to this order: ${describe(sent.body)}. It may or may not be recorded. Sent again, it counts once.`,
  );
}

/** The request for what the form says: the one that got no answer, if it was for the same. */
function requestFor(shown, values) {
  const sent = unanswered.get(shown.id);
  if (sent && isSame(sent.body, values)) return sent;
  // Milliseconds as text: no number is rounded on its way.
  const ms = String(Date.now());
  const timestamp = `${ms.slice(0, -3)}.${ms.slice(-3)}`;
  return { key: newRequestKey(), body: { timestamp, ...values } };
}

function isSame({ timestamp, ...body }, values) {
  const names = new Set([...Object.keys(body), ...Object.keys(values)]);
  return [...names].every((name) => body[name] === values[name]);
}

async function place(sent) {
  const [shown, form, button] = [view, byId("order-form"), byId("order-submit")];
  if (isBusy(button)) return;
  clearErrors(form);
  setBusy(button, "Placing…");
  // Before it goes out: the page may be gone before the answer comes.
  unanswered.set(shown.id, sent);
  let isKnown = true;
  try {
    const order = await post(`${shown.path}/orders`, sent.body, sent.key);
    shown.placed(order);
    if (view === shown) {
      const { issuer_name: issuer, total_shares: shares } = form.elements;
      shares.value = "";
      showEstimate();
      issuer.focus();
      toast(`Placed: ${describe(order)}.`);
    }
  } catch (error) {
    isKnown = !isUnsure(error);
    if (view === shown && !isAboutKey(error)) {
      if (isKnown) showErrors(form, error);
      else say(form.querySelector(".form-error"), wordsFor(error));
    }
  } finally {
    if (isKnown) unanswered.forget(shown.id);
    setBusy(button, null);
    if (view === shown) {
      showSide();
      showUnanswered(shown);
    }
  }
}

function setUpOrdering() {
  const form = byId("order-form");
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    if (view) place(requestFor(view, filled(form)));
  });
  form.addEventListener("input", showEstimate);
  form.addEventListener("change", showSide);
  byId("send-again").addEventListener("click", () => {
    const sent = unanswered.get(view.id);
    if (sent) place(sent);
  });
  byId("let-it-be").addEventListener("click", () => {
    unanswered.forget(view.id);
    showUnanswered(view);
    byId("order-submit").focus();
  });
}

// The page as a whole

function showClock() {
  const { aheadMs } = clock;
  const notice = byId("clock-notice");
  notice.hidden = Math.abs(aheadMs) < SKEW_MS_SHOWN;
  if (notice.hidden) return;
  const where = aheadMs > 0 ? "ahead of" : "behind";
  say(
    notice,
    `This device's clock is about ${seconds(Math.abs(aheadMs))} ${where} the service's. Orders carry this device's time; they are rejected if it is too far off.`,
  );
}

/** Shows what the address names. */
function route() {
  const match = ACCOUNT_PATH.exec(location.hash);
  const id = match ? match[1] : null;
  if (id !== null && view?.id === id) return;
  const hadView = view !== null;
  view?.leave();
  view = null;
  byId("start").hidden = id !== null;
  byId("account").hidden = byId("leave").hidden = id === null;
  for (const form of document.forms) clearErrors(form);
  if (id === null) {
    document.title = TITLE;
    if (hadView) byId("open-cash").focus();
    return;
  }
  view = new AccountView(id);
  if (document.activeElement !== document.body) byId("account-title").focus();
}

function setUp() {
  clock.onChange = showClock;
  setUpKeys();
  setUpOpening();
  setUpGoing();
  setUpOrdering();
  byId("older").addEventListener("click", () => view?.older());
  byId("retry").addEventListener("click", () => view?.retryNow());
  document.querySelector(".skip").addEventListener("click", (event) => {
    event.preventDefault();
    byId("main").focus();
  });
  addEventListener("hashchange", route);
  showKeyButton();
  route();
  const asks = document.documentElement.dataset.keys === "required";
  if (asks && accessKey.get() === null) askForKey();
}

setUp();
