"use strict";
// The page around the views: budgets, the answer in short, and what the reader does.
function tabs(name, entries, chosen, controls) {
  return make("div", { role: "tablist", "aria-label": name }, entries.map(([id, text]) => make("button", {
    type: "button", role: "tab", id: `${controls}-${id}`, "data-choice": id, "aria-selected": String(id === chosen),
    "aria-controls": controls, tabindex: id === chosen ? "0" : "-1",
  }, text)));
}

function shell() {
  const teachers = [...new Set(board.tabs.map(each => each.teacher))];
  const budgets = teachers.map(teacher => make("div", { class: "teacher" }, make("span", {}, teacher),
    tabs("Budgets of " + teacher, board.tabs.map((each, place) => [place, each]).filter(([, each]) => each.teacher === teacher)
      .map(([place, each]) => [place, each.budget]), state.tab, "panel")));
  find("page").replaceChildren(
    board.tabs.length ? make("a", { class: "skip", href: "#panel", id: "skip" }, "Skip to the board") : "",
    make("header", {}, make("h1", {}, "weighin"), make("p", {}, board.sweep ? `Sweep ${board.sweep}` : "All sweeps of this store"),
      make("button", { type: "button", id: "theme" }, "")),
    board.tabs.length ? make("nav", { "aria-label": "Budgets" }, budgets) : "",
    make("main", {}, board.tabs.length ? make("div", { id: "panel", role: "tabpanel", tabindex: "-1" })
      : make("p", { class: "empty" }, board.message)),
    make("footer", {}, make("p", {}, board.tabs.length ? board.legend : "")));
  nameTheme();
}

// The answer in short, per recipe: which is best by the metric, is that real, what did it cost.
function answers() {
  const column = columnOf(state.metric);
  if (!column) return [];
  return tab().sections.map((title, section) => {
    const ranked = tab().rows.filter(row => row.section === section && row.scores[column.id]?.rank && !row.stale);
    const leaders = ranked.filter(row => row.scores[column.id].rank[0] === 1);
    const stale = tab().rows.filter(row => row.section === section && row.scores[column.id] && row.stale && row.colour !== null).length;
    if (!leaders.length) return stale ? make("section", { class: "answer", "aria-label": title }, make("h3", {}, title),
      make("p", {}, `No row that is up to date: ${stale} ${stale === 1 ? "is" : "are"} stale.`)) : null;
    const best = leaders.reduce((a, b) => (column.higher ? 1 : -1) * (b.scores[column.id].v - a.scores[column.id].v) > 0 ? b : a);
    return make("section", { class: "answer", "aria-label": title }, make("h3", {}, `${title}, by ${column.protocol} ${column.metric} ${arrow(column)}`), make("dl", {},
      make("dt", {}, "Best"), make("dd", {}, swatch(best), make("b", {}, best.label), ` ${best.scores[column.id].t} `, make("small", {}, `[${best.scores[column.id].i}]`)),
      make("dt", {}, "Is it real"), make("dd", {}, certainty(best, ranked.length, column)),
      make("dt", {}, "Cost"), make("dd", {}, price(best, column))));
  });
}

function certainty(row, count, column) {
  const score = row.scores[column.id], names = score.ties ?? [], more = score.tied - names.length;
  const said = count === 1 ? "Alone in its group. " : score.tied
    ? `Not separable from ${score.tied} of ${count - 1}: ${names.join(", ")}${more > 0 ? `, ${more} more` : ""}. `
    : `Separable from ${count === 2 ? "the other row" : `all ${count - 1} others`}. `;
  if (score.seeds === 1) return said + "One seed: another training run may differ.";
  return said + `${score.seeds} seeds${score.basis === "seeds only" ? ", no items stored" : ""}.`;
}

function price(row, column) {
  const gain = tab().gains.find(each => each.row === row.id && each.from === "distillation");
  const found = gain?.cells[column.id];
  return [`${row.cost}, ${row.seeds} ${row.seeds === 1 ? "seed" : "seeds"}`, row.params ? `${row.params} params (${row.fraction})` : "",
    row.latency ?? "", found?.v !== undefined ? `gain from distillation ${found.t}` : ""].filter(Boolean).join(" · ");
}

