// The view: what is filtered, sorted and chosen. The part of the address after "#" holds it, and nothing else does.

const anyNumber = (text) => text !== "" && Number.isFinite(Number(text));
const known = {
  view: (text) => ["overview", "memorization", "influence", "pairs", "studies"].includes(text) && byId(text) !== null,
  class: (text) => text !== "" && classes[Number(text)] !== undefined,
  low: anyNumber,
  high: anyNumber,
  example: (text) => /^(train|test)-\d{1,15}$/.test(text),
  "pair-class": (text) => text !== "" && classes[Number(text)] !== undefined,
  min: anyNumber,
  same: (text) => text === "1",
  sure: (text) => text === "1",
  sort: (text) => /^-?(influence|memorization|q|train|test)$/.test(text),
  page: (text) => /^[1-9]\d{0,8}$/.test(text),
};

// A name that is not here has nothing chosen.
let state = {};
const renderers = [];

function stateOf(fragment) {
  const found = {};
  for (const [name, text] of new URLSearchParams(fragment.replace(/^#/, ""))) {
    if (known[name]?.(text)) found[name] = text;
  }
  return found;
}

function fragmentOf(view) {
  const chosen = Object.keys(known).filter((name) => view[name] !== undefined && view[name] !== "");
  return `#${new URLSearchParams(chosen.map((name) => [name, view[name]]))}`;
}

// Choose something: "step" makes a step that the browser's way back undoes.
function choose(changes, step = false) {
  const before = state;
  state = { ...state, ...changes };
  for (const name of Object.keys(state)) if (state[name] === "" || state[name] === undefined) delete state[name];
  const fragment = fragmentOf(state);
  if (step && fragment !== fragmentOf(before)) history.pushState(null, "", fragment);
  else history.replaceState(null, "", fragment);
  render(before);
}

function render(before) {
  for (const renderer of renderers) renderer(before);
}

const changed = (before, ...names) => before === null || names.some((name) => before[name] !== state[name]);

function showPart(id, focus) {
  byId(id).scrollIntoView({ block: "start" });
  if (focus) byId(`${id}-title`).focus({ preventScroll: true });
}
