// What stands for an example: its tile of a sheet of thumbnails, a plot of its values, or the word that there is none.

const pictures = data.pictures;
const SMALL = 84;
const LARGE = 192;

const sheets = new Map();

function sheet(number) {
  if (!sheets.has(number)) {
    const image = new Image();
    image.src = pictures.sheets[number];
    sheets.set(number, image.decode().then(() => image));
  }
  return sheets.get(number);
}

function picture(part, row, size) {
  const words = `Picture of ${exampleWords(part, row)}`;
  if (pictures !== null && pictures.kind === "values") return valuePlot(part, row, size);
  if (pictures === null || pictures[part][row] < 0) {
    return element("span", { class: "no-picture", role: "img", "aria-label": `No picture of ${exampleWords(part, row)}` }, "no picture");
  }
  const { width, height, pitch, columns, tiles } = pictures;
  const slot = pictures[part][row];
  const place = slot % tiles;
  const inSheet = Math.min(tiles, pictures.total - (slot - place));
  const across = Math.min(columns, inSheet);
  const canvas = element("canvas", { class: "picture", role: "img", "aria-label": words, width, height });
  const longer = Math.max(width, height);
  const scale = longer >= size ? size / longer : Math.floor(size / longer);
  canvas.style.width = `${width * scale}px`;
  canvas.style.height = `${height * scale}px`;
  sheet((slot - place) / tiles).then((image) => {
    const x = (place % across) * pitch[0];
    const y = Math.floor(place / across) * pitch[1];
    canvas.getContext("2d").drawImage(image, x, y, width, height, 0, 0, width, height);
  });
  return canvas;
}

const valueBounds = (() => {
  if (pictures === null || pictures.kind !== "values") return [0, 1];
  let [low, high] = [0, 0];
  for (const values of [...pictures.train, ...pictures.test]) {
    for (const value of values) {
      if (value < low) low = value;
      if (value > high) high = value;
    }
  }
  return low === high ? [0, 1] : [low, high];
})();

const MOST_TOLD = 8;

function valuePlot(part, row, size) {
  const values = pictures[part][row];
  const [low, high] = valueBounds;
  const told = values.slice(0, MOST_TOLD).join(", ") + (values.length > MOST_TOLD ? ", ..." : "");
  const at = (value) => 1 + (46 * (high - value)) / (high - low);
  const step = 96 / values.length;
  const plot = drawing("svg", {
    class: "picture plot",
    role: "img",
    "aria-label": `Values of ${exampleWords(part, row)}: ${told}`,
    viewBox: "0 0 96 48",
    width: size === LARGE ? 288 : 96,
    height: size === LARGE ? 144 : 48,
  });
  plot.append(drawing("line", { class: "axis", x1: 0, x2: 96, y1: at(0), y2: at(0) }));
  values.forEach((value, place) => {
    const top = Math.min(at(value), at(0));
    const height = Math.max(Math.abs(at(value) - at(0)), 0.5);
    plot.append(drawing("rect", { class: "bar", x: place * step + step * 0.1, y: top, width: step * 0.8, height }));
  });
  return plot;
}

// The numbers themselves, where inputs are no images.
function valueTable(part, row) {
  if (pictures === null || pictures.kind !== "values") return null;
  const values = pictures[part][row];
  const means = values.length < pictures.numValues;
  const title = means ? `${values.length} means of ${count(pictures.numValues)} values` : plural(values.length, "value", "values");
  const cells = values.map((value) => element("li", {}, String(value).replace("-", "\u2212")));
  return element("details", {}, element("summary", {}, title), element("ol", { class: "values", start: 0 }, ...cells));
}
