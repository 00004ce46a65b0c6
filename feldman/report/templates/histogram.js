// Counts of all training examples by memorization, as bars that are buttons, and the range that is chosen.

const numBins = histogram.counts[0]?.length ?? 0;
const edge = (bin) => (histogram.first + bin) * histogram.width;
const edgeText = (bin) => edge(bin).toFixed(2);
const edgeWords = (bin) => edgeText(bin).replace("-", "\u2212");

const binAt = (text, otherwise) => {
  if (text === undefined) return otherwise;
  return Math.min(numBins, Math.max(0, Math.round(Number(text) / histogram.width) - histogram.first));
};

// The bins that are chosen: the first, and the one after the last; one at least.
function chosenBins() {
  const first = Math.min(binAt(state.low, 0), numBins - 1);
  return [first, Math.max(binAt(state.high, numBins), first + 1)];
}

const chosenClass = (name = "class") => (state[name] === undefined ? null : Number(state[name]));

function countsOf(label) {
  if (label !== null) return histogram.counts[label];
  const total = new Array(numBins).fill(0);
  for (const row of histogram.counts) row.forEach((number, bin) => (total[bin] += number));
  return total;
}

const undefinedOf = (label) =>
  label === null ? histogram.undefined.reduce((sum, number) => sum + number, 0) : histogram.undefined[label];

function drawHistogram() {
  const counts = countsOf(chosenClass());
  const [first, end] = chosenBins();
  const limited = first > 0 || end < numBins;
  const most = Math.log1p(Math.max(...counts, 1));
  const held = byId("histogram").contains(document.activeElement) ? Number(document.activeElement.dataset.bin) : null;
  const bars = counts.map((number, bin) => {
    const within = bin >= first && bin < end;
    const words = `${edgeWords(bin)} to ${edgeWords(bin + 1)}: ${plural(number, "training example", "training examples")}`;
    const bar = element("span", { class: "bar" });
    bar.style.setProperty("--share", String(Math.log1p(number) / most));
    return element(
      "button",
      {
        type: "button",
        "data-bin": bin,
        class: within ? "within" : "outside",
        title: words,
        "aria-label": words,
        "aria-pressed": String(limited && within),
        tabindex: bin === (held ?? first) ? "0" : "-1",
      },
      element("span", { class: "count" }, number < 100000 ? count(number) : shortened.format(number)),
      bar,
      element("span", { class: "edge" }, edgeWords(bin).replace("0.", ".")),
    );
  });
  byId("histogram").replaceChildren(...bars);
  if (held !== null) bars[held].focus();
}

function chooseBin(bin) {
  const [first, end] = chosenBins();
  const again = first === bin && end === bin + 1;
  choose(again ? { low: "", high: "" } : { low: edgeText(bin), high: edgeText(bin + 1) });
}

function startHistogram() {
  const named = [["", "all"], ...classes.map((name, label) => [String(label), name])];
  fillSelect(byId("memorization-class"), named);
  const edges = Array.from({ length: numBins }, (_, bin) => bin);
  fillSelect(byId("memorization-low"), edges.map((bin) => [bin === 0 ? "" : edgeText(bin), edgeWords(bin)]));
  fillSelect(byId("memorization-high"), edges.map((bin) => [bin + 1 === numBins ? "" : edgeText(bin + 1), edgeWords(bin + 1)]).reverse());
  byId("memorization-filters").addEventListener("change", () => {
    choose({ class: byId("memorization-class").value, low: byId("memorization-low").value, high: byId("memorization-high").value });
  });
  byId("memorization-filters").addEventListener("reset", (event) => {
    event.preventDefault();
    choose({ class: "", low: "", high: "" });
  });
  byId("memorization-filters").addEventListener("submit", (event) => event.preventDefault());
  byId("histogram").addEventListener("click", (event) => {
    const bar = event.target.closest("button");
    if (bar !== null) chooseBin(Number(bar.dataset.bin));
  });
  byId("histogram").addEventListener("keydown", (event) => {
    const bar = event.target.closest("button");
    const steps = { ArrowLeft: -1, ArrowUp: -1, ArrowRight: 1, ArrowDown: 1, Home: -numBins, End: numBins };
    if (bar === null || steps[event.key] === undefined) return;
    event.preventDefault();
    const to = Math.min(numBins - 1, Math.max(0, Number(bar.dataset.bin) + steps[event.key]));
    bar.tabIndex = -1;
    byId("histogram").children[to].tabIndex = 0;
    byId("histogram").children[to].focus();
  });
}

renderers.push((before) => {
  if (!changed(before, "class", "low", "high")) return;
  const [first, end] = chosenBins();
  byId("memorization-class").value = state.class ?? "";
  byId("memorization-low").value = first === 0 ? "" : edgeText(first);
  byId("memorization-high").value = end === numBins ? "" : edgeText(end);
  drawHistogram();
});
