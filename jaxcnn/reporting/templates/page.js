"use strict";
(() => {
  const root = document.documentElement;
  const store = { get: () => { try { return localStorage.getItem("jaxcnn-theme"); } catch { return null; } },
                  set: (value) => { try { localStorage.setItem("jaxcnn-theme", value); } catch { /* a page from a file may not */ } } };
  const asked = new URLSearchParams(location.search).get("theme") || store.get();
  if (asked === "light" || asked === "dark") root.dataset.theme = asked;
  const toggle = document.getElementById("theme");
  toggle.hidden = false;
  toggle.addEventListener("click", () => {
    const dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
    root.dataset.theme = dark ? "light" : "dark";
    store.set(root.dataset.theme);
  });

  const keyOf = (cell) => cell.dataset.sort !== undefined ? Number(cell.dataset.sort) : cell.textContent.trim();
  const empty = (key) => key === "" || key === "–" || Number.isNaN(key);
  const compare = (a, b) => {
    if (typeof a === "number" && typeof b === "number") return a - b;
    return String(a).localeCompare(String(b), "en", { numeric: true });
  };
  for (const frame of document.querySelectorAll(".table")) {
    const table = frame.querySelector("table"), body = table.tBodies[0], original = [...body.rows];
    if (original.length > 20) frame.querySelector(".scroll").classList.add("tall");
    [...table.tHead.rows[0].cells].forEach((head, column) => {
      if (original.length < 2 || !head.textContent.trim()) return;
      const button = document.createElement("button");
      button.type = "button";
      button.append(...head.childNodes);
      head.append(button);
      button.addEventListener("click", () => {
        const first = head.classList.contains("number") ? "descending" : "ascending";
        const second = first === "ascending" ? "descending" : "ascending";
        const order = { [first]: second, [second]: "none" }[head.getAttribute("aria-sort")] || first;
        for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
        let rows = [...original];
        if (order !== "none") {
          head.setAttribute("aria-sort", order);
          const sign = order === "ascending" ? 1 : -1;
          rows.sort((a, b) => {
            const x = keyOf(a.cells[column]), y = keyOf(b.cells[column]);
            if (empty(x) || empty(y)) return empty(x) - empty(y); // what has no figure stays last
            return sign * compare(x, y);
          });
        }
        body.append(...rows);
      });
    });
    const filter = frame.querySelector(".filter");
    if (!filter) continue;
    filter.hidden = false;
    const count = filter.querySelector("output");
    filter.querySelector("input").addEventListener("input", (event) => {
      const words = event.target.value.toLowerCase().split(/\s+/).filter(Boolean);
      let shown = 0;
      for (const row of original) {
        const content = row.textContent.toLowerCase();
        row.hidden = !words.every((word) => content.includes(word));
        shown += !row.hidden;
      }
      count.textContent = words.length ? `${shown} of ${original.length}` : "";
    });
  }
})();
