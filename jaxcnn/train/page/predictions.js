(() => {
  const root = document.documentElement, find = (id) => document.getElementById(id);
  const list = find("images"), buttons = [...document.querySelectorAll("#classes button")];
  const cards = [...list.querySelectorAll(".card")].map((card) => ({
    card, own: card.dataset.class, sure: Number(card.dataset.sure), there: 0,
    marks: [...card.querySelectorAll("g")].map((group) => ({
      group, name: group.dataset.class, quiet: "quiet" in group.dataset,
      score: "score" in group.dataset ? Number(group.dataset.score) : 1,
    })),
    line: card.querySelector(".answer"),
  }));
  const chosen = () => new Set(buttons.filter((each) => each.getAttribute("aria-pressed") === "true").map((each) => each.dataset.class));
  const title = (name) => buttons[name].dataset.name;
  for (const each of buttons) each.dataset.name = each.querySelector("span").textContent;
  const show = () => {
    const least = find("least") ? find("least").value / 100 : 0, wanted = chosen(), counts = new Map();
    const own = find("own") ? find("own").checked : false;  // the threshold of each class, not one score for all
    const from = (name) => (own ? Number(buttons[name].dataset.least) : least);
    if (find("at")) find("at").textContent = own ? "each" : `${Math.round(100 * least)} %`;
    if (find("least")) find("least").disabled = own;
    let shown = 0;
    for (const each of cards) {
      const of = new Map();
      each.there = 0;
      for (const mark of each.marks) {
        const fits = mark.score >= from(mark.name);
        const on = fits && (wanted.size ? wanted.has(mark.name) : !mark.quiet);
        mark.group.classList.toggle("off", !on);
        if (fits) counts.set(mark.name, (counts.get(mark.name) || 0) + 1);
        if (on) { each.there += 1; of.set(mark.name, (of.get(mark.name) || 0) + 1); }
      }
      if (each.own !== undefined) {
        const fits = each.sure >= least;
        if (fits) counts.set(each.own, (counts.get(each.own) || 0) + 1);
        each.card.hidden = !fits || (wanted.size > 0 && !wanted.has(each.own));
      } else {
        each.card.hidden = wanted.size > 0 && each.there === 0;
      }
      if (each.line && each.marks.some((mark) => mark.group.dataset.score)) {
        const told = [...of].sort((a, b) => b[1] - a[1]).map(([name, number]) => `${number} ${title(name)}`);
        each.line.textContent = told.join(", ") || "nothing";
      }
      shown += !each.card.hidden;
    }
    for (const each of buttons) each.querySelector("b").textContent = counts.get(each.dataset.class) || 0;
    const by = { most: (a, b) => b.sure - a.sure, least: (a, b) => a.sure - b.sure, many: (a, b) => b.there - a.there,
      few: (a, b) => a.there - b.there }[find("order") ? find("order").value : ""];
    list.append(...(by ? [...cards].sort(by) : cards).map((each) => each.card));
    find("count").textContent = `${shown} of ${cards.length} images`;
  };
  for (const each of buttons) {
    each.addEventListener("click", () => {
      each.setAttribute("aria-pressed", String(each.getAttribute("aria-pressed") !== "true"));
      show();
    });
  }
  for (const [id, kind] of [["least", "input"], ["own", "change"], ["order", "change"]]) if (find(id)) find(id).addEventListener(kind, show);
  find("size").addEventListener("input", (event) => root.style.setProperty("--cell", `${event.target.value}rem`));
  if (find("opacity")) {
    find("opacity").addEventListener("input", (event) => root.style.setProperty("--opacity", event.target.value / 100));
  }
  if (find("names")) find("names").addEventListener("change", (event) => root.classList.toggle("names", event.target.checked));
  list.addEventListener("click", (event) => {  // on a screen without a mouse, a touch tells what a mark is
    const group = event.target.closest("g"), card = event.target.closest(".card");
    if (!card) return;
    for (const other of card.querySelectorAll("g.told")) other.classList.remove("told");
    if (group) group.classList.add("told");
    card.querySelector(".said").textContent = group ? group.querySelector("title").textContent : "";
  });
  show();
})();
