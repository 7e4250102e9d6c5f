// The blotter: an account's orders, newest first, each in its own row that changes in place.

import { amount, byId, icon, make } from "./dom.js";
import { costOf, describe, reasonsOf, STATUSES } from "./words.js";

const ROWS_MAX = 500;
const SPOKEN_MAX = 3;
const SPEAK_AFTER_MS = 400;
const FLASH_MS = 1600;

/** The rows of one account's orders. `onCancel(order)` is asked for by a person. */
export class Blotter {
  #body = byId("blotter-rows");
  #empty = byId("blotter-empty");
  #table = byId("blotter-table");
  #live = byId("blotter-live");
  #rows = new Map();
  #onCancel;
  #unspoken = [];
  #speakTimer = 0;
  isTrimmed = false;

  constructor(onCancel) {
    this.#onCancel = onCancel;
    this.#body.replaceChildren();
    this.#showEmptiness();
  }

  /** The order as it is shown, if it is. */
  get(id) {
    return this.#rows.get(id)?.order;
  }

  /** Shows orders as they are; what is decided is never taken back by an older answer. */
  merge(orders, { isNews = false } = {}) {
    const changed = orders.filter((order) => this.#merge(order, isNews));
    this.#trim();
    this.#showEmptiness();
    if (isNews) this.#speak(changed);
  }

  /** Says of an order that something is being done about it, or is not any more. */
  setBusy(id, isBusy) {
    const button = this.#rows.get(id)?.element.querySelector("button");
    if (!button) return;
    button.setAttribute("aria-disabled", String(isBusy));
    button.textContent = isBusy ? "Cancelling…" : "Cancel";
  }

  #merge(order, isNews) {
    const known = this.#rows.get(order.id);
    if (known && !isNewer(order, known.order)) return false;
    const element = this.#row(order);
    if (isNews && (!known || known.order.status !== order.status)) flash(element);
    if (known) {
      const hadFocus = known.element.contains(document.activeElement);
      known.element.replaceWith(element);
      // Who was about to press its button does not lose their place.
      if (hadFocus) element.focus();
    } else {
      this.#body.insertBefore(element, this.#after(order.id));
    }
    this.#rows.set(order.id, { order, element });
    return true;
  }

  /** The row before which the order belongs: ids grow in the sequence of acceptance. */
  #after(id) {
    for (const element of this.#body.children) {
      if (element.dataset.order < id) return element;
    }
    return null;
  }

  #row(order) {
    const { operation, issuer_name: issuer } = order;
    const side = operation === "BUY" ? "Buy" : operation === "SELL" ? "Sell" : "Unreadable";
    const row = make(
      "tr",
      { role: "row", tabindex: "-1", "data-order": order.id, "data-status": order.status },
      cell("Time", timeOf(order)),
      cell("Side", make("span", { class: `side side-${side.toLowerCase()}` }, side)),
      make("th", { role: "rowheader", scope: "row", class: "issuer" }, make("bdi", {}, issuer ?? order.id)),
      cell("Shares", order.total_shares === undefined ? "" : amount(String(order.total_shares)), "number"),
      cell("Price", order.share_price === undefined ? "" : amount(order.share_price), "number"),
      cell("Total", order.share_price === undefined ? "" : amount(costOf(order)), "number"),
      this.#statusCell(order),
    );
    return row;
  }

  #statusCell(order) {
    const { word, icon: picture } = STATUSES[order.status] ?? { word: order.status, icon: "alert" };
    const badge = make("span", { class: `badge badge-${order.status}` }, icon(picture), word);
    const line = make("div", { class: "status-line" }, badge);
    if (order.status === "pending") line.append(this.#cancelButton(order));
    const reasons = reasonsOf(order).map((reason) => make("p", { class: "reason" }, reason));
    return make("td", { role: "cell", class: "status" }, line, ...reasons);
  }

  #cancelButton(order) {
    const label = `Cancel: ${describe(order)}`;
    const button = make("button", { type: "button", class: "quiet small", "aria-label": label }, "Cancel");
    button.addEventListener("click", () => {
      if (button.getAttribute("aria-disabled") !== "true") this.#onCancel(order);
    });
    return button;
  }

  #trim() {
    while (this.#rows.size > ROWS_MAX) {
      const oldest = this.#body.lastElementChild;
      this.#rows.delete(oldest.dataset.order);
      oldest.remove();
      this.isTrimmed = true;
    }
  }

  #showEmptiness() {
    this.#empty.hidden = this.#rows.size > 0;
    this.#table.hidden = this.#rows.size === 0;
  }

  /** Has news read out, together where there is much of it. */
  #speak(orders) {
    this.#unspoken.push(...orders.filter((order) => order.status !== "pending"));
    if (!this.#unspoken.length || this.#speakTimer) return;
    this.#speakTimer = setTimeout(() => {
      this.#speakTimer = 0;
      const orders = this.#unspoken.splice(0);
      this.#live.replaceChildren(...spoken(orders).map((line) => make("p", {}, line)));
    }, SPEAK_AFTER_MS);
  }
}

function spoken(orders) {
  if (orders.length > SPOKEN_MAX) return [`${orders.length} orders were decided.`];
  return orders.map((order) => {
    const { word } = STATUSES[order.status] ?? { word: order.status };
    return [`${word}: ${describe(order)}.`, ...reasonsOf(order)].join(" ");
  });
}

function isNewer(order, known) {
  if (order.status === known.status) return false;
  if (known.status === "pending") return true;
  // Only what failed may still become something else.
  return known.status === "failed" && order.status !== "pending";
}

function cell(name, content, kind = "") {
  return make("td", { role: "cell", class: kind || null, "data-name": name }, content);
}

function timeOf(order) {
  if (!order.received_at) return "";
  const at = new Date(order.received_at);
  const isToday = at.toDateString() === new Date().toDateString();
  const time = at.toLocaleTimeString([], { hour: "2-digit", minute: "2-digit", second: "2-digit" });
  const shown = isToday ? time : `${at.toLocaleDateString()} ${time}`;
  return make("time", { datetime: order.received_at, title: at.toLocaleString() }, shown);
}

function flash(element) {
  element.classList.add("is-new");
  setTimeout(() => element.classList.remove("is-new"), FLASH_MS);
}
