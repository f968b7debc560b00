"use strict";
// Everything out of a model becomes a text node or an attribute's value; nothing here writes markup.
const $ = (selector, root = document) => root.querySelector(selector);
const $$ = (selector, root = document) => [...root.querySelectorAll(selector)];
const SVG = "http://www.w3.org/2000/svg";
const PAGE = 50;
const BAD = ["fail", "error"];
const ORDER = ["fail", "error", "known_failure", "pass", "not_applicable"];
const SHORT = {
  pass: "pass",
  fail: "FAIL",
  error: "ERROR",
  known_failure: "known",
  not_applicable: "n/a",
};

function fill(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== null && value !== undefined && value !== false) node.setAttribute(name, value);
  }
  for (const child of children.flat(3)) {
    if (child !== null && child !== undefined && child !== false && child !== "")
      node.append(child);
  }
  return node;
}
const h = (tag, attributes = {}, ...children) =>
  fill(document.createElement(tag), attributes, children);
const s = (tag, attributes = {}, ...children) =>
  fill(document.createElementNS(SVG, tag), attributes, children);

async function unpack(text) {
  const bytes = Uint8Array.from(atob(text), letter => letter.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return JSON.parse(await new Response(stream).text());
}

// How figures are written.
const figure = value =>
  value === null || value === undefined
    ? "–"
    : value === 0
      ? "0"
      : Math.abs(value) >= 0.001 && Math.abs(value) < 1e5
        ? String(Number(value.toPrecision(4)))
        : value.toExponential(1);
const count = value => value.toLocaleString("en");
const percent = value => `${Number((value * 100).toPrecision(3))}%`;
function bytes(value) {
  for (const unit of ["B", "kB", "MB"]) {
    if (value < 999.5)
      return `${unit === "B" || value >= 99.95 ? value.toFixed(0) : value.toFixed(1)} ${unit}`;
    value /= 1000;
  }
  return `${value.toFixed(1)} GB`;
}
const milliseconds = value =>
  value === null || value === undefined ? "–" : `${Number(value.toPrecision(3))} ms`;

let data,
  state,
  shown = PAGE,
  opener = null;
const filters = $("#filters"),
  dialog = $("#cell");

const address = id => `#cell=${encodeURIComponent(id)}`;
// A name may be broken behind its separators.
const breakable = name =>
  name.split(/(?<=[_.+/-])(?=[^_.+/-])/).map(part => h("span", { class: "part" }, part));
const term = (key, text) =>
  h(
    "a",
    { class: "term", href: `#term=${key}`, title: data.terms[key][1] },
    text || data.terms[key][0],
  );
function command(text) {
  return h(
    "span",
    { class: "command" },
    h(
      "code",
      {},
      text.split(" ").map((word, place) => [place ? " " : "", h("span", {}, word)]),
    ),
    h("button", { type: "button", class: "copy" }, "Copy"),
  );
}

// The address holds the filters and the open cell.
function read() {
  const given = new URLSearchParams(location.hash.slice(1).replaceAll("+", "%2B"));
  return {
    q: given.get("q") || "",
    status: given.get("status"),
    value: given.get("value") || "",
    cell: given.get("cell") || "",
    term: given.get("term"),
  };
}
function write(changes) {
  state = { ...state, ...changes, term: null };
  const parts = ["q", "status", "value", "cell"]
    .filter(key => state[key] !== null && state[key] !== "")
    .map(key => `${key}=${encodeURIComponent(state[key])}`);
  history.replaceState(null, "", `#${parts.join("&")}`);
}

// Filters: the matrix and the list.
function matching() {
  const words = state.q.toLowerCase().split(/\s+/).filter(Boolean);
  const statuses = state.status === null ? null : new Set(state.status.split(","));
  return cell =>
    (!statuses || statuses.has(cell.status)) && words.every(word => cell.text.includes(word));
}
function apply() {
  const keep = matching();
  let total = 0;
  for (const cell of data.cells) {
    cell.kept = keep(cell);
    total += cell.kept;
  }
  for (const row of $$(".heat tbody tr")) {
    let any = false;
    for (const link of $$("a", row)) {
      const cell = data.cells[link.dataset.i];
      link.parentNode.classList.toggle("off", !cell.kept);
      any ||= cell.kept;
    }
    row.hidden = !any;
  }
  $("output", filters).textContent =
    total === data.cells.length ? "" : `${count(total)} of ${count(data.cells.length)} cells`;
  shown = PAGE;
  list();
}
function paint(measure) {
  for (const link of $$(".heat a[data-i]")) {
    const [text, level] = data.cells[link.dataset.i].heat[measure];
    link.textContent = text || SHORT[data.cells[link.dataset.i].status];
    link.parentNode.className =
      link.parentNode.className.replace(/ ?\bh\d\b/, "") + (level === null ? "" : ` h${level}`);
  }
}
const COLUMNS = [
  ["departure", "departure", cell => cell.texts.departure],
  ["error", "tolerance", cell => cell.texts.error],
  ["sensitivity", "sensitivity", cell => cell.texts.sensitivity],
  ["median", "", cell => cell.texts.median],
  ["speedup", "speedup", cell => cell.texts.speedup],
  ["nodes", "", cell => (cell.graph ? nodes(cell.graph) : "")],
  ["size", "", cell => (cell.graph ? bytes(cell.graph.bytes_after) : "")],
  ["ran in", "", cell => cell.texts.precision],
];
const nodes = g =>
  g.nodes_before === g.nodes_after
    ? count(g.nodes_after)
    : `${count(g.nodes_before)} → ${count(g.nodes_after)}`;
function list() {
  const body = $("#list tbody"),
    cells = data.worst.filter(cell => cell.kept),
    visible = cells.slice(0, shown);
  const columns = COLUMNS.filter(([, , text]) => visible.some(cell => text(cell)));
  $("#list thead").replaceChildren(
    h(
      "tr",
      {},
      ["cell", "status"].map(head => h("th", { scope: "col" }, head)),
      columns.map(([head, key]) => h("th", { scope: "col" }, key ? term(key, head) : head)),
    ),
  );
  body.replaceChildren(...visible.map(cell => row(cell, columns)));
  $("#more").hidden = cells.length <= shown;
  $("#list").hidden = false;
}
function row(cell, columns) {
  return h(
    "tr",
    {},
    h(
      "th",
      { scope: "row" },
      h("a", { href: address(cell.id) }, breakable(cell.id)),
      cell.reason && h("div", { class: "why" }, cell.reason),
    ),
    h(
      "td",
      {},
      h("span", { class: cell.status }, SHORT[cell.status]),
      cell.stage === "done" ? "" : ` at ${cell.stage}`,
    ),
    columns.map(([head, , text]) => h("td", { class: "n", "data-title": head }, text(cell))),
  );
}

function open(id) {
  const cell = data.byId.get(id);
  if (!cell) {
    if (dialog.open) dialog.close();
    return;
  }
  $("#cell-title").textContent = cell.id;
  $(".body", dialog).replaceChildren(...view(cell));
  addSaving($$("svg", dialog));
  if (!dialog.open) {
    opener = document.activeElement;
    dialog.showModal();
  }
  dialog.scrollTop = 0;
  $("#cell-title").focus();
}
function follow() {
  state = read();
  if (state.term !== null) {
    opener = null; // The term gets the focus.
    if (dialog.open) dialog.close();
    const entry = document.getElementById(`term=${state.term}`);
    if (entry) {
      entry.scrollIntoView({ block: "center" });
      entry.tabIndex = -1;
      entry.focus();
    }
    return;
  }
  $("[name=q]", filters).value = state.q;
  for (const box of $$("[name=status]", filters))
    box.checked = state.status === null || state.status.split(",").includes(box.value);
  const select = $("[name=value]", filters);
  if (select) {
    if ([...select.options].some(option => option.value === state.value))
      select.value = state.value;
    if (select.value !== painted) {
      painted = select.value;
      paint(painted);
    }
  }
  apply();
  open(state.cell);
}
let painted = filters && $("[name=value]", filters) ? $("[name=value]", filters).value : "";

async function start() {
  for (const button of $$(".copy")) button.hidden = false;
  if (!filters) return;
  data = await unpack($("#data").textContent);
  data.byId = new Map(data.cells.map(cell => [cell.id, cell]));
  for (const cell of data.cells)
    cell.text = [
      cell.id,
      cell.model,
      cell.variant,
      cell.provider,
      cell.status,
      cell.stage,
      cell.reason,
      cell.texts.precision,
    ]
      .join(" ")
      .toLowerCase();
  const rank = cell => ORDER.indexOf(cell.status);
  data.worst = [...data.cells].sort((a, b) => rank(a) - rank(b));
  filters.hidden = false;
  addSaving($$("figure > svg"));
  for (const key of $$(".key")) key.hidden = true;
  filters.addEventListener("submit", event => event.preventDefault());
  filters.addEventListener("input", () => {
    const boxes = $$("[name=status]", filters),
      on = boxes.filter(box => box.checked),
      select = $("[name=value]", filters);
    const byDefault = select && select.value === select.querySelector("[selected]").value;
    write({
      q: $("[name=q]", filters).value,
      status: on.length === boxes.length ? null : on.map(box => box.value).join(","),
      value: select && !byDefault ? select.value : "",
    });
    if (select && select.value !== painted) {
      painted = select.value;
      paint(painted);
    }
    apply();
  });
  $("#more").addEventListener("click", () => {
    shown += PAGE;
    list();
  });
  dialog.addEventListener("close", () => {
    if (state.cell) write({ cell: "" });
    if (opener && opener.isConnected) opener.focus({ preventScroll: true });
  });
  dialog.addEventListener("click", event => {
    if (event.target === dialog) dialog.close();
  });
  $(".close", dialog).addEventListener("click", () => dialog.close());
  window.addEventListener("hashchange", () => {
    if (location.hash.includes("=") || !location.hash) follow(); // Else it is a place on the page.
  });
  follow();
  document.documentElement.dataset.ready = "yes";
}
// A plot as a file of its own, in the colours of paper.
function standalone(plot) {
  const copy = plot.cloneNode(true);
  const [, , width, height] = plot.getAttribute("viewBox").split(" ");
  const rules = [...document.styleSheets[0].cssRules];
  const own = rules.filter(rule => /^(:root|svg)/.test(rule.selectorText || ""));
  const style = s("style", {}, ":root { color-scheme: light; font-family: sans-serif; font-size: 11px }");
  style.append(own.map(rule => rule.cssText).join("\n"));
  copy.prepend(style, s("rect", { width, height, fill: "#fff" }));
  for (const link of $$("a", copy)) link.removeAttribute("href");
  for (const [name, value] of Object.entries({ xmlns: SVG, width: width * 2, height: height * 2 }))
    copy.setAttribute(name, value);
  return new XMLSerializer().serializeToString(copy);
}
function addSaving(plots) {
  for (const plot of plots) {
    if (plot.nextElementSibling && plot.nextElementSibling.matches(".saves")) continue;
    const name = plot.getAttribute("aria-label") || "plot";
    const buttons = ["SVG", "PNG"].map(kind =>
      h("button", { type: "button", class: "save", "data-kind": kind, "aria-label": `Save as ${kind}: ${name}` }, kind),
    );
    plot.after(h("span", { class: "saves" }, ...buttons));
  }
}
async function save(plot, kind) {
  const text = standalone(plot);
  const blob = kind === "PNG" ? await pixels(plot, text) : new Blob([text], { type: "image/svg+xml" });
  const url = URL.createObjectURL(blob);
  const name = (plot.getAttribute("aria-label") || "plot").replace(/[^A-Za-z0-9]+/g, "-").slice(0, 80);
  h("a", { href: url, download: `${name}.${kind.toLowerCase()}` }).click();
  URL.revokeObjectURL(url);
}
// As wide as a slide. A data: address, since a canvas refuses to give back what came from any other.
async function pixels(plot, text) {
  const image = new Image();
  image.src = `data:image/svg+xml;charset=utf-8,${encodeURIComponent(text)}`;
  await image.decode();
  const [, , width, height] = plot.getAttribute("viewBox").split(" ");
  const canvas = h("canvas", { width: width * 3, height: height * 3 });
  canvas.getContext("2d").drawImage(image, 0, 0, canvas.width, canvas.height);
  return new Promise(resolve => canvas.toBlob(resolve, "image/png"));
}
document.addEventListener("click", async event => {
  const saving = event.target.closest(".save");
  if (saving) {
    save(saving.parentNode.previousElementSibling, saving.dataset.kind);
    return;
  }
  const link = event.target.closest("a[href^='#cell=']");
  if (link && state) {
    // The filters stay in the address.
    event.preventDefault();
    write({ cell: decodeURIComponent(link.getAttribute("href").slice(6)) });
    open(state.cell);
    return;
  }
  const button = event.target.closest(".copy");
  if (!button) return;
  const code = $("code", button.parentNode);
  try {
    await navigator.clipboard.writeText(code.textContent);
    button.textContent = "Copied";
  } catch {
    // From a file some browsers don't allow it: select it instead.
    getSelection().selectAllChildren(code);
    button.textContent = "Selected";
  }
});
