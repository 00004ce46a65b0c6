// One example: of a training example the test examples that it decides, of a test example the training examples that decide it.

const PAIRS_AT_ONCE = 24;

const otherPart = { train: "test", test: "train" };

// Without a choice: the training example of the strongest pair, else the most memorized one.
function firstExample() {
  if (pairs.train.length) return ["train", pairs.train[0]];
  return byMemorization.length ? ["train", byMemorization[0]] : null;
}

function pairTile(part, pair) {
  const other = otherPart[part];
  return exampleTile(
    other,
    pairs[other][pair],
    estimate(pairs.influence[pair], pairs.low[pair], pairs.high[pair]),
    pairs.q[pair] === null ? null : element("span", { class: "reach" }, `q ${small(pairs.q[pair])}`),
  );
}

// The strongest pairs of an example, and a button for the others.
function pairTiles(part, chosen) {
  const list = element("ul", { class: "tiles" }, ...chosen.slice(0, PAIRS_AT_ONCE).map((pair) => pairTile(part, pair)));
  if (chosen.length <= PAIRS_AT_ONCE) return [list];
  const others = chosen.slice(PAIRS_AT_ONCE);
  const more = element("button", { type: "button", id: "chosen-more" }, `Show ${count(others.length)} more`);
  more.addEventListener("click", () => {
    list.append(...others.map((pair) => pairTile(part, pair)));
    more.remove();
    list.children[PAIRS_AT_ONCE].querySelector("a").focus();
  });
  return [list, more];
}

function fact(term, ...told) {
  return element("div", {}, element("dt", {}, term), element("dd", {}, ...told));
}

function share(correct, trials) {
  return correct < 0 || trials < 0 ? "not known" : `${count(correct)} of ${plural(trials, "time", "times")}`;
}

function exampleFacts(part, row) {
  const told = [fact("Class", classWords(part, row, classes))];
  if (part === "train") {
    told.push(
      fact("Memorization", estimate(train.value[row], train.low[row], train.high[row])),
      fact("Right by models that learned from it", share(train.correctIn[row], train.numIn[row])),
      fact("Right by models that did not", share(train.correctOut[row], train.numOut[row])),
    );
  }
  if (parts[part].file !== null) told.push(fact("File", parts[part].file[row]));
  return element("dl", { class: "facts" }, ...told);
}

function pairsTold(part, row) {
  const [here, all] = [pairsOf[part][row].length, parts[part].pairs[row]];
  if (all === 0) return ["It stands in no pair of the table."];
  if (here === all) return [`${plural(all, "pair", "pairs")}, all of the table's; the most influential first.`];
  const some = `${count(here)} of its ${plural(all, "pair", "pairs")} ${here === 1 ? "is" : "are"} on this page; `;
  return [some, element("code", {}, `feldman pairs RUN --${part} ${parts[part].index[row]} --all`), " lists them."];
}

function notHere(part, index) {
  const ask = [element("code", {}, `feldman pairs RUN --${part} ${index}`)];
  if (part === "train") ask.unshift(element("code", {}, `feldman memorized RUN --where "train_index = ${index}"`), " and ");
  return [`${capital(partNames[part])} example ${index} is not on this page, which holds ${count(parts[part].index.length)} of them; ask `, ...ask, "."];
}

function drawExample(part, row) {
  const title = { train: "Test examples that it decides", test: "Training examples that decide it" }[part];
  const chosen = pairsOf[part][row];
  byId("chosen").replaceChildren(
    element(
      "div",
      { class: "example" },
      element("div", { class: "frame large" }, picture(part, row, LARGE)),
      element(
        "div",
        {},
        element("h3", { id: "chosen-title", tabindex: "-1" }, `${capital(partNames[part])} example ${parts[part].index[row]}`),
        exampleFacts(part, row),
        valueTable(part, row),
      ),
    ),
    element("h4", {}, title),
    element("p", { class: "hint" }, ...pairsTold(part, row)),
  );
  if (chosen.length) byId("chosen").append(...pairTiles(part, chosen));
}

function drawInfluence() {
  let found = firstExample();
  let status = [];
  if (state.example !== undefined) {
    const [part, text] = state.example.split("-");
    const row = rowOf[part].get(Number(text));
    byId("example-part").value = part;
    byId("example-index").value = text;
    found = row === undefined ? null : [part, row];
    if (row === undefined) status = notHere(part, Number(text));
  } else if (found !== null) {
    byId("example-part").value = found[0];
    byId("example-index").value = parts[found[0]].index[found[1]];
  }
  byId("influence-status").replaceChildren(...status);
  if (found === null) byId("chosen").replaceChildren();
  else drawExample(...found);
}

function showExample(example) {
  choose({ example, view: "influence" }, true);
  showPart("influence", false);
  (byId("chosen-title") ?? byId("influence-title")).focus({ preventScroll: true });
}

function startInfluence() {
  byId("example-search").addEventListener("submit", (event) => {
    event.preventDefault();
    showExample(`${byId("example-part").value}-${Number(byId("example-index").value)}`);
  });
  document.addEventListener("click", (event) => {
    const link = event.target.closest("a[data-example]");
    if (link === null || event.ctrlKey || event.metaKey || event.shiftKey || event.altKey) return;
    event.preventDefault();
    showExample(link.dataset.example);
  });
}

renderers.push((before) => {
  if (changed(before, "example")) drawInfluence();
});
