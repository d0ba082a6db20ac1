"use strict";
// What a row opens to. The details of a tab are read once, when its first row opens.
const read = new Map();

function detailsOf(index) {
  if (!read.has(index)) read.set(index, JSON.parse(find("details-" + index).textContent));
  return read.get(index);
}

function facts(pairs) {
  return make("dl", {}, pairs.map(([name, text]) => [make("dt", {}, name), make("dd", {}, text)]));
}

function command(text) {
  return make("div", { class: "command" }, make("code", {}, text),
    make("button", { type: "button", class: "copy", "aria-label": "Copy: " + text }, "copy"));
}

function details(row) {
  const found = detailsOf(state.tab)[row.id];
  const curve = found.curves.length ? make("figure", {}, make("figcaption", {}, "Training loss and its parts, every seed"),
    make("div", { class: "plot inside", "data-row": row.id })) : null;
  const seeds = found.seeds.map(seed => make("details", {}, make("summary", {}, seed.title),
    seed.reason ? make("p", { class: "reason" }, seed.reason) : null,
    seed.log ? make("pre", { tabindex: "0", "aria-label": "End of the log" }, seed.log) : null, facts(seed.facts)));
  return make("div", { class: "inner" },
    make("div", { class: "commands" }, found.commands.map(command)),
    make("div", { class: "sides" }, make("div", {}, facts(found.facts), seeds), curve));
}

function toggleRow(id) {
  const open = !state.open.includes(id);
  state.open = open ? [...state.open, id] : state.open.filter(other => other !== id);
  const line = [...document.querySelectorAll("#table tr.row")].find(each => each.dataset.row === id);
  const opener = line.querySelector(".open");
  opener.setAttribute("aria-expanded", String(open));
  if (open) {
    const row = tab().rows.find(each => each.id === id);
    line.after(make("tr", { class: "more", id: "more-" + id }, make("td", { colspan: line.cells.length }, details(row))));
    opener.setAttribute("aria-controls", "more-" + id);
    plotOpenRows();
  } else {
    line.nextElementSibling.remove();
    opener.removeAttribute("aria-controls");
  }
  remember();
}

async function copy(button) {
  const code = button.previousElementSibling;
  const range = document.createRange();
  range.selectNodeContents(code);
  getSelection().removeAllRanges();
  getSelection().addRange(range);
  try {
    await navigator.clipboard.writeText(code.textContent);
    button.textContent = "copied";
  } catch {
    button.textContent = "selected";
  }
  setTimeout(() => { button.textContent = "copy"; }, 1500);
}
