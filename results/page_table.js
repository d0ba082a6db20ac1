"use strict";
// The table: what is sorted, filtered and shown is TanStack Table's to say; what stands in a cell is made here.
const STEP = 100;
let table = null, limit = STEP, watcher = null, bounds = {};

// Every column that a tab could show; the metrics after the method, then size, speed and cost.
function columns(here) {
  const shown = here.columns.length <= 6 ? here.columns.length : 4;
  const text = (id, title, value, usual = false) => ({ id, title, value, cell: row => value(row) || "–", usual });
  const number = (id, title, value, cell, usual = true) => ({ id, title, value, cell, usual, number: true });
  const told = value => row => value(row) === undefined ? "–" : short(value(row));
  return [
    { id: "method", title: "method", value: row => row.label, cell: methodCell, usual: true },
    ...here.columns.map((column, place) => ({
      id: column.id, title: column.protocol, sub: `${column.metric} ${arrow(column)}`, hint: column.hint, number: true,
      value: row => row.scores[column.id]?.v, cell: row => scoreCell(row, column), usual: place < shown, metric: column,
    })),
    number("params", "params", row => row.at.params, row => row.params ? [row.params, make("small", {}, row.fraction)] : "–"),
    number("bytes", "stored bytes", row => row.at.bytes, told(row => row.at.bytes), false),
    number("macs", "MACs / token", row => row.at.macs, told(row => row.at.macs)),
    number("latency", "latency", row => row.at.latency, row => row.latency ?? "–"),
    number("cost", "cost", row => row.worker_s, row => row.cost),
    number("flops", "training FLOPs", row => row.at.flops, told(row => row.at.flops), false),
    number("tokens", "training tokens", row => row.tokens, row => row.tokens ? short(row.tokens) : "–", false),
    number("seeds", "seeds", row => row.seeds, row => row.seen),
    text("status", "status", row => row.stale ? "stale" : row.status),
    text("checked", "checked", row => row.verified ?? "claimed"),
    ...(here.rows.some(row => row.store) ? [text("store", "store", row => row.store, true)] : []),
    text("id", "row", row => row.id),
  ];
}

function shownColumns() {
  return table.getVisibleLeafColumns().map(column => column.columnDef.meta).filter(column => column);
}

function makeTable() {
  const here = tab();
  const defined = columns(here).map(column => ({
    id: column.id, accessorFn: column.value, meta: column, sortUndefined: "last",
    sortingFn: column.number ? "basic" : "alphanumeric", sortDescFirst: false,
  }));
  defined.push({ id: "section", accessorFn: row => row.section, sortingFn: "basic" });
  table = TableCore.createTable({
    data: here.rows, columns: defined, state: {}, renderFallbackValue: null, onStateChange: () => {},
    getRowId: row => row.id, getCoreRowModel: TableCore.getCoreRowModel(),
    getFilteredRowModel: TableCore.getFilteredRowModel(), getSortedRowModel: TableCore.getSortedRowModel(),
    globalFilterFn: (row, id, test) => test(row.original), getColumnCanGlobalFilter: column => column.id === "id",
  });
  bounds = Object.fromEntries(here.columns.map(column => [column.id, boundsOf(here.rows, column)]));
  limit = STEP;
}

function chosenColumns() {
  return state.columns ?? columns(tab()).filter(column => column.usual).map(column => column.id);
}

function applyState() {
  const chosen = new Set(chosenColumns());
  const visible = Object.fromEntries(table.getAllLeafColumns().map(column => [column.id, chosen.has(column.id)]));
  // Sections never mix: rows of different recipes are not ranked against each other, whatever they are sorted by.
  const sorting = state.sort.length ? [{ id: "section", desc: false }, ...state.sort] : [];
  table.setOptions(options => ({
    ...options,
    state: { ...table.initialState, columnVisibility: { ...visible, method: true }, sorting, globalFilter: matcher(state.filter) },
  }));
}

function filteredRows() { return table.getRowModel().rows.map(row => row.original); }

const SHAPES = ["M6 1a5 5 0 1 0 .01 0z", "M1.5 1.5h9v9h-9z", "M6 0l6 6-6 6-6-6z", "M6 .5l6 10.5H0z", "M6 11.5L0 1h12z",
  "M4 0h4v4h4v4H8v4H4V8H0V4h4z", "M2.5 0L6 3.5 9.5 0 12 2.5 8.5 6 12 9.5 9.5 12 6 8.5 2.5 12 0 9.5 3.5 6 0 2.5z"];

