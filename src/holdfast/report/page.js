"use strict";
// Draws the figures as they come into view, in the colours of the theme; sorts and filters tables; shows one panel of every choice.
(() => {
  const { figures, themes } = JSON.parse(document.getElementById("data").textContent);
  const root = document.documentElement;
  const system = matchMedia("(prefers-color-scheme: dark)");
  const narrow = matchMedia("(max-width: 36rem)");
  const touch = matchMedia("(pointer: coarse)");
  const theme = () => root.dataset.theme || (system.matches ? "dark" : "light");

  const paint = (value, colours) => {
    if (typeof value === "string") return value[0] === "@" && value in colours ? colours[value] : value;
    if (Array.isArray(value)) return value.map((item) => paint(item, colours));
    if (value && typeof value === "object") {
      return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, paint(item, colours)]));
    }
    return value;
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
      dragmode: touch.matches ? false : "zoom",
      hovermode: layout.hovermode || "closest",
    };
  };

  const settings = {
    responsive: true, displaylogo: false, displayModeBar: narrow.matches ? false : "hover", showTips: false,
    modeBarButtonsToRemove: ["select2d", "lasso2d", "autoScale2d", "zoomIn2d", "zoomOut2d"],
  };
  const draw = (place, name = theme(), size = {}) => {
    const colours = themes[name];
    const figure = figures[Number(place.dataset.figure)];
    if (place.dataset.drawn === undefined) place.replaceChildren();
    place.dataset.drawn = name;
    return Plotly.react(place, paint(figure.data, colours), { ...dress(figure, colours), ...size }, settings);
  };

  const plots = [...document.querySelectorAll(".plot")];
  const seen = new IntersectionObserver((entries) => {
    for (const { isIntersecting, target } of entries) {
      if (isIntersecting && target.dataset.drawn === undefined) draw(target);
    }
  }, { rootMargin: "400px" });
  plots.forEach((place) => seen.observe(place));
  const redraw = (name) => plots.forEach((place) => {
    if (place.dataset.drawn !== undefined && place.dataset.drawn !== name) draw(place, name, { autosize: true });
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

  // Paper is white and narrow: figures are drawn anew for it, also those that nobody has scrolled to.
  let before;
  addEventListener("beforeprint", () => {
    before = root.dataset.theme;
    root.dataset.theme = "light";
    for (const place of plots.filter((place) => place.offsetParent)) {
      draw(place, "light", { autosize: false, width: 680 });
      place.dataset.drawn = "paper"; // no theme of the screen: is drawn again afterwards
    }
  });
  addEventListener("afterprint", () => {
    if (before === undefined) delete root.dataset.theme; else root.dataset.theme = before;
    follow();
  });

  // A choice shows one panel at a time.
  for (const choice of document.querySelectorAll(".choice")) {
    const select = choice.querySelector(":scope > .chooser select");
    const panels = [...choice.querySelectorAll(":scope > .panel")];
    const show = () => panels.forEach((panel) => { panel.hidden = panel.dataset.panel !== select.value; });
    choice.classList.add("chosen");
    select.closest(".chooser").hidden = false;
    select.addEventListener("change", show);
    show();
  }

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
  for (const table of document.querySelectorAll("table")) {
    const heads = [...table.tHead.rows[0].cells];
    heads.forEach((head, place) => head.querySelector("button").addEventListener("click", () => {
      const up = head.getAttribute("aria-sort") !== "ascending";
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", up ? "ascending" : "descending");
      const rows = [...table.tBodies[0].rows].map((row) => [key(row.cells[place]), row]);
      rows.sort(([a], [b]) => (a === null ? (b === null ? 0 : 1) : b === null ? -1 : up ? compare(a, b) : compare(b, a)));
      table.tBodies[0].append(...rows.map(([, row]) => row));
    }));
  }

  for (const filter of document.querySelectorAll(".filter")) {
    const rows = [...filter.parentElement.querySelector("tbody").rows];
    const words = rows.map((row) => row.textContent.toLowerCase());
    const said = filter.querySelector("output");
    filter.hidden = false;
    filter.querySelector("input").addEventListener("input", ({ target }) => {
      const wanted = target.value.toLowerCase().split(/\s+/).filter(Boolean);
      let left = 0;
      rows.forEach((row, i) => {
        row.hidden = !wanted.every((word) => words[i].includes(word));
        left += row.hidden ? 0 : 1;
      });
      said.textContent = wanted.length ? `${left} of ${rows.length} rows` : "";
    });
  }
})();
