// Elements are made and filled here, with text alone: nothing that came from outside is markup.

import { groups } from "./decimal.js";

const SVG = "http://www.w3.org/2000/svg";

/** The element of the page with this id. */
export const byId = (id) => document.getElementById(id);

/** A new element with attributes and children; a string child is text. */
export function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== null) element.setAttribute(name, value);
  }
  element.append(...children);
  return element;
}

/** A picture from the page's own set, for the eye only. */
export function icon(name) {
  const picture = document.createElementNS(SVG, "svg");
  picture.setAttribute("class", "icon");
  picture.setAttribute("aria-hidden", "true");
  const use = document.createElementNS(SVG, "use");
  use.setAttribute("href", `#icon-${name}`);
  picture.append(use);
  return picture;
}

/** An amount: the text is just what the API gave, the groups of its digits are set apart. */
export function amount(text) {
  const [first, ...rest] = groups(text);
  return make("span", { class: "amount" }, first, ...rest.map((piece) => make("span", {}, piece)));
}

/** Sets the text of an element, but only if it changes, so that nothing is read out twice. */
export function say(element, text) {
  if (element.textContent !== text) element.textContent = text;
}
