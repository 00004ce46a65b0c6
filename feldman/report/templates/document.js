// What the page holds: columns, and where to find an example, its pairs and its class.

const data = JSON.parse(byId("data").textContent);
const { classes, train, test, pairs, histogram } = data;
const parts = { train, test };
const partNames = { train: "training", test: "test" };

const rowOf = {
  train: new Map(train.index.map((index, row) => [index, row])),
  test: new Map(test.index.map((index, row) => [index, row])),
};

// The pairs of each example on the page, the most influential first, as the pairs themselves are.
const pairsOf = { train: train.index.map(() => []), test: test.index.map(() => []) };
for (let pair = 0; pair < pairs.train.length; pair += 1) {
  pairsOf.train[pairs.train[pair]].push(pair);
  pairsOf.test[pairs.test[pair]].push(pair);
}

// A class that is called by a number says that it is one.
const classTitles = classes.map((name) => (/^\d+$/.test(name) ? `class ${name}` : name));

function classWords(part, row, names = classTitles) {
  const name = names[parts[part].label[row]];
  if (part === "test" || train.original === null || train.original[row] === train.label[row]) return name;
  return `${name} (random, was ${classes[train.original[row]]})`;
}

const exampleWords = (part, row) => `${partNames[part]} example ${parts[part].index[row]}, ${classWords(part, row)}`;

// Where intervals are drawn: from 0, or the lowest end of one, to 1.
const lowest = [train.low, pairs.low].flat().reduce((least, value) => (value !== null && value < least ? value : least), 0);

function intervalMark(value, low, high) {
  if (value === null || low === null || high === null) return null;
  const at = (number) => (100 * (number - lowest)) / (1 - lowest);
  const mark = drawing("svg", { class: "interval", viewBox: "-2 0 104 10", preserveAspectRatio: "none", "aria-hidden": "true" });
  mark.append(
    drawing("line", { class: "axis", x1: 0, x2: 100, y1: 5, y2: 5 }),
    drawing("line", { class: "zero", x1: at(0), x2: at(0), y1: 1, y2: 9 }),
    drawing("line", { class: "reach", x1: at(low), x2: at(high), y1: 5, y2: 5 }),
    drawing("line", { class: "value", x1: at(value), x2: at(value), y1: 0, y2: 10 }),
  );
  return mark;
}

// A number with its interval, in words and as a small drawing.
function estimate(value, low, high) {
  const reach = range(low, high);
  return element(
    "span",
    { class: "estimate" },
    element("strong", {}, decimal(value)),
    reach ? element("span", { class: "reach" }, ` ${reach}`) : null,
    intervalMark(value, low, high),
  );
}
