"use strict";
const data = JSON.parse(document.getElementById("data").textContent);
const sections = [...document.querySelectorAll("section")];
const links = [...document.querySelectorAll("nav a")];
document.documentElement.classList.add("js");

function colour(name) {
  return getComputedStyle(document.documentElement).getPropertyValue("--" + name).trim();
}

function plain(text) {
  return text.replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");
}

function layout(xTitle, yTitle, log) {
  const axis = { gridcolor: colour("line"), linecolor: colour("line"), zeroline: false, automargin: true };
  return {
    paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
    font: { family: "system-ui, sans-serif", size: 12, color: colour("soft") },
    margin: { l: 40, r: 12, t: 12, b: 50 }, hovermode: "closest",
    legend: { orientation: "h", yref: "container", y: 0, yanchor: "bottom" },
    hoverlabel: { bgcolor: colour("panel"), bordercolor: colour("line"), font: { color: colour("ink") } },
    xaxis: { ...axis, title: { text: xTitle }, tickformat: "~s" },
    yaxis: { ...axis, title: { text: plain(yTitle) }, type: log ? "log" : "linear", nticks: 8, dtick: undefined },
    shapes: [], annotations: [],
  };
}

const dashes = ["solid", "dash", "dot", "dashdot"];
const settings = { displayModeBar: false, responsive: true };

function drawQuality(target, plot) {
  const traces = plot.traces.map(trace => {
    const points = trace.points;
    const shade = colour("c" + trace.colour % 8);
    return {
      name: plain(trace.name), mode: "lines+markers", x: points.map(p => p.params), y: points.map(p => p.value),
      error_y: {
        type: "data", symmetric: false, thickness: 1.2, width: 3, color: shade,
        array: points.map(p => p.high - p.value), arrayminus: points.map(p => p.value - p.low),
      },
      line: { color: shade, width: 1.4, dash: dashes[Math.floor(trace.colour / 8) % 4] },
      marker: { color: points.map(p => p.here ? shade : colour("ground")), size: 9, line: { color: shade, width: 1.6 } },
      customdata: points.map(p => [p.low, p.high]),
      hovertemplate: "%{y:.5g} [%{customdata[0]:.5g}, %{customdata[1]:.5g}]<br>%{x:.4s} parameters",
    };
  });
  const look = layout("parameters (filled: this budget)", "", plot.log);
  for (const reference of plot.references) {
    traces.push({
      name: plain(reference.name), mode: "markers", x: [reference.params], y: [reference.value], showlegend: false,
      marker: { color: colour("soft"), size: 9, symbol: "diamond" }, hovertemplate: "%{y:.5g}<br>%{x:.4s} parameters",
    });
    look.shapes.push({
      type: "line", xref: "paper", x0: 0, x1: 1, y0: reference.value, y1: reference.value,
      line: { color: colour("soft"), width: 1, dash: "dash" },
    });
    look.annotations.push({
      xref: "paper", x: 0, xanchor: "left", y: plot.log ? Math.log10(reference.value) : reference.value,
      yanchor: "bottom", showarrow: false, text: plain(reference.name), font: { color: colour("soft") },
    });
  }
  Plotly.react(target, traces, look, settings);
}

function drawCurves(target, curves) {
  const named = new Set();
  const traces = curves.map(curve => {
    const first = !named.has(curve.name);
    named.add(curve.name);
    return {
      name: plain(curve.name), legendgroup: plain(curve.name), showlegend: first, mode: "lines", x: curve.x, y: curve.y,
      line: { color: colour("c" + curve.colour % 8), width: 1.4, dash: dashes[Math.floor(curve.colour / 8) % 4] },
      hovertemplate: "%{y:.4g} at %{x:.3s}, seed " + curve.seed,
    };
  });
  Plotly.react(target, traces, layout("training tokens", "loss", false), settings);
}

function drawRow(target, plot) {
  const named = new Set();
  const traces = plot.lines.map(line => {
    const first = !named.has(line.part);
    named.add(line.part);
    return {
      name: line.part, legendgroup: line.part, showlegend: first, mode: "lines", x: line.x, y: line.y,
      line: { color: line.part === "loss" ? colour("ink") : colour("c" + line.colour), width: line.part === "loss" ? 2 : 1.4 },
      hovertemplate: line.part + " %{y:.4g} at %{x:.3s}, seed " + line.seed + "<extra></extra>",
    };
  });
  const look = layout("training tokens", "", plot.ticks.length > 0);
  if (plot.ticks.length) Object.assign(look.yaxis, { tickmode: "array", tickvals: plot.ticks });
  Plotly.react(target, traces, look, settings);
}

function drawOpenRows(index) {
  for (const target of sections[index].querySelectorAll(".more:not([hidden]) .inside")) {
    const plot = data[index].rows[target.dataset.row];
    if (plot) drawRow(target, plot);
  }
}

function draw(index) {
  const section = sections[index];
  const quality = section.querySelector(".quality");
  const curves = section.querySelector(".curves");
  if (quality) drawQuality(quality, data[index].quality[section.querySelector("select").value]);
  if (curves) drawCurves(curves, data[index].curves);
  drawOpenRows(index);
}

let current = 0;
function select(index) {
  current = index;
  sections.forEach((section, place) => { section.hidden = place !== index; });
  links.forEach(link => link.setAttribute("aria-selected", link.hash === "#tab-" + index));
  if (sections.length) draw(index);
}

function fromAddress() {
  const place = sections.findIndex(section => "#" + section.id === location.hash);
  select(Math.max(place, 0));
}

function sort(table, heading) {
  const place = heading.cellIndex;
  const downwards = heading.getAttribute("aria-sort") === "ascending";
  const number = heading.classList.contains("number");
  table.querySelectorAll("thead th").forEach(other => other.removeAttribute("aria-sort"));
  heading.setAttribute("aria-sort", downwards ? "descending" : "ascending");
  const key = body => body.rows[0].cells[place].dataset.sort;
  const compare = (a, b) => {
    if (key(a) === undefined || key(b) === undefined) return (key(a) === undefined) - (key(b) === undefined);
    const order = number ? Number(key(a)) - Number(key(b)) : key(a).localeCompare(key(b));
    return downwards ? -order : order;
  };
  for (const kind of table.querySelectorAll("tbody.kind")) {
    const rows = [];
    for (let next = kind.nextElementSibling; next && next.matches(".row"); next = next.nextElementSibling) rows.push(next);
    kind.after(...rows.sort(compare));
  }
}

document.addEventListener("click", event => {
  const opener = event.target.closest(".open");
  const heading = event.target.closest("thead th");
  if (opener) {
    const more = opener.closest("tbody").querySelector(".more");
    more.hidden = !more.hidden;
    opener.setAttribute("aria-expanded", String(!more.hidden));
    drawOpenRows(current);
  } else if (heading) {
    sort(heading.closest("table"), heading);
  }
});
document.addEventListener("change", event => { if (event.target.matches("figcaption select")) draw(current); });
window.addEventListener("hashchange", fromAddress);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => { if (sections.length) draw(current); });
fromAddress();