function gains() {
  const here = tab(), shown = here.rows.length, test = matcher(state.filter);
  const cells = gain => here.columns.map(column => {
    const cell = gain.cells[column.id], [value, ...rest] = cell.t.split(" ");
    return cell.v === undefined ? make("td", {}, cell.t) : make("td", {}, make("b", {}, value), make("small", {}, rest.join(" ")));
  });
  const rows = Map.groupBy(here.gains, gain => here.rows.find(row => row.id === gain.row));
  const lines = [...rows].filter(([row]) => test(row)).flatMap(([row, members]) => members.map((gain, place) => make("tr", { class: gain.status + (gain.stale ? " stale" : "") },
    place ? null : make("th", { scope: "rowgroup", rowspan: members.length }, swatch(row), gain.label),
    make("td", { class: "text" }, gain.from, make("small", {}, gain.control), gain.reason ? make("small", { class: "reason" }, gain.reason) : null),
    cells(gain), make("td", {}, gain.cost), make("td", {}, String(gain.seeds)))));
  const number = (title, sub) => make("th", { scope: "col", class: "number" }, title, sub ? make("small", {}, sub) : null);
  return make("div", { class: "scroll", role: "region", tabindex: "0", "aria-label": "Gains over controls" }, make("table", { id: "gains" },
    make("caption", {}, `${here.heading}: what distillation and decomposition gain, ${shown} rows`),
    make("thead", {}, make("tr", {}, make("th", { scope: "col", class: "text" }, "method"), make("th", { scope: "col", class: "text" }, "gain from"),
      here.columns.map(column => number(column.protocol, `${column.metric} gain, positive is better`)), number("control’s cost"), number("seeds"))),
    make("tbody", {}, lines)));
}

function reported() {
  const { head, numeric, lines, legend } = tab().reported, kind = place => numeric.includes(place) ? "number" : "text";
  const cell = (text, place) => make(place ? "td" : "th", { class: place ? kind(place) : null, scope: place ? null : "row" }, text);
  return [make("div", { class: "scroll", role: "region", tabindex: "0", "aria-label": "Reported elsewhere" },
    make("table", { id: "reported" }, make("caption", {}, `${tab().heading}: reported elsewhere`),
      make("thead", {}, make("tr", {}, head.map((title, place) => make("th", { scope: "col", class: kind(place) }, title)))),
      make("tbody", {}, lines.map(cells => make("tr", { class: "row" }, cells.map(cell)))))), make("p", { class: "hint" }, legend)];
}

// Those of the board above the answer, those of the tab below it. A long note is folded; files that are not shown have a
// list of their own.
function notes(all) {
  const told = [...new Set(all)].filter(note => !board.rejected.length || !note.includes(board.rejected[0]));
  return told.map(note => note.length < 260 ? make("p", { class: "note" }, note)
    : make("details", { class: "note" }, make("summary", {}, note.slice(0, 160) + " …"), note));
}

function unfolded(title, lines, open = false) {
  return lines.length ? make("details", { class: "more-notes", open }, make("summary", {}, title), make("ul", {}, lines.map(line => make("li", {}, line)))) : "";
}

function panel() {
  const here = tab(), views = viewsHere();
  const metrics = here.columns.length > 1 ? make("label", { class: "metric" }, "Metric ", make("select", { id: "metric" },
    options(here.columns.map(column => [column.id, `${column.protocol} ${column.metric} ${arrow(column)}`]), state.metric))) : null;
  find("panel").setAttribute("aria-labelledby", `panel-${state.tab}`);
  find("panel").replaceChildren(
    make("div", { class: "top" }, make("h2", {}, here.heading), make("p", { class: "summary" }, here.summary), metrics),
    ...notes(board.notes),
    board.changes ? unfolded(board.changes.title, board.changes.lines, board.changes.lines.length <= 5) : "",
    unfolded(`${board.rejected.length} files that are not shown`, board.rejected),
    make("div", { class: "answers", id: "answers" }, answers()),
    ...notes(here.notes.filter(note => !board.notes.includes(note))),
    unfolded("The smallest differences that this tab can show", here.resolution),
    tabs("Views", views.map(view => [view, VIEWS[view]]), state.view, "view"),
    make("div", { id: "view", role: "tabpanel", "aria-labelledby": `view-${state.view}` }));
  view();
}

function view() {
  find("view").setAttribute("aria-labelledby", `view-${state.view}`);
  const shown = { table: drawTable, gains: () => [gains()], reported }[state.view] ?? (() => [plotPanel()]);
  find("view").replaceChildren(...shown());
  if (state.view === "table") drawRows();
  else plotView();
}

