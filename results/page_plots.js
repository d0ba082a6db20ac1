"use strict";
// The plots. Plotly is run when the first one is drawn: a page that is only read as a table never waits for it.
const DASHES = ["solid", "dash", "dot", "dashdot"];
const SYMBOLS = ["circle", "square", "diamond", "triangle-up", "triangle-down", "cross", "x"];
const PATTERNS = ["", "/", "x", "-", "\\", "+", "."];
const MOST = { curves: 12, glue: 12, perplexity: 12, cost: 30, series: 16 };
const SETTINGS = { displaylogo: false, responsive: true, modeBarButtonsToRemove: ["select2d", "lasso2d", "autoScale2d"] };

function plotly() {
  if (!window.Plotly) document.head.append(make("script", {}, find("plotly").textContent));
  return window.Plotly;
}

function colour(name) { return getComputedStyle(document.documentElement).getPropertyValue("--" + name).trim(); }
function paint(row) { return row.stale ? colour("soft") : shade(row.colour); }
function named(row) { return plain(row.label) + (row.stale ? " (stale)" : ""); }
function shade(number) { return number === null ? colour("soft") : colour("c" + number % 7); }
function symbol(number) { return number === null ? "star" : SYMBOLS[shapeOf(number)]; }

// Plotly reads a little markup in names; with these escaped it shows them as they are.
function plain(text) { return text.replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;"); }

function layout(xTitle, yTitle, more = {}) {
  const axis = { gridcolor: colour("line"), linecolor: colour("line"), zeroline: false, automargin: true };
  return {
    paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", hovermode: "closest", shapes: [], annotations: [],
    font: { family: "system-ui, sans-serif", size: 12, color: colour("soft") }, margin: { l: 44, r: 14, t: 14, b: 44 },
    legend: { orientation: "h", yref: "container", y: 0, yanchor: "bottom" },
    hoverlabel: { bgcolor: colour("panel"), bordercolor: colour("line"), font: { color: colour("ink") } }, ...more,
    xaxis: { ...axis, title: { text: plain(xTitle) }, ...more.xaxis }, yaxis: { ...axis, title: { text: plain(yTitle), standoff: 12 }, ...more.yaxis },
  };
}

// Ticks between powers of ten are whole numbers, not their first digits.
function upright(log) { return log ? { type: "log", nticks: 8, tickformat: "~g" } : { type: "linear", nticks: 8 }; }

const whiskersOf = (scores, axis) => ({
  type: "data", symmetric: false, thickness: 1.2, width: 3,
  array: scores.map(score => (score.hi ?? score.v) - score.v), arrayminus: scores.map(score => score.v - (score.lo ?? score.v)),
});

function teacherRows() {
  const found = new Map(), test = matcher(state.filter);
  board.tabs.forEach((each, index) => {
    if (each.teacher !== tab().teacher) return;
    for (const row of each.rows) if (row.colour !== null && test(row)) found.set(row.id, { row, here: index === state.tab });
  });
  return [...found.values()].filter(({ row }) => row.scores[state.metric] && row.at[state.axis] && !row.stale);
}

function plotFront(target) {
  const column = columnOf(state.metric), points = teacherRows(), score = ({ row }) => row.scores[column.id];
  const recipes = new Set(points.map(({ row }) => row.recipe));
  const byLabel = Map.groupBy(points, ({ row }) => recipes.size > 1 ? `${row.label} · ${row.recipe}` : row.label);
  const series = byLabel.size <= MOST.series ? byLabel : Map.groupBy(points, ({ row }) => `recipe ${row.recipe}`);
  const traces = [];
  for (const [recipe, members] of Map.groupBy(points, ({ row }) => row.recipe)) {
    const front = members.filter(each => score(each).front?.includes(state.axis)).sort((a, b) => a.row.at[state.axis] - b.row.at[state.axis]);
    traces.push({
      name: `front, recipe ${plain(recipe)}`, mode: "lines", x: front.map(each => each.row.at[state.axis]), y: front.map(each => score(each).v),
      line: { color: colour("soft"), width: 1.2, dash: DASHES[traces.length % 4], shape: "hv" }, hoverinfo: "skip",
      showlegend: front.length > 1,
    });
  }
  for (const [name, members] of series) {
    const shades = members.map(each => shade(each.row.colour));
    traces.push({
      name: plain(name), mode: "markers", x: members.map(each => each.row.at[state.axis]), y: members.map(each => score(each).v),
      error_y: { ...whiskersOf(members.map(score)), color: series === byLabel ? shades[0] : colour("soft") },
      marker: {
        size: 10, symbol: members.map(each => symbol(each.row.colour) + (each.here ? "" : "-open")), color: shades,
        line: { color: members.map((each, place) => each.here ? colour("ink") : shades[place]), width: 1 },
      },
      customdata: members.map(each => [plain(each.row.label), plain(`${score(each).t} [${score(each).i}] ${score(each).r ?? ""}`)]),
      hovertemplate: "<b>%{customdata[0]}</b><br>%{customdata[1]}<br>%{x:.4s}<extra></extra>",
    });
  }
  const look = layout(board.axes[state.axis], `${column.protocol} ${column.metric} ${arrow(column)}`, {
    xaxis: { type: "log", tickformat: "~s", nticks: 8 }, yaxis: upright(column.log),
  });
  for (const row of tab().rows.filter(each => each.colour === null && each.scores[column.id])) {
    const y = row.scores[column.id].v;
    traces.push({
      name: plain(row.label), mode: "markers", x: [row.at[state.axis]], y: [y], showlegend: false, hovertemplate: "%{y:.5g}",
      marker: { size: 10, symbol: symbol(null), color: shade(null) },
    });
    look.shapes.push({ type: "line", xref: "paper", x0: 0, x1: 1, y0: y, y1: y, line: { color: colour("soft"), width: 1, dash: "dash" } });
    look.annotations.push({
      xref: "paper", x: 1, xanchor: "right", y: column.log ? Math.log10(y) : y, yanchor: "bottom", showarrow: false,
      text: plain(row.label), font: { color: colour("soft") },
    });
  }
  plotly().react(target, traces, look, SETTINGS);
  return "Filled: this tab's budget. Bars: 95 % intervals. A line joins each recipe's Pareto front, over all budgets; means are compared.";
}

function curveLines(id, part = "loss") {
  const curves = detailsOf(state.tab)[id].curves;
  return curves.filter(curve => curve.parts[part])
    .map(curve => ({ seed: curve.seed, x: curve.x ?? curves[0].x, y: curve.parts[part] }));
}

// Where the largest value is 20 times the smallest or more, and none is at or below zero.
function spans(lines) {
  const values = lines.flatMap(line => line.y).filter(value => value !== null);
  return values.length > 0 && Math.min(...values) > 0 && Math.max(...values) >= 20 * Math.min(...values);
}

function plotCurves(target, rows) {
  const trained = rows.filter(row => row.colour !== null && curveLines(row.id).length), shown = trained.slice(0, MOST.curves);
  const traces = shown.flatMap((row, place) => curveLines(row.id).map((line, order) => ({
    name: named(row), legendgroup: row.id, showlegend: order === 0, mode: "lines", x: line.x, y: line.y,
    line: { color: paint(row), width: 1.4, dash: DASHES[place % 4] },
    hovertemplate: `%{y:.4g} at %{x:.3s}, seed ${line.seed}`,
  })));
  plotly().react(target, traces, layout("training tokens", "loss", { xaxis: { tickformat: "~s" }, yaxis: upright(spans(traces)) }), SETTINGS);
  return drawn(shown, trained) + " A line per seed.";
}

function drawn(shown, rows) {
  return `${shown.length} of ${rows.length} rows, in the table's order${shown.length < rows.length ? "; filter or sort the table to see others" : ""}.`;
}

function plotTasks(target, rows) {
  const asked = tab().columns.filter(column => column.view === state.view);
  const measured = rows.filter(row => asked.some(column => row.scores[column.id])), shown = measured.slice(0, MOST.glue);
  const name = column => `${column.protocol.replace(/^glue\./, "")}<br>${column.metric} ${arrow(column)}`;
  const traces = shown.map(row => {
    const here = asked.filter(column => row.scores[column.id]), scores = here.map(column => row.scores[column.id]);
    return {
      name: named(row), mode: "markers", x: here.map(column => name(column)), y: scores.map(score => score.v),
      error_y: { ...whiskersOf(scores), color: paint(row) },
      marker: { size: 9, color: paint(row), symbol: symbol(row.colour), line: { color: colour("ink"), width: .6 } },
      customdata: scores.map(score => plain(`${score.t} [${score.i}] ${score.r ?? ""}`)), hovertemplate: "%{customdata}",
    };
  });
  const more = { scattermode: "group", xaxis: { type: "category" }, yaxis: upright(state.view === "perplexity") };
  plotly().react(target, traces, layout("", "", more), SETTINGS);
  return drawn(shown, measured) + " Bars: 95 % intervals. Protocols are not comparable with each other.";
}

function plotCost(target, rows) {
  const shown = rows.slice(0, MOST.cost), stages = board.stages.filter(stage => shown.some(row => stage in row.stages));
  const names = shown.map(row => `${plain(row.label)} (${plain(row.id)})`);
  const traces = stages.map((stage, place) => ({
    type: "bar", orientation: "h", name: plain(stage), y: names, x: shown.map(row => row.stages[stage] ?? 0),
    marker: { color: shade(place), pattern: { shape: PATTERNS[shapeOf(place)], size: 6, fillmode: "overlay", fgcolor: colour("ground"), fgopacity: .55 } },
    hovertemplate: "%{x:.4s} s",
  }));
  const more = { barmode: "stack", legend: { orientation: "h", yref: "container", y: 0, yanchor: "bottom", traceorder: "normal" }, yaxis: { autorange: "reversed", type: "category" }, xaxis: { tickformat: "~s" } };
  target.style.height = `${130 + 24 * shown.length}px`;
  plotly().react(target, traces, layout("worker-seconds, all seeds and attempts", "", more), SETTINGS);
  return drawn(shown, rows) + " A stage that cells share counts in equal parts to each.";
}

const PLOTS = { front: plotFront, curves: plotCurves, glue: plotTasks, perplexity: plotTasks, cost: plotCost };

function options(choices, chosen) {
  return choices.map(([value, text]) => make("option", { value, selected: value === chosen }, text));
}

function plotPanel() {
  return make("figure", {},
    make("figcaption", {}, make("span", { id: "plot-title" }, state.view === "front" ? "Quality" : VIEWS[state.view]), state.view !== "front" ? null : [
      make("label", {}, "against ", make("select", { id: "axis" }, options(Object.entries(board.axes), state.axis)))]),
    make("div", { class: "plot", id: "plot" }), make("p", { class: "hint", id: "plot-hint" }));
}

function plotView() {
  if (!find("plot")) return;
  makeTable();
  applyState();
  find("plot-hint").textContent = PLOTS[state.view](find("plot"), filteredRows());
}

function plotOpenRows() {
  for (const target of document.querySelectorAll(".inside")) {
    const found = detailsOf(state.tab)[target.dataset.row].curves, parts = Object.keys(found[0].parts), lines = [];
    const traces = parts.flatMap((part, place) => curveLines(target.dataset.row, part).map((line, order) => {
      lines.push(line);
      return {
        name: part, legendgroup: part, showlegend: order === 0, mode: "lines", x: line.x, y: line.y,
        line: { color: part === "loss" ? colour("ink") : shade(place), width: part === "loss" ? 2 : 1.4, dash: DASHES[place] },
        hovertemplate: `${part} %{y:.4g} at %{x:.3s}, seed ${line.seed}<extra></extra>`,
      };
    }));
    const more = { xaxis: { tickformat: "~s" }, yaxis: upright(spans(lines)) };
    plotly().react(target, traces, layout("training tokens", "", more), SETTINGS);
  }
}
