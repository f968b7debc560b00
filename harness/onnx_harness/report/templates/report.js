"use strict";
// Everything out of a model becomes a text node or an attribute's value; nothing here writes markup.
const $ = (selector, root = document) => root.querySelector(selector);
const $$ = (selector, root = document) => [...root.querySelectorAll(selector)];
const SVG = "http://www.w3.org/2000/svg";
const PAGE = 50;
const BAD = ["fail", "error"];
const ORDER = ["fail", "error", "known_failure", "pass", "not_applicable"];
const SHORT = { pass: "pass", fail: "FAIL", error: "ERROR", known_failure: "known", not_applicable: "n/a" };

function fill(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== null && value !== undefined && value !== false) node.setAttribute(name, value);
  }
  for (const child of children.flat(3)) {
    if (child !== null && child !== undefined && child !== false && child !== "") node.append(child);
  }
  return node;
}
const h = (tag, attributes = {}, ...children) => fill(document.createElement(tag), attributes, children);
const s = (tag, attributes = {}, ...children) => fill(document.createElementNS(SVG, tag), attributes, children);

async function unpack(text) {
  const bytes = Uint8Array.from(atob(text), letter => letter.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return JSON.parse(await new Response(stream).text());
}

// How figures are written.
const figure = value => value === null || value === undefined ? "–" : value === 0 ? "0"
  : Math.abs(value) >= 0.001 && Math.abs(value) < 1e5 ? String(Number(value.toPrecision(4))) : value.toExponential(1);
const count = value => value.toLocaleString("en");
const percent = value => `${Number((value * 100).toPrecision(3))}%`;
function bytes(value) {
  for (const unit of ["B", "kB", "MB"]) {
    if (value < 999.5) return `${unit === "B" || value >= 99.95 ? value.toFixed(0) : value.toFixed(1)} ${unit}`;
    value /= 1000;
  }
  return `${value.toFixed(1)} GB`;
}
const milliseconds = value => value === null || value === undefined ? "–" : `${Number(value.toPrecision(3))} ms`;

let data, state, shown = PAGE, opener = null;
const filters = $("#filters"), dialog = $("#cell");

const address = id => `#cell=${encodeURIComponent(id)}`;
const term = (key, text) => h("a", { class: "term", href: `#term=${key}`, title: data.terms[key][1] }, text || data.terms[key][0]);
function command(text) {
  return h("span", { class: "command" }, h("code", {}, text.split(" ").map((word, place) => [place ? " " : "", h("span", {}, word)])), h("button", { type: "button", class: "copy" }, "Copy"));
}

// The address holds the filters and the open cell.
function read() {
  const given = new URLSearchParams(location.hash.slice(1).replaceAll("+", "%2B"));
  return { q: given.get("q") || "", status: given.get("status"), value: given.get("value") || "",
    cell: given.get("cell") || "", term: given.get("term") };
}
function write(changes) {
  state = { ...state, ...changes, term: null };
  const parts = ["q", "status", "value", "cell"].filter(key => state[key] !== null && state[key] !== "")
    .map(key => `${key}=${encodeURIComponent(state[key])}`);
  history.replaceState(null, "", `#${parts.join("&")}`);
}

// Filters: the matrix and the list.
function matching() {
  const words = state.q.toLowerCase().split(/\s+/).filter(Boolean);
  const statuses = state.status === null ? null : new Set(state.status.split(","));
  return cell => (!statuses || statuses.has(cell.status)) && words.every(word => cell.text.includes(word));
}
function apply() {
  const keep = matching();
  let total = 0;
  for (const cell of data.cells) { cell.kept = keep(cell); total += cell.kept; }
  for (const row of $$(".heat tbody tr")) {
    let any = false;
    for (const link of $$("a", row)) {
      const cell = data.cells[link.dataset.i];
      link.parentNode.classList.toggle("off", !cell.kept);
      any ||= cell.kept;
    }
    row.hidden = !any;
  }
  $("output", filters).textContent = total === data.cells.length ? "" : `${count(total)} of ${count(data.cells.length)} cells`;
  shown = PAGE;
  list();
}
function paint(measure) {
  for (const link of $$(".heat a[data-i]")) {
    const [text, level] = data.cells[link.dataset.i].heat[measure];
    link.textContent = text || SHORT[data.cells[link.dataset.i].status];
    link.parentNode.className = link.parentNode.className.replace(/ ?\bh\d\b/, "") + (level === null ? "" : ` h${level}`);
  }
}
const COLUMNS = [
  ["departure", "departure", cell => cell.texts.departure], ["error", "tolerance", cell => cell.texts.error],
  ["sensitivity", "sensitivity", cell => cell.texts.sensitivity], ["median", "", cell => cell.texts.median],
  ["speedup", "speedup", cell => cell.texts.speedup], ["nodes", "", cell => cell.graph ? nodes(cell.graph) : ""],
  ["size", "", cell => cell.graph ? bytes(cell.graph.bytes_after) : ""], ["ran in", "", cell => cell.texts.precision]];
const nodes = g => g.nodes_before === g.nodes_after ? count(g.nodes_after) : `${count(g.nodes_before)} → ${count(g.nodes_after)}`;
function list() {
  const body = $("#list tbody"), cells = data.worst.filter(cell => cell.kept), visible = cells.slice(0, shown);
  const columns = COLUMNS.filter(([, , text]) => visible.some(cell => text(cell)));
  $("#list thead").replaceChildren(h("tr", {}, ["cell", "status"].map(head => h("th", { scope: "col" }, head)),
    columns.map(([head, key]) => h("th", { scope: "col" }, key ? term(key, head) : head))));
  body.replaceChildren(...visible.map(cell => row(cell, columns)));
  $("#more").hidden = cells.length <= shown;
  $("#list").hidden = false;
}
function row(cell, columns) {
  return h("tr", {}, h("th", { scope: "row" }, h("a", { href: address(cell.id) }, cell.id), cell.reason && h("div", { class: "why" }, cell.reason)),
    h("td", {}, h("span", { class: cell.status }, SHORT[cell.status]), cell.stage === "done" ? "" : ` at ${cell.stage}`),
    columns.map(([head, , text]) => h("td", { class: "n", "data-title": head }, text(cell))));
}

// A cell by itself.
function section(title, ...children) {
  return h("section", {}, h("h3", {}, title), ...children);
}
function facts(pairs) {
  return h("dl", { class: "facts" }, pairs.filter(([, value]) => value !== null && value !== undefined && value !== "")
    .map(([name, value]) => [h("dt", {}, name), h("dd", {}, value)]));
}
function grid(heads, rows) {
  return h("div", { class: "wide", tabindex: 0, role: "region", "aria-label": "figures" }, h("table", {},
    h("thead", {}, h("tr", {}, heads.map(head => h("th", { scope: "col" }, head)))),
    h("tbody", {}, rows.map(([first, ...others]) => h("tr", {}, h("th", { scope: "row" }, first), others.map(other => h("td", { class: "n" }, other)))))));
}
function view(cell) {
  const repro = cell.detail.find(line => line.startsWith("kept by itself: "));
  const parts = [
    h("p", {}, h("span", { class: cell.status }, `${data.symbols[cell.status]} ${SHORT[cell.status]}`),
      cell.stage === "done" ? "" : ` at ${cell.stage}`, cell.symptom ? ` (${cell.symptom.replaceAll("_", " ")})` : "",
      h("span", { class: "quiet" }, ` · ${cell.model}${cell.about ? ` (${cell.about})` : ""} · ${cell.variant} on ${cell.provider}`)),
    cell.reason && h("p", {}, cell.reason),
    cell.detail.length > 0 && h("pre", { tabindex: 0 }, cell.detail.join("\n")),
    facts([["judge it alone", command(cell.alone)], ["write its model", cell.transform && command(cell.transform)],
      ["kept by itself", repro && h("code", {}, repro.slice(16))]]),
    cell.notes.length > 0 && section("Notes", h("ul", {}, cell.notes.map(note => h("li", {}, note)))),
    cell.accuracy && accuracy(cell.accuracy),
    cell.latency && latency(cell),
    cell.placement && placement(cell.placement),
    cell.graph && graph(cell.graph),
    cell.sensitivity && sensitivity(cell.sensitivity),
    section("About this verdict", facts([["input sets", cell.accuracy && count(cell.accuracy.input_sets)],
      ["opset", cell.opset], ["model", cell.model_sha256 && h("code", {}, `sha256 ${cell.model_sha256}`)],
      ["seconds", Object.entries(cell.seconds).map(([stage, value]) => `${stage} ${figure(value)}`).join(", ")]])),
  ];
  return parts.filter(Boolean);
}
function logAxis(values, left, width) {
  const low = Math.floor(Math.log10(Math.min(...values)) - 0.15), high = Math.ceil(Math.log10(Math.max(...values)) + 0.15);
  const at = value => left + (Math.log10(value) - low) / (high - low) * width;
  const step = Math.max(1, Math.ceil((high - low) / 7)), ticks = [];
  for (let exponent = low; exponent <= high; exponent += step) ticks.push(10 ** exponent);
  return { at, ticks };
}
function errors(outputs) {
  const entries = outputs.slice(0, 40).map(([name, o]) => ({ name, error: o.rel_l2, floor: o.floor_rel_l2, ideal: o.ideal_rel_l2,
    allowed: o.factor > 0 && o.rel_l2 > 0 ? o.rel_l2 / o.factor * data.faithful : null, needs: o.minimum_tolerance, bound: o.rtol }));
  const values = entries.flatMap(e => [e.error, e.floor, e.ideal, e.allowed, e.needs, e.bound]).filter(value => value > 0);
  if (!values.length) return null;
  const width = 680, left = 150, rowHeight = 40, { at, ticks } = logAxis(values, left, width - left - 20);
  const height = entries.length * rowHeight + 24;
  const mark = (value, make) => value > 0 ? make(at(value)) : null;
  const rows = entries.map((e, place) => {
    const one = place * rowHeight + 12, two = one + 15;
    return s("g", {}, s("title", {}, e.name),
      s("text", { x: 0, y: one + 4 }, e.name.length > 22 ? `${e.name.slice(0, 21)}…` : e.name),
      s("text", { x: left - 6, y: two + 4, "text-anchor": "end", class: "tick" }, "needs / tolerance"),
      s("line", { class: "row", x1: left, x2: width - 20, y1: one, y2: one }), s("line", { class: "row", x1: left, x2: width - 20, y1: two, y2: two }),
      mark(e.allowed, x => s("line", { class: "bound", x1: x, x2: x, y1: one - 7, y2: one + 7 }, s("title", {}, `faithful up to ${figure(e.allowed)}`))),
      mark(e.floor, x => s("circle", { class: "floor-mark", cx: x, cy: one, r: 4.5 }, s("title", {}, `noise floor ${figure(e.floor)}`))),
      mark(e.ideal, x => s("path", { class: "ideal-mark", d: `M${x - 5} ${one + 4}L${x} ${one - 5}L${x + 5} ${one + 4}Z` }, s("title", {}, `ideal conversion ${figure(e.ideal)}`))),
      mark(e.error, x => s("circle", { class: "error-mark", cx: x, cy: one, r: 3.5 }, s("title", {}, `error ${figure(e.error)}`))),
      mark(e.bound, x => s("line", { class: "bound", x1: x, x2: x, y1: two - 7, y2: two + 7 }, s("title", {}, `tolerance ${figure(e.bound)}`))),
      mark(e.needs, x => s("rect", { class: "error-mark", x: x - 3.5, y: two - 3.5, width: 7, height: 7 }, s("title", {}, `would pass at ${figure(e.needs)}`))));
  });
  return [h("p", { class: "quiet" }, "● error and ○ ", term("floor"), ", △ ", term("ideal"), " as ", term("l2", "relative L2 errors"),
      "; ■ the smallest ", term("tolerance", "tolerance"), " that would pass; dashed: the bound of each. Logarithmic."),
    h("div", { class: "wide", tabindex: 0, role: "region", "aria-label": "errors" },
      s("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": "errors of each output; the table has the figures", style: "min-width:460px" },
        ticks.map(tick => [s("line", { class: "row", x1: at(tick), x2: at(tick), y1: 2, y2: height - 20 }), s("text", { class: "tick", x: at(tick), y: height - 6, "text-anchor": "middle" }, tick.toExponential(0))]), rows))];
}
function accuracy(record) {
  const outputs = Object.entries(record.outputs), said = value => value === null ? "" : value ? "yes" : "no";
  const vacuous = outputs.filter(([, o]) => o.vacuous).map(([name, o]) => h("p", { class: "caution" }, `${name} ${o.vacuous}: `, term("vacuous", "comparing it could not have failed")));
  const heads = ["output", term("departure"), term("faithful"), term("usable"), term("l2", "rel L2"), term("floor"), term("ideal", "ideal"), "times",
    "would pass at", "rtol", "atol", "max abs", "max rel", "cosine", term("sqnr"), "NaN/inf"];
  const rows = outputs.map(([name, o]) => [name, o.departure || "", said(o.faithful), said(o.usable), figure(o.rel_l2), figure(o.floor_rel_l2), figure(o.ideal_rel_l2),
    o.factor === null ? "" : `${figure(o.factor)}x`, o.minimum_tolerance === null ? "none" : figure(o.minimum_tolerance), figure(o.rtol), figure(o.atol), figure(o.max_abs), figure(o.max_rel),
    o.cosine === null ? "" : o.cosine.toFixed(6), o.sqnr_db === null ? "" : `${o.sqnr_db.toFixed(1)} dB`, count(o.nonfinite)]);
  return section("Accuracy", vacuous, errors(outputs), grid(heads, rows));
}
function latency(cell) {
  const l = cell.latency;
  return section("Latency", facts([[term("speedup"), cell.texts.speedup], ["median", `${milliseconds(l.median_ms)} (${"baseline"} ${milliseconds(l.baseline_median_ms)})`],
    ["p90, p99", [l.p90_ms, l.p99_ms].map(milliseconds).join(", ")], ["session, first run", `${milliseconds(l.session_ms)}, ${milliseconds(l.first_run_ms)}`],
    ["threads", l.threads], ["how it was taken", cell.timing]]), ratios(l));
}
function ratios(l) {
  if (!l.log_ratios || l.log_ratios.length < 2) return null;
  const width = 680, left = 20, room = width - 40, values = l.log_ratios, ends = (l.speedup_ci95 || []).map(Math.log);
  const low = Math.min(0, ...values, ...ends), high = Math.max(0, ...values, ...ends), pad = (high - low) * 0.06 + 1e-4;
  const at = value => left + (value - low + pad) / (high - low + 2 * pad) * room, axis = 52;
  const marks = [...new Set([low, 0, high])].filter((value, place, all) => value === 0 || Math.abs(at(value) - at(0)) > 45);
  return [h("p", { class: "quiet" }, `The ${values.length} `, term("pairs"), ", a dot each; the bar is the 95% interval, the dashed line 1x."),
    s("svg", { viewBox: `0 0 ${width} 72`, role: "img", "aria-label": `speedup of ${values.length} pairs` },
      s("line", { class: "axis", x1: left, x2: width - 20, y1: axis, y2: axis }), s("line", { class: "one", x1: at(0), x2: at(0), y1: 4, y2: axis }),
      ends.length === 2 && s("line", { class: "span", x1: at(ends[0]), x2: at(ends[1]), y1: 28, y2: 28, "stroke-width": 3 }),
      values.map((value, place) => s("circle", { class: "best", cx: at(value), cy: 14 + (place * 7) % 28, r: 3.2, opacity: 0.75 }, s("title", {}, `${Math.exp(value).toFixed(3)}x`))),
      marks.map(value => s("text", { class: "tick", x: at(value), y: axis + 14, "text-anchor": "middle" }, `${Math.exp(value).toFixed(2)}x`)))];
}
function placement(p) {
  const nodes = Object.entries(p.nodes), total = nodes.reduce((sum, [, number]) => sum + number, 0);
  const own = ([name]) => name === p.requested ? 0 : 1;
  nodes.sort((a, b) => own(a) - own(b));
  return section("Placement", total > 0 && h("div", { class: "bars", "aria-hidden": "true" }, nodes.map(([, number]) => h("span", { style: `width:${number / total * 100}%` }))),
    facts([[term("placement", "nodes by provider"), nodes.map(([name, number]) => `${count(number)} on ${name}`).join(", ")], ["share", percent(p.share)],
      ["share of the time", p.time_share === null ? "" : percent(p.time_share)],
      ["ran after fusion", Object.entries(p.executed).map(([name, number]) => `${count(number)} on ${name}`).join(", ")],
      ["float arithmetic", Object.entries(p.arithmetic).map(([kind, number]) => `${count(number)} in ${kind}`).join(", ")],
      [p.precision === "emulated" || p.precision === "mixed" ? term("emulated", "computed in") : "computed in", p.precision], ["copies between memories", p.memcpy ? count(p.memcpy) : ""],
      ["Casts inserted", p.inserted_casts ? count(p.inserted_casts) : ""]]),
    Object.keys(p.off_provider_ops).length > 0 && grid(["operator elsewhere", "nodes"], Object.entries(p.off_provider_ops).sort((a, b) => b[1] - a[1]).map(([op, number]) => [op, count(number)])));
}
function graph(g) {
  const change = (before, after) => before ? ` (${percent(after / before)})` : "";
  return section("Graph", grid(["", "before", "after"], [["nodes", count(g.nodes_before), count(g.nodes_after) + change(g.nodes_before, g.nodes_after)],
    ["size", bytes(g.bytes_before), bytes(g.bytes_after) + change(g.bytes_before, g.bytes_after)]]), h("p", { class: "quiet" }, `transformed in ${figure(g.transform_seconds)} s`));
}
function sensitivity(record) {
  return section("Sensitivity", facts([[term("sensitivity"), record.score === null ? "nothing to catch" : percent(record.score)],
      ["faults", `${count(record.planted)} planted, ${count(record.caught)} caught, ${count(record.equivalent)} change nothing`],
      ["smallest weight change caught", record.smallest_change === null ? "none" : `${percent(record.smallest_change)} of ${record.smallest_change_of || "a weight"}`]]),
    record.missed.length > 0 && h("details", {}, h("summary", {}, `${record.missed.length} missed`), h("ul", {}, record.missed.map(line => h("li", {}, line)))),
    Object.keys(record.kinds).length > 0 && h("details", {}, h("summary", {}, "by kind of fault"), grid(["fault", "planted", "caught", "change nothing"],
      Object.entries(record.kinds).map(([kind, k]) => [kind, k.planted, k.caught, k.equivalent]))));
}

