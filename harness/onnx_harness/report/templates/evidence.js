// What the inputs reach, what the steps did to the graph, which operators got slower.
function coverage(cell) {
  const record = cell.coverage;
  const reached = record
    ? Object.entries(record.kinds).map(([kind, k]) => [kind, `${count(k.reached)} of ${count(k.total)}`])
    : [];
  const notes = record ? record.notes : [];
  if (!cell.accuracy && !reached.length && !notes.length) return null;
  return section(
    "Inputs",
    facts([["input sets", cell.accuracy && count(cell.accuracy.input_sets)]]),
    reached.length > 0 && h("p", { class: "quiet" }, term("coverage", "What they reach"), ", of what the model decides by:"),
    reached.length > 0 && facts(reached),
    notes.length > 0 && h("ul", {}, notes.map(note => h("li", {}, note))),
  );
}

function decoded(cell) {
  return cell.decoded && section("Greedy decoding", facts(Object.entries(cell.decoded)));
}

function graph(g) {
  const change = (before, after) => (before ? ` (${percent(after / before)})` : "");
  const before = g.operators_before || {},
    after = g.operators_after || {};
  const names = [...new Set([...Object.keys(before), ...Object.keys(after)])];
  const rows = names.map(name => [name, before[name] || 0, after[name] || 0]);
  const moved = rows.filter(([, a, b]) => a !== b).sort((x, y) => Math.abs(y[2] - y[1]) - Math.abs(x[2] - x[1]));
  const same = rows.filter(([, a, b]) => a === b);
  const signed = value => (value > 0 ? `+${count(value)}` : `−${count(-value)}`);
  const table = list =>
    grid(
      ["operator", "before", "after", "change"],
      list.map(([name, a, b]) => [name, count(a), count(b), a === b ? "" : signed(b - a)]),
    );
  return section(
    "Graph",
    grid(
      ["", "before", "after"],
      [
        ["nodes", count(g.nodes_before), count(g.nodes_after) + change(g.nodes_before, g.nodes_after)],
        ["size", bytes(g.bytes_before), bytes(g.bytes_after) + change(g.bytes_before, g.bytes_after)],
      ],
    ),
    g.changes && g.changes.length > 0 && h("ul", {}, g.changes.map(line => h("li", {}, line))),
    moved.length > 0 && table(moved),
    same.length > 0 &&
      h(
        "details",
        {},
        h("summary", {}, `${moved.length ? "unchanged: " : ""}${count(same.length)} operator${same.length === 1 ? "" : "s"}`),
        table(same),
      ),
    g.transform_seconds > 0 && h("p", { class: "quiet" }, `transformed in ${figure(g.transform_seconds)} s`),
  );
}

function slower(cell) {
  const record = cell.pinned && cell.pinned.operators;
  if (!record) return null;
  const rows = record.slower.map(o => [
    o.name,
    o.op_type,
    milliseconds(o.before_ms),
    milliseconds(o.after_ms),
    o.ratio_ci95 ? `[${o.ratio_ci95.map(end => `${end.toFixed(2)}x`).join(", ")}]` : "",
    percent(o.share),
  ]);
  return section(
    "Slower operators",
    record.reason && h("p", {}, record.reason),
    !record.reason && !rows.length && h("p", {}, "No operator stands out."),
    rows.length > 0 && h("p", { class: "quiet" }, term("slower", "Each node"), ` in ${count(record.pairs)} pairs of sessions.`),
    rows.length > 0 && grid(["node", "operator", "accepted", "now", "time, 95%", "of the slowdown"], rows),
  );
}

// How many elements have which error, of what is allowed to them. One bar for each factor of two.
const MOST_HISTOGRAMS = 6;
function histograms(outputs) {
  const drawn = outputs.filter(([, o]) => o.errors && o.errors.counts.length > 0);
  if (!drawn.length)
    return data.cells.length > data.histograms
      ? h("p", { class: "quiet" }, `No histogram of errors is drawn in a run of over ${count(data.histograms)} cells; results.json has its figures.`)
      : null;
  return [
    h(
      "p",
      { class: "quiet" },
      "How many elements have which error, of what the ",
      term("tolerance", "tolerance"),
      " allows to each; dashed is the tolerance. Both axes are logarithmic.",
    ),
    h("div", { class: "plots" }, drawn.slice(0, MOST_HISTOGRAMS).map(([name, o]) => histogram(name, o.errors))),
    drawn.length > MOST_HISTOGRAMS && h("p", { class: "quiet" }, `${count(drawn.length - MOST_HISTOGRAMS)} more outputs aren't drawn.`),
  ];
}
function histogram(name, errors) {
  const { equal, total, beyond } = errors;
  const bins = errors.counts.map((number, place) => [errors.low + place, number]).filter(([, number]) => number > 0);
  const width = 340, left = 12, top = 8, floor = 104;
  const low = Math.max(-40, Math.min(-4, ...bins.map(([k]) => k))),
    high = Math.min(40, Math.max(2, ...bins.map(([k]) => k + 1)));
  const at = k => left + ((Math.min(Math.max(k, low), high) - low) / (high - low)) * (width - 2 * left);
  const most = Math.log10(1 + Math.max(...bins.map(([, number]) => number)));
  const ticks = [];
  const step = Math.max(1, Math.ceil((high - low) / 3.32 / 5));
  for (let e = Math.floor(high / 3.3219); e * 3.3219 >= low; e -= step) ticks.push(e);
  return h(
    "figure",
    {},
    h("figcaption", {}, name, h("span", { class: "quiet" }, ` ${count(equal)} of ${count(total)} exact${beyond ? `, ${count(beyond)} beyond the tolerance` : ""}`)),
    s(
      "svg",
      { viewBox: `0 0 ${width} 126`, role: "img", "aria-label": `errors of the elements of ${name}` },
      s("line", { class: "axis", x1: left, x2: width - left, y1: floor, y2: floor }),
      bins.map(([k, number]) => {
        const tall = Math.max(2, (Math.log10(1 + number) / most) * (floor - top));
        return s(
          "rect",
          { class: k >= 0 ? "bar beyond" : "bar", x: at(k) + 0.5, y: floor - tall, width: Math.max(1, at(k + 1) - at(k) - 1), height: tall },
          s("title", {}, `${count(number)} elements: ${figure(2 ** k)} to ${figure(2 ** (k + 1))} of the tolerance`),
        );
      }),
      s("line", { class: "bound", x1: at(0), x2: at(0), y1: top, y2: floor }),
      ticks.map(e => s("text", { class: "tick", x: at(e * 3.3219), y: 118, "text-anchor": "middle" }, e === 0 ? "1" : `1e${e}`)),
    ),
  );
}
