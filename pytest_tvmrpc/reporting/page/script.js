// Filter, sorting, tooltips, zoom and theme of the page. Everything can be read without it.
"use strict";
(() => {
  const all = (selector, from = document) => [...from.querySelectorAll(selector)];
  const one = (selector, from = document) => from.querySelector(selector);

  // Theme: the system's, unless chosen; #dark and #light in the address choose, too.
  const root = document.documentElement;
  const button = one(".theme");
  const order = ["auto", "light", "dark"];
  const names = { auto: "Theme: system", light: "Theme: light", dark: "Theme: dark" };
  let theme = "auto";
  const choose = (name) => {
    theme = name;
    if (name === "auto") delete root.dataset.theme;
    else root.dataset.theme = name;
    button.textContent = names[name];
  };
  const stored = () => {
    try { return localStorage.getItem("rpc-theme"); } catch { return null; } // files may have none
  };
  const asked = location.hash.slice(1);
  choose([asked, stored()].find((name) => order.includes(name)) || "auto");
  button.addEventListener("click", () => {
    choose(order[(order.indexOf(theme) + 1) % order.length]);
    try { localStorage.setItem("rpc-theme", theme); } catch { /* kept for this page only */ }
  });

  // Filter: by text, device and result; the rows of the grid and the cards above it.
  const tools = one(".tools");
  const input = one("input", tools), select = one("select", tools), shown = one(".shown");
  const buttons = all(".verdicts button");
  const words = (node, path) => ({
    node,
    text: (path + " " + node.textContent).toLowerCase(),
    results: node.dataset.s.split(" "),
    devices: node.dataset.d.split("\n"),
  });
  const grid = one(".grid");
  const bodies = grid ? all("tbody", grid).map((body) => ({
    body,
    rows: all("tr[data-s]", body).map((row) => words(row, one(".file", body).textContent)),
  })) : [];
  const cards = all(".test").map((card) => words(card, ""));
  const count = bodies.reduce((sum, { rows }) => sum + rows.length, 0);
  const filter = () => {
    const terms = input.value.toLowerCase().split(/\s+/).filter(Boolean);
    const results = buttons.filter((b) => b.getAttribute("aria-pressed") === "true").map((b) => b.dataset.s);
    const fits = (item) =>
      terms.every((term) => item.text.includes(term)) &&
      (!results.length || results.some((result) => item.results.includes(result))) &&
      (!select.value || item.devices.includes(select.value));
    let left = 0;
    for (const { body, rows } of bodies) {
      let here = 0;
      for (const row of rows) {
        const fit = fits(row);
        row.node.hidden = !fit;
        here += fit;
      }
      body.hidden = !here && !body.classList.contains("sorted");
      left += here;
    }
    for (const card of cards) card.node.hidden = !fits(card);
    const active = terms.length || results.length || select.value;
    if (active) for (const fold of all(".more")) fold.open = true;
    shown.textContent = active ? `${left} of ${count}` : "";
    const none = one("#tests .none");
    if (none) none.hidden = left > 0;
  };
  input.addEventListener("input", filter);
  select.addEventListener("change", filter);
  for (const b of buttons) {
    b.addEventListener("click", () => {
      b.setAttribute("aria-pressed", String(b.getAttribute("aria-pressed") !== "true"));
      filter();
    });
  }
  document.addEventListener("keydown", (event) => {
    if (event.key === "/" && !/INPUT|SELECT|TEXTAREA/.test(event.target.tagName)) {
      event.preventDefault();
      input.focus();
    }
  });
  tools.hidden = false;

  // Sorting: a click for one way, a second for the other, a third for the order of the run.
  const units = { ns: 1e-9, "µs": 1e-6, ms: 1e-3, s: 1, min: 60, h: 3600 };
  const value = (cell) => {
    if (!cell) return null;
    if (cell.dataset.v !== undefined) return Number(cell.dataset.v);
    const text = cell.textContent.trim();
    const times = [...text.matchAll(/([\d,.]+) (ns|µs|ms|s|min|h)\b/g)];
    if (times.length) return times.reduce((sum, [, n, unit]) => sum + Number(n.replaceAll(",", "")) * units[unit], 0);
    return cell.tagName === "TH" ? text.toLowerCase() : text === "" ? null : Number.isNaN(Number(text)) ? text : Number(text);
  };
  const compare = (a, b) => (a === b ? 0 : a === null ? 1 : b === null ? -1 : a < b ? -1 : 1);
  for (const table of all("table.grid, table.sortable")) {
    const home = all("tbody", table);
    const places = home.map((body) => [body, all("tr:not(.file)", body)]);
    const flat = document.createElement("tbody");
    flat.className = "sorted";
    all("thead th", table).forEach((head, index) => {
      const press = document.createElement("button");
      press.type = "button";
      press.append(...head.childNodes);
      head.append(press);
      press.addEventListener("click", () => {
        const first = head.classList.contains("n") ? "descending" : "ascending";
        const second = first === "ascending" ? "descending" : "ascending";
        const now = head.getAttribute("aria-sort");
        const next = now === null ? first : now === first ? second : null;
        for (const other of all("thead th", table)) other.removeAttribute("aria-sort");
        if (next) {
          head.setAttribute("aria-sort", next);
          const sign = next === "ascending" ? 1 : -1;
          const rows = places.flatMap(([, rows]) => rows).map((row) => [value(row.cells[index]), row]);
          rows.sort(([a], [b]) => (a === null || b === null ? compare(a, b) : sign * compare(a, b)));
          flat.append(...rows.map(([, row]) => row));
          for (const [body] of places) body.remove();
          table.append(flat);
        } else {
          flat.remove();
          for (const [body, rows] of places) {
            body.append(...rows);
            table.append(body);
          }
        }
      });
    });
  }

  // Tooltips: at once, with the first line as a heading, instead of the browser's own.
  const tip = document.createElement("div");
  tip.className = "tip";
  tip.hidden = true;
  document.body.append(tip);
  for (const title of all("svg title")) {
    title.parentNode.dataset.tip = title.textContent;
    title.remove();
  }
  document.addEventListener("pointerover", (event) => {
    const target = event.target.closest("[data-tip]");
    tip.hidden = !target;
    if (!target) return;
    const [first, ...rest] = target.dataset.tip.split("\n");
    const head = document.createElement("b");
    head.textContent = first;
    tip.replaceChildren(head, rest.join("\n"));
    const at = target.getBoundingClientRect(), box = tip.getBoundingClientRect();
    const left = Math.min(Math.max(event.clientX - box.width / 2, 6), innerWidth - box.width - 6);
    const above = at.top - box.height - 6;
    tip.style.left = `${left}px`;
    tip.style.top = `${above > 4 ? above : at.bottom + 6}px`;
  });

  // Zoom of the time line.
  const zoom = one(".zoom");
  if (zoom) {
    zoom.hidden = false;
    one("input", zoom).addEventListener("input", (event) => {
      one(".lanes").style.setProperty("--zoom", String(2 ** Number(event.target.value)));
    });
  }

  // Paper has nothing to click on.
  addEventListener("beforeprint", () => all("details").forEach((fold) => { fold.open = true; }));
})();