// 7 colours and 7 shapes, of which 49 methods in a row have no pair in common.
function shapeOf(number) { return (number + Math.floor(number / 7)) % 7; }

function swatch(row) {
  if (row.colour === null) return draw("svg", { class: "swatch", viewBox: "0 0 12 12", "aria-hidden": "true" });
  const shape = draw("path", { d: SHAPES[shapeOf(row.colour)], class: "c" + row.colour % 7 });
  return draw("svg", { class: "swatch", viewBox: "-1 -1 14 14", "aria-hidden": "true" }, shape);
}

function methodCell(row) {
  const open = state.open.includes(row.id);
  const name = make("button", {
    type: "button", class: "open", "data-row": row.id, "aria-expanded": String(open), "aria-controls": open ? "more-" + row.id : null,
  }, swatch(row), row.method);
  const kind = row.stale ? "stale" : row.status;
  return [
    name,
    row.mark ? make("span", { class: `badge ${row.mark === "✓" ? "holds" : "fails"}`, title: row.verified },
      row.mark === "✓" ? "✓ re-evaluated" : "✗ does not hold") : null,
    kind === "complete" ? null : make("span", { class: "badge" }, kind),
    row.fields ? make("small", {}, row.fields) : null,
    row.reason ? make("small", { class: "reason" }, row.reason) : null,
    row.stale ? make("small", { class: "reason" }, row.stale) : null,
  ];
}

function scoreCell(row, column) {
  const score = row.scores[column.id];
  if (!score) return row.status === "complete" ? "–" : row.status;
  const front = score.front?.includes("params");
  return make("div", { class: "score" },
    whisker(score, bounds[column.id]),
    make("div", {},
      make("span", { class: "value" },
        front ? make("span", { class: "front", title: "on the Pareto front of quality and parameters" }, "◆") : null,
        score.r ? make("span", { class: "rank", title: "ranks that the data allow" }, score.r) : null,
        score.before ? make("small", { title: "before training" }, score.before) : null,
        make("b", {}, score.t)),
      make("small", {}, score.i),
      score.said ? make("small", {}, score.said) : null));
}

const toScale = (column, value) => column.log ? Math.log(value) : value;

// The column's range; what is far outside the middle half, in units of that and of intervals, is drawn at the edge, so
// that one bad row hides no others.
function boundsOf(rows, column) {
  const found = rows.map(row => row.scores[column.id]).filter(score => score);
  const middle = found.map(score => toScale(column, score.v)).filter(Number.isFinite).sort((a, b) => a - b);
  if (!middle.length) return { low: 0, high: 1, column };
  const at = part => middle[Math.round(part * (middle.length - 1))];
  const widths = found.map(score => toScale(column, score.hi ?? score.v) - toScale(column, score.lo ?? score.v))
    .filter(Number.isFinite).sort((a, b) => a - b);
  const reach = 3 * (at(0.75) - at(0.25)) + (widths[Math.floor(widths.length / 2)] ?? 0) || Infinity;
  const ends = found.flatMap(score => [score.v, score.lo ?? score.v, score.hi ?? score.v])
    .map(value => toScale(column, value)).filter(end => end >= at(0.25) - reach && end <= at(0.75) + reach);
  return { low: Math.min(...ends), high: Math.max(...ends), column };
}

function whisker(score, range) {
  const place = value => {
    const part = (toScale(range.column, value) - range.low) / (range.high - range.low || 1);
    return 4 + 72 * Math.min(1, Math.max(0, part));
  };
  const x = place(score.v), outside = toScale(range.column, score.v) > range.high || toScale(range.column, score.v) < range.low;
  const mark = outside ? draw("path", { d: x > 40 ? `M${x - 4} 1l4 4-4 4` : `M${x + 4} 1l-4 4 4 4`, class: "far" })
    : draw("circle", { cx: x, cy: 5, r: 2.7 });
  const line = outside ? [] : [draw("line", { x1: place(score.lo ?? score.v), x2: place(score.hi ?? score.v), y1: 5, y2: 5 })];
  return draw("svg", { class: "whisker", viewBox: "0 0 80 10", "aria-hidden": "true" }, ...line, mark);
}

function headings() {
  return make("tr", {}, shownColumns().map(column => make("th", {
    scope: "col", class: column.number ? "number" : "text", title: column.hint, "data-column": column.id,
  }, make("button", { type: "button", class: "sort", "data-column": column.id }, column.title, column.sub ? make("small", {}, column.sub) : null))));
}

