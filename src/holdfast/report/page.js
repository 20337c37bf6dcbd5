"use strict";
// Draws the figures as they come into view, in the colours of the theme; sorts and filters tables; shows one panel of every choice.
(() => {
  const { figures, themes } = JSON.parse(document.getElementById("data").textContent);
  const root = document.documentElement;
  const system = matchMedia("(prefers-color-scheme: dark)");
  const narrow = matchMedia("(max-width: 36rem)");
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
    responsive: true, displaylogo: false, displayModeBar: narrow.matches ? false : "hover", showTips: false,
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

  const plots = [...document.querySelectorAll(".plot")];
  const seen = new IntersectionObserver((entries) => {
    for (const { isIntersecting, target } of entries) {
      if (isIntersecting && target.dataset.drawn === undefined) draw(target);
    }
  }, { rootMargin: "400px" });
  plots.forEach((place) => seen.observe(place));
  const redraw = (name) => plots.forEach((place) => {
    if (place.dataset.drawn === undefined || place.dataset.drawn === name) return;
    if (place.offsetParent) return draw(place, name, { autosize: true });
    Plotly.purge(place); // what is hidden has no size: it is drawn anew when it comes into view
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
    const show = () => panels.forEach((panel) => { panel.hidden = panel.dataset.panel !== select.value; });
    choice.classList.add("chosen");
    select.closest(".chooser").hidden = false;
    select.addEventListener("change", show);
    show();
    return { panels, show };
  });

  // Paper is white and narrow, and nobody can choose or scroll on it: all panels are shown, and all figures drawn, at its size.
  let before;
  addEventListener("beforeprint", () => {
    before = root.dataset.theme;
    root.dataset.theme = "light";
    for (const { panels } of choices) panels.forEach((panel) => { panel.hidden = false; });
    for (const place of plots) {
      draw(place, "light", { autosize: false, width: 680, height: parseFloat(place.style.height) });
      place.dataset.drawn = "paper"; // no theme of the screen: is drawn again afterwards
    }
  });
  addEventListener("afterprint", () => {
    if (before === undefined) delete root.dataset.theme; else root.dataset.theme = before;
    for (const { show } of choices) show();
    follow();
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
