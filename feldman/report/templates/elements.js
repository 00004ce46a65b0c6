// Elements, numbers and words. Whatever comes from the run becomes text or an attribute, never markup.

const byId = (id) => document.getElementById(id);

function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    made.setAttribute(name, value === true ? "" : value);
  }
  made.append(...children.filter((child) => child !== null && child !== undefined));
  return made;
}

function drawing(tag, attributes = {}, ...children) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children);
  return made;
}

const counted = new Intl.NumberFormat("en-US");
const shortened = new Intl.NumberFormat("en-US", { notation: "compact", maximumSignificantDigits: 3 });

const count = (number) => counted.format(number);
const plural = (number, one, many) => `${count(number)} ${number === 1 ? one : many}`;
const decimal = (value) => (value === null ? "undefined" : value.toFixed(3).replace("-", "\u2212"));
const bound = (value) => (Math.abs(value) < 0.005 ? "0.00" : value.toFixed(2).replace("-", "\u2212"));
const range = (low, high) => (low === null || high === null ? "" : `${bound(low)} to ${bound(high)}`);
const small = (value) => (value === null ? "not known" : value < 1e-9 ? "below 1e-9" : String(value));
const capital = (word) => word[0].toUpperCase() + word.slice(1);

function fillSelect(select, options) {
  select.replaceChildren(...options.map(([value, text]) => element("option", { value }, text)));
}
