"use strict";
// Draws the figures in the colours of the theme; sorts and filters tables; shows one panel of every choice; opens what is folded where it is
// asked for; sets two runs side by side.
(() => {
  const { figures, themes } = JSON.parse(document.getElementById("data").textContent);
  const root = document.documentElement;
  const system = matchMedia("(prefers-color-scheme: dark)");
  const small = matchMedia("(max-width: 36rem)");
  const touch = matchMedia("(pointer: coarse)");
  const theme = () => root.dataset.theme || (system.matches ? "dark" : "light");

  // As palette.paint: a name counts as a colour only where plotly wants a colour, since names from the data may look the same.
  const paint = (value, colours) => {
    if (Array.isArray(value)) return value.map((item) => paint(item, colours));
    if (!value || typeof value !== "object") return value;
    return Object.fromEntries(Object.entries(value).map(([key, item]) => [
      key, /color(scale)?$/.test(key) && Object.hasOwn(colours, item) ? colours[item] : paint(item, colours),
    ]));
  };

  const axis = (given, colours) => ({
    gridcolor: colours["@grid"], linecolor: colours["@faint"], zeroline: false, showline: false, ticks: "", automargin: true,
    ...given,
    tickfont: { color: colours["@muted"], size: 12 },
    title: { ...given?.title, font: { color: colours["@muted"], size: 12 }, standoff: 12 },
  });

  const dress = (figure, colours) => {
    const layout = paint(figure.layout, colours);
    return {
      ...layout,
      xaxis: axis(layout.xaxis, colours),
      yaxis: axis(layout.yaxis, colours),
      font: { family: getComputedStyle(document.body).fontFamily, size: 12.5, color: colours["@ink"] },
      paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
      margin: { l: 56, r: 16, t: 16, b: 48, ...layout.margin },
      legend: { orientation: "h", x: 0, y: 1.02, yanchor: "bottom", font: { size: 12 }, ...layout.legend },
      hoverlabel: { bgcolor: colours["@paper"], bordercolor: colours["@faint"], font: { color: colours["@ink"], size: 13 }, align: "left" },
      modebar: { bgcolor: colours["@paper"], color: colours["@muted"], activecolor: colours["@accent"] },
      dragmode: touch.matches ? false : "zoom",
      hovermode: layout.hovermode || "closest",
    };
  };

  // Only these buttons, whatever plotly adds to its own: one of those uploads the figure.
  const settings = {
    responsive: true, displaylogo: false, displayModeBar: small.matches ? false : "hover", showTips: false,
    modeBarButtons: [["toImage"], ["zoom2d", "pan2d", "resetScale2d"]],
    plotlyServerURL: "", typesetMath: false,
  };
  const draw = (place, name = theme(), size = {}) => {
    const colours = themes[name];
    const figure = figures[Number(place.dataset.figure)];
    if (place.dataset.drawn === undefined) place.replaceChildren();
    place.dataset.drawn = name;
    return Plotly.react(place, paint(figure.data, colours), { ...dress(figure, colours), ...size }, settings);
  };

  // All that has a size is drawn at once, one figure after the other, and not as it comes into view; what is folded or not chosen, when it is opened.
  const plots = [...document.querySelectorAll(".plot")];
  const fill = () => {
    const next = plots.find((place) => place.dataset.drawn === undefined && place.offsetParent);
    if (!next) return;
    draw(next);
    setTimeout(fill);
  };
  for (const fold of document.querySelectorAll("details.fold")) fold.addEventListener("toggle", fill);
  const redraw = (name) => plots.forEach((place) => {
    if (place.dataset.drawn === undefined || place.dataset.drawn === name) return;
    if (place.offsetParent) return draw(place, name, { autosize: true });
    Plotly.purge(place); // what is hidden has no size: it is drawn anew when it is shown
    delete place.dataset.drawn;
  });

  // Light and dark: the system's choice until the button is used.
  const button = document.getElementById("theme");
  const follow = () => {
    const dark = theme() === "dark";
    button.textContent = dark ? "Light" : "Dark";
    button.setAttribute("aria-label", dark ? "Use light colours" : "Use dark colours");
    redraw(theme());
  };
  button.hidden = false;
  button.addEventListener("click", () => { root.dataset.theme = theme() === "dark" ? "light" : "dark"; follow(); });
  system.addEventListener("change", follow);
  follow();

  // A choice shows one panel at a time.
  const choices = [...document.querySelectorAll(".choice")].map((choice) => {
    const select = choice.querySelector(":scope > .chooser select");
    const panels = [...choice.querySelectorAll(":scope > .panel")];
    const show = () => {
      panels.forEach((panel) => { panel.hidden = panel.dataset.panel !== select.value; });
      fill();
    };
    choice.classList.add("chosen");
    select.closest(".chooser").hidden = false;
    select.addEventListener("change", show);
    show();
    return { panels, show };
  });

  fill();

  // What a link or a filter leads to is opened. (Browsers open folds themselves for a search in the page.)
  const open = (place) => {
    for (let at = place; at; at = at.parentElement) if (at.matches("details")) at.open = true;
  };
  const followed = () => {
    const place = document.getElementById(decodeURIComponent(location.hash.slice(1)));
    if (!place) return;
    open(place);
    place.scrollIntoView();
  };
  addEventListener("hashchange", followed);
  if (location.hash) followed();
  const folds = [...document.querySelectorAll("details.fold")];
  const unfold = document.getElementById("unfold");
  unfold.closest(".tools").hidden = false;
  unfold.addEventListener("click", () => {
    const closed = folds.some((fold) => !fold.open);
    folds.forEach((fold) => { fold.open = closed; });
    unfold.textContent = closed ? "Fold all" : "Open all";
  });

  // Paper is white and narrow, and nobody can choose or scroll on it: all panels are shown, and all figures drawn, at its size.
  let before, closed;
  addEventListener("beforeprint", () => {
    before = root.dataset.theme;
    closed = folds.filter((fold) => !fold.open);
    for (const fold of closed) fold.open = true;
    root.dataset.theme = "light";
    for (const { panels } of choices) panels.forEach((panel) => { panel.hidden = false; });
    for (const place of plots) {
      draw(place, "light", { autosize: false, width: 680, height: parseFloat(place.style.height) });
      place.dataset.drawn = "paper"; // no theme of the screen: is drawn again afterwards
    }
  });
  addEventListener("afterprint", () => {
    if (before === undefined) delete root.dataset.theme; else root.dataset.theme = before;
    for (const fold of closed) fold.open = false;
    for (const { show } of choices) show();
    follow();
    fill();
  });

  // Sorting: numbers by value, text by its letters, empty cells last either way.
  const key = (cell) => {
    if (cell.dataset.v !== undefined) return Number(cell.dataset.v);
    const text = cell.textContent.trim();
    if (text === "" || text === "–") return null;
    const number = Number(text.replaceAll(",", "").replace("−", "-"));
    return Number.isNaN(number) ? text : number;
  };
  const letters = new Intl.Collator(undefined, { numeric: true });
  const compare = (a, b) => (typeof a === "number" && typeof b === "number" ? a - b : letters.compare(String(a), String(b)));
  addEventListener("click", ({ target }) => {
    const head = target.closest("thead th");
    if (!head || !target.matches("button:not(.term)")) return;
    const table = head.closest("table");
    const up = head.getAttribute("aria-sort") !== "ascending";
    for (const other of head.parentElement.cells) other.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", up ? "ascending" : "descending");
    const rows = [...table.tBodies[0].rows].map((row) => [key(row.cells[head.cellIndex]), row]);
    rows.sort(([a], [b]) => (a === null ? (b === null ? 0 : 1) : b === null ? -1 : up ? compare(a, b) : compare(b, a)));
    table.tBodies[0].append(...rows.map(([, row]) => row));
  });

  // A row is shown where the box of its table and the box of the page both let it; a run whose own words match stays whole.
  const split = (text) => text.toLowerCase().split(/\s+/).filter(Boolean);
  const fits = (words, text) => words.every((word) => text.includes(word));
  const narrow = document.getElementById("narrow");
  const all = [...document.querySelectorAll("main > section[id^=run-]")].map((section, i) => ({
    section,
    link: document.querySelectorAll("nav li")[i],
    own: [...section.querySelectorAll(":scope > header, :scope > .lead, :scope > .command")].map((part) => part.textContent).join(" ").toLowerCase(),
    tables: [...section.querySelectorAll(".table")].map((box) => ({
      box,
      filter: box.querySelector(".filter"),
      rows: [...box.querySelectorAll("tbody tr")].map((row) => [row, row.textContent.toLowerCase()]),
    })),
  }));
  const show = ({ filter, rows }, wanted) => {
    const here = filter ? split(filter.querySelector("input").value) : [];
    let left = 0;
    for (const [row, text] of rows) {
      row.hidden = !(fits(here, text) && fits(wanted, text));
      left += row.hidden ? 0 : 1;
    }
    if (filter) filter.querySelector("output").textContent = here.length || wanted.length ? `${left} of ${rows.length} rows` : "";
    return left;
  };
  const filterAll = () => {
    const wanted = split(narrow.value);
    let runs = 0, found = 0;
    for (const { section, link, own, tables } of all) {
      const whole = fits(wanted, own);
      let left = 0;
      for (const table of tables) {
        const rows = show(table, whole ? [] : wanted);
        left += rows;
        if (wanted.length && !whole && rows) open(table.box);
      }
      section.hidden = wanted.length > 0 && !whole && left === 0;
      if (link) link.hidden = section.hidden;
      runs += section.hidden ? 0 : 1;
      found += section.hidden ? 0 : left;
    }
    document.getElementById("left").textContent = wanted.length ? `${runs} of ${all.length} sections, ${found.toLocaleString("en")} rows` : "";
    fill();
  };
  narrow.addEventListener("input", filterAll);
  for (const filter of document.querySelectorAll(".filter")) {
    filter.hidden = false;
    filter.querySelector("input").addEventListener("input", filterAll);
  }

  // Two of the runs of a kind, and what lies between them.
  for (const section of document.querySelectorAll("section[data-compares]")) {
    const table = section.querySelector("table");
    const heads = [...table.tHead.rows[0].cells];
    const last = heads.at(-1).textContent === "difference" && heads.length > 3 ? heads.length - 1 : heads.length;
    const names = heads.slice(1, last).map((head) => head.textContent);
    if (last === heads.length) { // more than two runs: the page adds the column of differences
      for (const row of table.rows) {
        const cell = document.createElement(row.parentElement === table.tHead ? "th" : "td");
        cell.className = "n";
        row.append(cell);
      }
      const head = table.tHead.rows[0].cells[last];
      head.scope = "col";
      head.append(Object.assign(document.createElement("button"), { type: "button", textContent: "difference" }));
    }
    const pick = (text, at) => {
      const label = document.createElement("label");
      const select = document.createElement("select");
      names.forEach((name, i) => select.append(new Option(name, String(i + 1), i === at, i === at)));
      label.append(text, " ", select);
      return [label, select];
    };
    const [labelA, a] = pick("A", 0);
    const [labelB, b] = pick("B", 1);
    const box = document.createElement("p");
    box.className = "pair";
    box.append(labelA, labelB);
    table.closest(".table").before(box);
    const value = (cell) => { const found = key(cell); return typeof found === "number" ? found : null; };
    const digits = (x) => (Math.abs(x) >= 1000 ? x.toLocaleString("en", { maximumFractionDigits: 1 }) : String(Number(x.toPrecision(3)))).replace("-", "−");
    const update = () => {
      const [left, right] = [Number(a.value), Number(b.value)];
      for (const row of table.rows) {
        names.forEach((_, i) => { row.cells[i + 1].hidden = i + 1 !== left && i + 1 !== right; });
        if (row.parentElement === table.tHead) continue;
        const [x, y] = [value(row.cells[left]), value(row.cells[right])];
        const cell = row.cells[last];
        cell.textContent = x === null || y === null ? "" : (y > x ? "+" : "") + digits(y - x);
        if (x !== null && y !== null) cell.dataset.v = String(y - x); else delete cell.dataset.v;
        row.classList.toggle("differs", row.cells[left].textContent !== row.cells[right].textContent);
      }
    };
    a.addEventListener("change", update);
    b.addEventListener("change", update);
    update();
  }
})();