function choose(button) {
  const list = button.closest("[role=tablist]");
  const all = list.closest("nav")?.querySelectorAll("[role=tab]") ?? list.querySelectorAll("[role=tab]");
  if (list.closest("nav")) {
    Object.assign(state, { tab: Number(button.dataset.choice), open: [] });
    state.metric = columnOf(state.metric)?.id ?? tab().columns[0]?.id ?? "";
    const known = columns(tab()).map(column => column.id);
    state.sort = state.sort.filter(each => known.includes(each.id));
    if (!viewsHere().includes(state.view)) state.view = "table";
    panel();
  } else {
    state.view = button.dataset.choice;
    view();
  }
  for (const each of all) {
    each.setAttribute("aria-selected", String(each === button));
    each.tabIndex = each === button ? 0 : -1;
  }
  button.focus({ preventScroll: true });
  remember(true);
}

const THEMES = { "": "auto", light: "light", dark: "dark" };
function nameTheme() { find("theme").textContent = `Theme: ${THEMES[document.documentElement.dataset.theme ?? ""]}`; }
function nextTheme() {
  const names = Object.keys(THEMES), now = document.documentElement.dataset.theme ?? "";
  document.documentElement.dataset.theme = names[(names.indexOf(now) + 1) % names.length];
  nameTheme();
  recolour();
}

function recolour() {
  if (!window.Plotly || !board.tabs.length) return;
  plotView();
  plotOpenRows();
}

function fromLink() {
  fromAddress();
  shell();
  panel();
}

document.addEventListener("click", event => {
  const on = selector => event.target.closest(selector);
  if (on("[role=tab]")) whenRead(() => choose(on("[role=tab]")));
  else if (on(".open")) whenRead(() => toggleRow(on(".open").dataset.row));
  else if (on(".sort")) sortBy(on(".sort").dataset.column, event.shiftKey);
  else if (on(".copy")) copy(on(".copy"));
  else if (on("#further")) showFurther();
  else if (on("#theme")) nextTheme();
  else if (on("#usual")) chooseColumns(null);
  else if (on("#skip")) { event.preventDefault(); find("panel").focus(); }
  const choices = document.querySelector(".choices[open]");
  if (choices && !choices.contains(event.target)) choices.open = false;
});

function chooseColumns(chosen) {
  state.columns = chosen;
  applyState();
  document.querySelector("#table thead").replaceChildren(headings());
  for (const box of document.querySelectorAll(".choices input")) box.checked = chosenColumns().includes(box.value);
  drawRows();
  remember();
}

document.addEventListener("change", event => {
  const { id, value, name } = event.target;
  if (name === "column") chooseColumns(["method", ...[...document.querySelectorAll(".choices input:checked")].map(box => box.value)]);
  if (id === "metric" || id === "axis") {
    state[id] = value;
    find("answers").replaceChildren(...answers().filter(Boolean));
    if (state.view === "table") drawRows();
    plotView();
    remember();
  }
});

document.addEventListener("input", event => {
  if (event.target.id !== "filter") return;
  state.filter = event.target.value;
  limit = STEP;
  drawRows();
  remember();
});

// Arrows move between tabs and between rows; "/" goes to the filter, Escape closes the list of columns.
document.addEventListener("keydown", event => {
  const now = event.target.closest?.("[role=tab], .open");
  const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
  const across = event.key === "ArrowRight" || event.key === "ArrowLeft";
  if (now && step && across === now.matches("[role=tab]")) {
    const all = [...(now.closest("[role=tablist]") ?? find("table")).querySelectorAll("[role=tab], .open")];
    const next = all[all.indexOf(now) + step];
    event.preventDefault();
    next?.focus();
    if (next?.matches("[role=tab]")) choose(next);
  } else if (event.key === "/" && !event.target.matches("input, select") && find("filter")) {
    event.preventDefault();
    find("filter").focus();
  } else if (event.key === "Escape" && document.querySelector(".choices[open]")) {
    document.querySelector(".choices").open = false;
    document.querySelector(".choices summary").focus();
  }
});

addEventListener("popstate", () => { if (board.tabs.length) fromLink(); });
addEventListener("beforeprint", () => { if (find("further")) showFurther(true); });
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", recolour);
function start() {
  if (board.tabs.length) fromLink();
  else shell();
  document.documentElement.dataset.ready = Math.round(performance.now());
}
if (board.tabs.length) fromAddress();
if (state.open.length || state.view !== "table") whenRead(start);
else start();
