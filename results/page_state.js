"use strict";
// What the reader chose, kept in the address, so that a link shows what its sender saw.
const board = JSON.parse(document.getElementById("board").textContent);
const VIEWS = {
  table: "Table", gains: "Gains", front: "Quality against cost", curves: "Loss curves", glue: "GLUE by task",
  perplexity: "Perplexity by protocol", cost: "Cost by stage", reported: "Reported elsewhere",
};
const state = { tab: 0, view: "table", metric: "", axis: "params", sort: [], filter: "", columns: null, open: [] };

// Everything shown is made here: texts become text nodes, so that a record cannot bring markup with it.
function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== null && value !== undefined && value !== false) element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat(Infinity).filter(child => child !== null && child !== undefined && child !== ""));
  return element;
}

function draw(tag, attributes, ...children) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

// The table is shown before the plot library and the details of rows, which come last, have been read.
function whenRead(action) {
  if (document.readyState === "loading") addEventListener("DOMContentLoaded", action, { once: true });
  else action();
}

function find(id) { return document.getElementById(id); }
function tab() { return board.tabs[state.tab]; }
function columnOf(id) { return tab().columns.find(column => column.id === id); }
function arrow(column) { return column.higher ? "↑" : "↓"; }

// 124.4M; the same suffixes as in the command's tables.
function short(number) {
  for (const [limit, suffix] of [[1e18, "E"], [1e15, "P"], [1e12, "T"], [1e9, "B"], [1e6, "M"], [1e3, "k"]]) {
    if (Math.abs(number) >= limit) return Number((number / limit).toPrecision(4)) + suffix;
  }
  return String(Number(number.toPrecision(4)));
}

const SIZES = { "": 1, k: 1e3, m: 1e6, g: 1e9, b: 1e9, t: 1e12 };
const NUMBERS = {
  params: row => row.at.params, bytes: row => row.at.bytes, macs: row => row.at.macs, latency: row => row.at.latency,
  cost: row => row.worker_s, flops: row => row.at.flops, tokens: row => row.tokens, seeds: row => row.seeds,
};

// `svd -failed params<80M`: words that must occur, words that must not, and bounds on numbers.
function matcher(text) {
  const tests = text.toLowerCase().split(/\s+/).filter(Boolean).map(term => {
    const bound = /^([a-z]+)(<=|>=|<|>)([\d.]+)([kmgbt]?)$/.exec(term);
    if (bound && Object.hasOwn(NUMBERS, bound[1])) {
      const limit = Number(bound[3]) * SIZES[bound[4]];
      const holds = { "<": n => n < limit, ">": n => n > limit, "<=": n => n <= limit, ">=": n => n >= limit }[bound[2]];
      return row => { const n = NUMBERS[bound[1]](row); return n !== undefined && holds(n); };
    }
    if (term === "front" || term === "◆") return row => Boolean(row.scores[state.metric]?.front?.includes("params"));
    if (term.length > 1 && term[0] === "-") return row => !words(row).includes(term.slice(1));
    return row => words(row).includes(term);
  });
  return row => tests.every(test => test(row));
}

function words(row) {
  row.words ??= [row.label, row.id, row.status, row.reason ?? "", row.store, row.mark ?? "claimed", row.stale ? "stale " + row.stale : "", row.recipe]
    .join(" ").toLowerCase();
  return row.words;
}

function viewsHere() {
  const here = tab(), rows = here.rows;
  const shown = {
    table: true, gains: here.gains.length, curves: here.curves, cost: rows.some(row => Object.keys(row.stages).length),
    front: here.columns.length && rows.some(row => Object.keys(row.at).length > 1),
    reported: here.reported, glue: here.columns.some(column => column.view === "glue"),
    perplexity: here.columns.some(column => column.view === "perplexity"),
  };
  return Object.keys(VIEWS).filter(view => shown[view]);
}

function toAddress() {
  const found = new URLSearchParams();
  found.set("tab", tab().id);
  if (state.view !== "table") found.set("view", state.view);
  if (state.metric && state.metric !== tab().columns[0]?.id) found.set("metric", state.metric);
  if (state.axis !== "params") found.set("axis", state.axis);
  for (const { id, desc } of state.sort) found.append("sort", (desc ? "-" : "+") + id);
  if (state.filter) found.set("filter", state.filter);
  for (const id of state.columns ?? []) found.append("column", id);
  for (const id of state.open) found.append("open", id);
  return "#" + found;
}

function fromAddress() {
  const found = new URLSearchParams(location.hash.slice(1));
  state.tab = Math.max(0, board.tabs.findIndex(each => each.id === found.get("tab")));
  const here = tab();
  const known = columns(here).map(column => column.id);
  state.view = viewsHere().includes(found.get("view")) ? found.get("view") : "table";
  state.metric = columnOf(found.get("metric"))?.id ?? here.columns[0]?.id ?? "";
  state.axis = Object.hasOwn(board.axes, found.get("axis") ?? "") ? found.get("axis") : "params";
  state.sort = found.getAll("sort").map(each => ({ id: each.slice(1), desc: each[0] === "-" }))
    .filter(each => known.includes(each.id));
  state.filter = found.get("filter") ?? "";
  const chosen = found.getAll("column").filter(id => known.includes(id));
  state.columns = chosen.length ? chosen : null;
  state.open = found.getAll("open").filter(id => here.rows.some(row => row.id === id));
}

// A new tab or view is a step that Back undoes; what changes within one is not.
function remember(step = false) {
  if (location.hash === toAddress()) return;
  if (step) history.pushState(null, "", toAddress());
  else history.replaceState(null, "", toAddress());
}
