// Of each class the most memorized training examples of the page, beside typical ones.

const CLASSES_AT_ONCE = 10;
const OF_A_CLASS = { memorized: 6, typical: 3 };
const OF_THE_CLASS = 48;

const byMemorization = train.index.map((_, row) => row).filter((row) => train.value[row] !== null);
byMemorization.sort((one, other) => train.value[other] - train.value[one] || train.index[one] - train.index[other]);

let shownClasses = CLASSES_AT_ONCE;
let shownExamples = OF_THE_CLASS;

function exampleTile(part, row, ...told) {
  const { index } = parts[part];
  return element(
    "li",
    {},
    element(
      "a",
      { class: "tile", href: `#example=${part}-${index[row]}`, "data-example": `${part}-${index[row]}` },
      element("span", { class: "frame" }, picture(part, row, SMALL)),
      element("span", { class: "name" }, `${part} ${index[row]}`),
      element("span", { class: "class" }, classWords(part, row)),
      ...told,
    ),
  );
}

const memorizedTile = (row) => exampleTile("train", row, estimate(train.value[row], train.low[row], train.high[row]));

function tiles(title, rows, most) {
  const list = rows.length
    ? element("ul", { class: "tiles" }, ...rows.slice(0, most).map(memorizedTile))
    : element("p", { class: "hint" }, "None on this page.");
  return element("div", { class: "examples" }, element("h4", {}, title), list);
}

function classPart(label, rows, single) {
  const typical = rows.filter((row) => train.typical[row]);
  const memorized = rows.filter((row) => !train.typical[row]);
  return element(
    "section",
    { class: "class-part", "aria-label": classTitles[label] },
    element("h3", {}, capital(classTitles[label])),
    element(
      "div",
      { class: "sides" },
      tiles("Most memorized", memorized, single ? shownExamples : OF_A_CLASS.memorized),
      tiles("Typical", typical, single ? shownExamples : OF_A_CLASS.typical),
    ),
  );
}

function drawGallery() {
  const label = chosenClass();
  const [first, end] = chosenBins();
  const low = histogram.first + first;
  const high = histogram.first + end;
  const rows = byMemorization.filter(
    (row) => train.bin[row] >= low && train.bin[row] < high && (label === null || train.label[row] === label),
  );
  const total = countsOf(label).slice(first, end).reduce((sum, number) => sum + number, 0);
  const open = undefinedOf(label);
  byId("memorization-status").textContent =
    `${plural(total, "training example has", "training examples have")} memorization from ${edgeWords(first)} to ${edgeWords(end)}` +
    `${label === null ? "" : ` in class ${classes[label]}`}; ${count(rows.length)} of them ${rows.length === 1 ? "is" : "are"} on this page.` +
    (open ? ` Of ${plural(open, "more", "more")} it is undefined: they were in all trials or in none.` : "");
  const ofClass = new Map();
  for (const row of rows) {
    if (!ofClass.has(train.label[row])) ofClass.set(train.label[row], []);
    ofClass.get(train.label[row]).push(row);
  }
  const labels = [...ofClass.keys()].sort((one, other) => one - other);
  byId("gallery").replaceChildren(
    ...labels.slice(0, shownClasses).map((each) => classPart(each, ofClass.get(each), label !== null)),
  );
  const more = byId("gallery-more");
  const waiting = label === null ? labels.length - shownClasses : rows.filter((row) => !train.typical[row]).length - shownExamples;
  more.hidden = waiting <= 0;
  more.textContent = label === null ? `Show ${count(Math.min(waiting, CLASSES_AT_ONCE))} more of ${count(labels.length)} classes` : `Show ${count(Math.min(waiting, OF_THE_CLASS))} more examples`;
}

function startGallery() {
  byId("gallery-more").addEventListener("click", () => {
    const before = byId("gallery").querySelectorAll("a").length;
    shownClasses += CLASSES_AT_ONCE;
    shownExamples += OF_THE_CLASS;
    drawGallery();
    byId("gallery").querySelectorAll("a")[before]?.focus();
  });
}

renderers.push((before) => {
  if (!changed(before, "class", "low", "high")) return;
  shownClasses = CLASSES_AT_ONCE;
  shownExamples = OF_THE_CLASS;
  drawGallery();
});
