// What a detector found: boxes over the image, and a list of them, from a score on that a person chooses.

// Of Okabe and Ito (2008), which people with any colour vision tell apart, and grey, as on jaxcnn's page of predictions.
const COLOURS = ["#e69f00", "#56b4e9", "#009e73", "#f0e442", "#0072b2", "#d55e00", "#cc79a7", "#bbbbbb"];
const MOST_NAMED = 12, MOST_LISTED = 30; // boxes with their names over the image, and in the list
const LETTERS = 14; // height of names, pixels of the screen
const get = (id) => document.getElementById(id);
let facts, last;

/** Show the choice of a score. */
export function offer(told) {
  facts = told;
  get("least").value = Math.round(100 * facts.least);
  get("chosen").hidden = !facts.thresholds;
  get("choice").hidden = false;
  for (const id of ["least", "own"]) get(id).oninput = again;
  new ResizeObserver(again).observe(get("stage"));
  document.body.classList.add("finds");
}

/** Draw the boxes of an image of these sides, width and height. */
export async function draw(boxes, sides) {
  last = { boxes, sides };
  if (!get("shown").hidden) await get("shown").decode().catch(() => {});
  again();
}

/** Take the boxes of the last image away. */
export function forget() {
  last = null;
  get("over").toggleAttribute("hidden", true); // SVG has no property of this name
  get("count").hidden = true;
}

function svg(kind, attributes, text) {
  const element = document.createElementNS(get("over").namespaceURI, kind);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  if (text) element.textContent = text;
  return element;
}

const percent = (score) => `${(100 * score).toFixed(0)} %`;

function again() {
  if (!facts) return;
  const own = get("own").checked, least = get("least").value / 100;
  get("least").disabled = own;
  get("at").textContent = own ? "of each class" : percent(least);
  if (!last) return;
  const [width, height] = last.sides, sure = last.boxes.filter((one) => one.score >= (own ? facts.thresholds[one.number] : least));
  const over = get("over"), space = get("stage").getBoundingClientRect();
  const pixel = 1 / Math.min(space.width / width, space.height / height); // of the screen, in pixels of the image
  const shown = space.width > 0 && space.height > 0, drawn = [];
  over.setAttribute("viewBox", `0 0 ${width} ${height}`);
  for (const { label, number, score, box: [x, y, w, h] } of shown ? [...sure].reverse() : []) {
    const place = { x, y, width: Math.max(w, 0), height: Math.max(h, 0) }, colour = COLOURS[number % COLOURS.length];
    drawn.push(svg("rect", { ...place, class: "dark" }), svg("rect", { ...place, stroke: colour }));
    if (sure.length > MOST_NAMED) continue;
    const above = y > 1.3 * LETTERS * pixel;
    const right = x + w / 2 > width / 2; // names end where a box of the right half does, so that they stay in the image
    const at = { x: right ? Math.min(x + w, width) : Math.max(x, 0), "text-anchor": right ? "end" : "start" };
    at.y = above ? y - 0.3 * LETTERS * pixel : Math.max(y, 0) + LETTERS * pixel;
    drawn.push(svg("text", { ...at, "font-size": LETTERS * pixel }, `${label} ${percent(score)}`));
  }
  over.replaceChildren(...drawn);
  over.toggleAttribute("hidden", !shown);
  const count = new Map();
  for (const { label } of sure) count.set(label, (count.get(label) ?? 0) + 1);
  const rest = sure.length > MOST_LISTED ? `; below are the surest ${MOST_LISTED}` : "";
  get("count").textContent = ([...count].sort((a, b) => b[1] - a[1]).map(([label, number]) => `${number} ${label}`).join(", ") || "nothing") + rest;
  get("count").hidden = false;
  get("answers").replaceChildren(...sure.slice(0, MOST_LISTED).map(({ label, number, score }) => {
    const row = document.createElement("li"), name = document.createElement("bdi"), told = document.createElement("span");
    const sample = svg("svg", { class: "sample", viewBox: "0 0 10 10", "aria-hidden": "true" });
    sample.append(svg("rect", { x: 1, y: 1, width: 8, height: 8, stroke: COLOURS[number % COLOURS.length] }));
    name.textContent = label;
    told.textContent = `${(100 * score).toFixed(1)} %`;
    row.append(sample, name, told);
    return row;
  }));
}
