// The page begins with the view that its address tells, and follows it.

document.addEventListener("click", (event) => {
  const link = event.target.closest("a[data-view]");
  if (link === null || event.ctrlKey || event.metaKey || event.shiftKey || event.altKey) return;
  event.preventDefault();
  choose({ view: link.dataset.view }, true);
  showPart(link.dataset.view, true);
});

window.addEventListener("hashchange", () => {
  const before = state;
  state = stateOf(location.hash);
  render(before);
  const part = state.view ?? (changed(before, "example") && state.example !== undefined ? "influence" : undefined);
  if (part !== undefined && changed(before, "view", "example")) showPart(part, false);
});

startHistogram();
startGallery();
startInfluence();
startPairs();
state = stateOf(location.hash);
render(null);
const opened = state.view ?? (state.example === undefined ? undefined : "influence");
if (opened !== undefined) showPart(opened, false);