function open(id) {
  const cell = data.byId.get(id);
  if (!cell) { if (dialog.open) dialog.close(); return; }
  $("#cell-title").textContent = cell.id;
  $(".body", dialog).replaceChildren(...view(cell));
  if (!dialog.open) { opener = document.activeElement; dialog.showModal(); }
  dialog.scrollTop = 0;
  $("#cell-title").focus();
}
function follow() {
  state = read();
  if (state.term !== null) {
    opener = null;  // The term gets the focus.
    if (dialog.open) dialog.close();
    const entry = document.getElementById(`term=${state.term}`);
    if (entry) { entry.scrollIntoView({ block: "center" }); entry.tabIndex = -1; entry.focus(); }
    return;
  }
  $("[name=q]", filters).value = state.q;
  for (const box of $$("[name=status]", filters)) box.checked = state.status === null || state.status.split(",").includes(box.value);
  const select = $("[name=value]", filters);
  if (select) {
    if ([...select.options].some(option => option.value === state.value)) select.value = state.value;
    if (select.value !== painted) { painted = select.value; paint(painted); }
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
  for (const cell of data.cells) cell.text = [cell.id, cell.model, cell.variant, cell.provider, cell.status, cell.stage, cell.reason, cell.texts.precision].join(" ").toLowerCase();
  const rank = cell => ORDER.indexOf(cell.status);
  data.worst = [...data.cells].sort((a, b) => rank(a) - rank(b));
  filters.hidden = false;
  for (const key of $$(".key")) key.hidden = true;
  filters.addEventListener("submit", event => event.preventDefault());
  filters.addEventListener("input", () => {
    const boxes = $$("[name=status]", filters), on = boxes.filter(box => box.checked), select = $("[name=value]", filters);
    const byDefault = select && select.value === select.querySelector("[selected]").value;
    write({ q: $("[name=q]", filters).value, status: on.length === boxes.length ? null : on.map(box => box.value).join(","), value: select && !byDefault ? select.value : "" });
    if (select && select.value !== painted) { painted = select.value; paint(painted); }
    apply();
  });
  $("#more").addEventListener("click", () => { shown += PAGE; list(); });
  dialog.addEventListener("close", () => {
    if (state.cell) write({ cell: "" });
    if (opener && opener.isConnected) opener.focus({ preventScroll: true });
  });
  dialog.addEventListener("click", event => { if (event.target === dialog) dialog.close(); });
  $(".close", dialog).addEventListener("click", () => dialog.close());
  window.addEventListener("hashchange", () => {
    if (location.hash.includes("=") || !location.hash) follow();  // Else it is a place on the page.
  });
  follow();
  document.documentElement.dataset.ready = "yes";
}
document.addEventListener("click", async event => {
  const link = event.target.closest("a[href^='#cell=']");
  if (link && state) {  // The filters stay in the address.
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
  } catch {  // From a file some browsers don't allow it: select it instead.
    getSelection().selectAllChildren(code);
    button.textContent = "Selected";
  }
});
start();