function markSorted() {
  for (const heading of document.querySelectorAll("#table thead th")) {
    const sorted = state.sort.find(each => each.id === heading.dataset.column);
    if (sorted) heading.setAttribute("aria-sort", sorted.desc ? "descending" : "ascending");
    else heading.removeAttribute("aria-sort");
  }
}

function rowOf(row, shown) {
  const line = make("tr", { class: `row ${row.status}${row.stale ? " stale" : ""}`, "data-row": row.id }, shown.map(column => {
    if (column.id === "method") return make("th", { scope: "row" }, methodCell(row));
    return make("td", { class: column.number ? null : "text" }, column.cell(row));
  }));
  if (!state.open.includes(row.id)) return [line];
  return [line, make("tr", { class: "more", id: "more-" + row.id }, make("td", { colspan: shown.length }, details(row)))];
}

// Draws the first `limit` rows; more follow as the reader comes near the end, all of them for print.
function drawRows() {
  applyState();
  const rows = filteredRows(), shown = shownColumns(), bodies = [];
  const last = Math.max(-1, ...state.open.map(id => rows.findIndex(row => row.id === id)));
  if (last >= limit) limit = Math.ceil((last + 1) / STEP) * STEP;
  for (const row of rows.slice(0, limit)) {
    if (bodies.at(-1)?.dataset.section !== String(row.section)) {
      const title = make("th", { colspan: shown.length, scope: "rowgroup" }, tab().sections[row.section]);
      bodies.push(make("tbody", { "data-section": row.section }, make("tr", { class: "kind" }, title)));
    }
    bodies.at(-1).append(...rowOf(row, shown));
  }
  if (rows.length > limit || !rows.length) {
    const more = rows.length ? make("button", { type: "button", id: "further" }, `Show ${Math.min(STEP, rows.length - limit)} more of ${rows.length} rows`) : "No row matches the filter.";
    bodies.push(make("tbody", {}, make("tr", {}, make("td", { colspan: shown.length, class: "further" }, more))));
  }
  const target = find("table");
  target.querySelectorAll("tbody").forEach(body => body.remove());
  target.append(...bodies);
  find("count").textContent = rows.length === tab().rows.length ? `${rows.length} ${rows.length === 1 ? "row" : "rows"}` : `${rows.length} of ${tab().rows.length} rows`;
  markSorted();
  watcher?.disconnect();
  if (find("further")) {
    watcher = new IntersectionObserver(seen => { if (seen.some(each => each.isIntersecting)) showFurther(); }, { rootMargin: "200px" });
    watcher.observe(find("further"));
  }
  plotOpenRows();
}

function showFurther(all = false) {
  const focused = document.activeElement?.id === "further", before = document.querySelectorAll("#table .open").length;
  limit = all ? Infinity : limit + STEP;
  drawRows();
  if (focused) document.querySelectorAll("#table .open")[before]?.focus({ preventScroll: true });
}

function drawTable() {
  makeTable();
  applyState();
  const choices = columns(tab()).filter(column => column.id !== "method").map(column => make("label", {},
    make("input", { type: "checkbox", name: "column", value: column.id, checked: chosenColumns().includes(column.id) }),
    [column.title, column.metric ? column.metric.metric : ""].filter(Boolean).join(" ")));
  return [
    make("div", { class: "tools" },
      make("label", {}, "Filter ", make("input", {
        type: "search", id: "filter", value: state.filter, spellcheck: "false", autocomplete: "off",
        placeholder: "svd -failed params<80M", title: "Words that must occur, -words that must not, front, and bounds: params, bytes, macs, latency, cost (seconds), flops, tokens, seeds",
      })),
      make("details", { class: "choices" }, make("summary", {}, "Columns"),
        make("div", {}, choices, make("button", { type: "button", id: "usual" }, "Usual columns"))),
      make("output", { id: "count", for: "filter" })),
    make("div", { class: "scroll", role: "region", tabindex: "0", "aria-label": "Leaderboard" },
      make("table", { id: "table" }, make("caption", {}, tab().heading), make("thead", {}, headings()))),
  ];
}

function sortBy(id, add) {
  const old = state.sort.find(each => each.id === id);
  const next = old ? (old.desc ? [] : [{ id, desc: true }]) : [{ id, desc: false }];
  state.sort = add ? [...state.sort.filter(each => each.id !== id), ...next] : next;
  limit = STEP;
  drawRows();
  remember();
}
