// Amounts are strings, as the API gives them. They are never made into floating-point numbers:
// sums and products are made with whole numbers of any size.

const WRITTEN = /^([+-]?)(\d*)(?:\.(\d*))?$/;

/** The exact value of `text` as {digits, scale}, or null where it is no plain decimal. */
export function parse(text) {
  const match = WRITTEN.exec(text.trim());
  if (!match) return null;
  const [, sign, whole, decimals = ""] = match;
  if (whole === "" && decimals === "") return null;
  const digits = BigInt(whole + decimals);
  return { digits: sign === "-" ? -digits : digits, scale: decimals.length };
}

/** `value` as the API writes it: no exponent, no needless zeros. */
export function plain({ digits, scale }) {
  const sign = digits < 0n ? "-" : "";
  const all = (digits < 0n ? -digits : digits).toString().padStart(scale + 1, "0");
  const whole = all.slice(0, all.length - scale);
  const decimals = all.slice(all.length - scale).replace(/0+$/, "");
  return sign + whole + (decimals ? "." + decimals : "");
}

/** The exact product of two written decimals, or null where one of them is none. */
export function times(one, other) {
  const [a, b] = [parse(one), parse(other)];
  if (!a || !b) return null;
  return plain({ digits: a.digits * b.digits, scale: a.scale + b.scale });
}

/** The exact difference of two written decimals, or null where one of them is none. */
export function minus(one, other) {
  const [a, b] = [parse(one), parse(other)];
  if (!a || !b) return null;
  const scale = Math.max(a.scale, b.scale);
  const raise = (value) => value.digits * 10n ** BigInt(scale - value.scale);
  return plain({ digits: raise(a) - raise(b), scale });
}

/** Tells whether `one` is less than `other`. */
export function isLess(one, other) {
  const difference = minus(one, other);
  return difference !== null && difference.startsWith("-");
}

/** The pieces of an amount between which a little room makes it easier to read: 1 234 567.5. */
export function groups(text) {
  const match = /^(-?\d+)((?:\.\d+)?)$/.exec(text);
  if (!match || match[1].replace("-", "").length < 5) return [text];
  const pieces = match[1].match(/-?\d{1,3}(?=(?:\d{3})*$)/g);
  pieces[pieces.length - 1] += match[2];
  return pieces;
}
