(() => {
  const root = document.documentElement, find = (id) => document.getElementById(id);
  find("opacity").addEventListener("input", (event) => root.style.setProperty("--opacity", event.target.value / 100));
  const list = find("images"), cards = [...list.querySelectorAll(".card")];
  const named = new Map([...find("class").options].slice(1).map((each) => [each.value, each.text.toLowerCase()]));
  const show = () => {
    const words = find("search").value.trim().toLowerCase();
    const name = find("class").value, kind = find("kind").value, order = find("order").value;
    let shown = 0;
    for (const card of cards) {
      const { classes, state } = card.dataset;
      const searched = words === "" || classes.split(" ").some((each) => named.get(each)?.includes(words));
      card.hidden = !searched || (name !== "" && !classes.split(" ").includes(name)) || (kind !== "" && state !== kind);
      shown += !card.hidden;
    }
    const sign = { most: -1, least: 1 }[order];
    const sorted = sign ? [...cards].sort((a, b) => sign * (a.dataset.confidence - b.dataset.confidence)) : cards;
    list.append(...sorted);
    find("count").textContent = `${shown} of ${cards.length}`;
  };
  for (const id of ["class", "kind", "order"]) find(id).addEventListener("change", show);
  find("search").addEventListener("input", show);
  show();
  const map = find("map");
  if (map) {
    find("map-controls").hidden = false;
    const mark = () => {
      const name = find("map-class").value, wrong = find("map-wrong").checked;
      for (const point of map.querySelectorAll("g")) {
        point.classList.toggle("faded", name !== "" && point.dataset.class !== name);
        point.classList.toggle("hidden", wrong && point.dataset.wrong === "0");
      }
    };
    for (const id of ["map-class", "map-wrong"]) find(id).addEventListener("change", mark);
  }
})();
