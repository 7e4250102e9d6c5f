// What statuses, reasons and errors mean, in words for a person.

import { NoAnswer, Problem } from "./api.js";
import { times } from "./decimal.js";

/** Each status: its word and its picture. */
export const STATUSES = {
  pending: { word: "Pending", icon: "clock" },
  executed: { word: "Executed", icon: "check" },
  rejected: { word: "Rejected", icon: "cross" },
  cancelled: { word: "Cancelled", icon: "minus" },
  failed: { word: "Failed", icon: "alert" },
};

const SKEW_MS_WORTH_A_WORD = 1000;

const FIELDS = {
  cash: "Cash",
  issuer_name: "Issuer",
  total_shares: "Shares",
  share_price: "Price",
  operation: "Side",
  timestamp: "The order's time",
};

const REASONS = {
  INSUFFICIENT_BALANCE: (order) => {
    const cash = order.current_balance?.cash;
    const holds = cash === undefined ? "" : `, the account holds ${cash}`;
    return `Not enough cash: the order costs ${costOf(order)}${holds}.`;
  },
  INSUFFICIENT_STOCKS: (order) => {
    const held = heldBy(order);
    const holds = held === null ? "" : `, the account holds ${held}`;
    return `Not enough shares: the order sells ${order.total_shares}${holds}.`;
  },
  DUPLICATED_OPERATION: (order) => {
    const side = order.operation === "BUY" ? "purchase" : "sale";
    return `A duplicate: the same ${side} was executed less than 5 minutes away from it.`;
  },
  CLOSED_MARKET: () => "The market was closed when the order was given or when it came in.",
  INVALID_OPERATION: (order) => {
    const aheadMs = order.timestamp * 1000 - Date.parse(order.received_at);
    if (aheadMs > SKEW_MS_WORTH_A_WORD) {
      return `Not allowed: its time is ${seconds(aheadMs)} ahead of the service's. Is this device's clock fast?`;
    }
    if (-aheadMs > SKEW_MS_WORTH_A_WORD) {
      return `Not allowed: its time is ${seconds(-aheadMs)} behind the service's, and before the account's last order or its opening. Is this device's clock slow?`;
    }
    return "Not allowed: it would take the account beyond its limits, or its time is before the last executed order.";
  },
};

/** Shares times price, exactly. */
export const costOf = (order) => times(String(order.total_shares), order.share_price);

/** "buy 10 GBM at 50.5" */
export function describe(order) {
  if (order.operation === undefined) return "an order that cannot be read";
  const side = order.operation === "BUY" ? "buy" : "sell";
  return `${side} ${order.total_shares} ${order.issuer_name} at ${order.share_price}`;
}

/** Every reason why an order is not executed, a sentence each. */
export function reasonsOf(order) {
  const broken = (order.business_errors || []).map(
    (code) => REASONS[code]?.(order) ?? `Refused by the service: ${code}.`,
  );
  if (order.failure === undefined) return broken;
  return [...broken, `It could not be decided; an operator will look at it. ${order.failure}`];
}

/** An error as a sentence. */
export function wordsFor(error) {
  if (error instanceof NoAnswer) return "The service does not answer. Check the connection.";
  if (!(error instanceof Problem)) return "Something went wrong in this page. Reload it.";
  if (error.code === "FORBIDDEN") return `Your key may not do this. ${error.message}`;
  if (error.status === 429) return "Too many requests at the moment. Try again shortly.";
  return error.message;
}

/** A field's error as a sentence. */
export const fieldWords = (name, detail) => `${FIELDS[name] ?? name} ${detail}.`;

/** "3 s", "2 min", "5 h" */
export function seconds(ms) {
  const whole = Math.round(ms / 1000);
  if (whole < 120) return `${whole} s`;
  if (whole < 7200) return `${Math.round(whole / 60)} min`;
  return `${Math.round(whole / 3600)} h`;
}

function heldBy(order) {
  const positions = order.current_balance?.issuers;
  if (!positions) return null;
  return positions.find((one) => one.issuer_name === order.issuer_name)?.total_shares ?? 0;
}
