// The list of pairs: filtered, sorted, a page at a time.

const ROWS = 20;
const COLUMNS = [
  ["train", "Training example", (pair) => train.index[pairs.train[pair]]],
  ["test", "Test example", (pair) => test.index[pairs.test[pair]]],
  ["influence", "Influence", (pair) => pairs.influence[pair]],
  ["memorization", "Memorization", (pair) => train.value[pairs.train[pair]]],
  ["q", "q-value", (pair) => pairs.q[pair]],
];
const hasQ = pairs.q.some((value) => value !== null);
const shownColumns = COLUMNS.filter(([name]) => name !== "q" || hasQ);

// The first order of a column: numbers that matter when they are large begin with the largest.
const firstOrder = { train: "train", test: "test", influence: "-influence", memorization: "-memorization", q: "q" };
const sorting = () => state.sort ?? firstOrder.influence;

function foundPairs() {
  const label = chosenClass("pair-class");
  const least = state.min === undefined ? -Infinity : Number(state.min);
  const found = [];
  for (let pair = 0; pair < pairs.train.length; pair += 1) {
    const [one, other] = [train.label[pairs.train[pair]], test.label[pairs.test[pair]]];
    if (pairs.influence[pair] < least) continue;
    if (label !== null && one !== label && other !== label) continue;
    if (state.same && one !== other) continue;
    if (state.sure && !(pairs.q[pair] !== null && pairs.q[pair] <= 0.05)) continue;
    found.push(pair);
  }
  return found;
}

function sortedPairs(found) {
  const name = sorting().replace("-", "");
  const direction = sorting().startsWith("-") ? -1 : 1;
  const value = COLUMNS.find(([column]) => column === name)[2];
  const last = (pair) => value(pair) === null;
  return found.sort((one, other) => last(one) - last(other) || direction * (value(one) - value(other)) || one - other);
}

function exampleCell(part, row, title) {
  const { index } = parts[part];
  return element(
    "td",
    { role: "cell", "data-label": title, class: "pictured" },
    element(
      "a",
      { class: "tile", href: `#example=${part}-${index[row]}`, "data-example": `${part}-${index[row]}` },
      element("span", { class: "frame" }, picture(part, row, SMALL)),
      element("span", {}, element("span", { class: "name" }, `${part} ${index[row]}`), element("span", { class: "class" }, classWords(part, row))),
    ),
  );
}

function pairRow(pair) {
  const [row, testRow] = [pairs.train[pair], pairs.test[pair]];
  const cell = (title, ...told) => element("td", { role: "cell", "data-label": title }, ...told);
  return element(
    "tr",
    { role: "row" },
    exampleCell("train", row, "Training example"),
    exampleCell("test", testRow, "Test example"),
    cell("Influence", estimate(pairs.influence[pair], pairs.low[pair], pairs.high[pair])),
    cell("Memorization", estimate(train.value[row], train.low[row], train.high[row])),
    hasQ ? cell("q-value", small(pairs.q[pair])) : null,
  );
}

function drawHead() {
  const current = sorting();
  const words = { ascending: "\u2191", descending: "\u2193" };
  const focused = document.activeElement?.dataset.sort;
  byId("pair-head").replaceChildren(
    ...shownColumns.map(([name, title]) => {
      const order = current === name ? "ascending" : current === `-${name}` ? "descending" : "none";
      const button = element("button", { type: "button", "data-sort": name }, title, element("span", { class: "order", "aria-hidden": "true" }, words[order] ?? "\u2195"));
      return element("th", { role: "columnheader", scope: "col", "aria-sort": order }, button);
    }),
  );
  if (focused) byId("pair-head").querySelector(`[data-sort="${focused}"]`)?.focus();
}

function drawPairs() {
  const found = sortedPairs(foundPairs());
  const last = Math.max(1, Math.ceil(found.length / ROWS));
  const page = Math.min(Number(state.page ?? 1), last);
  byId("pair-class").value = state["pair-class"] ?? "";
  if (byId("pair-min") !== document.activeElement) byId("pair-min").value = state.min ?? "";
  byId("pair-same").checked = state.same === "1";
  byId("pair-sure").checked = state.sure === "1";
  byId("pair-status").textContent = `${count(found.length)} of the ${plural(pairs.train.length, "pair", "pairs")} on this page.`;
  byId("pair-rows").replaceChildren(...found.slice((page - 1) * ROWS, page * ROWS).map(pairRow));
  byId("pair-table").hidden = found.length === 0;
  byId("pair-page").textContent = `${count(page)} of ${count(last)}`;
  byId("pair-previous").disabled = page === 1;
  byId("pair-next").disabled = page === last;
  drawHead();
}

function turnPage(by) {
  choose({ page: String(Number(state.page ?? 1) + by) });
  showPart("pairs", false);
}

function startPairs() {
  fillSelect(byId("pair-class"), [["", "any"], ...classes.map((name, label) => [String(label), name])]);
  byId("pair-sure-label").hidden = !hasQ;
  byId("pair-filters").addEventListener("input", () => {
    choose({
      "pair-class": byId("pair-class").value,
      min: byId("pair-min").value,
      same: byId("pair-same").checked ? "1" : "",
      sure: byId("pair-sure").checked ? "1" : "",
      page: "",
    });
  });
  byId("pair-filters").addEventListener("reset", (event) => {
    event.preventDefault();
    byId("pair-min").value = "";
    choose({ "pair-class": "", min: "", same: "", sure: "", sort: "", page: "" });
  });
  byId("pair-filters").addEventListener("submit", (event) => event.preventDefault());
  byId("pair-head").addEventListener("click", (event) => {
    const name = event.target.closest("button")?.dataset.sort;
    if (name === undefined) return;
    const first = firstOrder[name];
    const other = first.startsWith("-") ? first.slice(1) : `-${first}`;
    const next = sorting() === first ? other : first;
    choose({ sort: next === firstOrder.influence ? "" : next, page: "" });
  });
  byId("pair-previous").addEventListener("click", () => turnPage(-1));
  byId("pair-next").addEventListener("click", () => turnPage(1));
}

renderers.push((before) => {
  if (changed(before, "pair-class", "min", "same", "sure", "sort", "page")) drawPairs();
});
