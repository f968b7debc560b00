// A cell by itself.
function section(title, ...children) {
  return h("section", {}, h("h3", {}, title), ...children);
}
function facts(pairs) {
  return h(
    "dl",
    { class: "facts" },
    pairs
      .filter(([, value]) => value !== null && value !== undefined && value !== "")
      .map(([name, value]) => [h("dt", {}, name), h("dd", {}, value)]),
  );
}
function grid(heads, rows) {
  return h(
    "div",
    { class: "wide", tabindex: 0, role: "region", "aria-label": "figures" },
    h(
      "table",
      {},
      h(
        "thead",
        {},
        h(
          "tr",
          {},
          heads.map(head => h("th", { scope: "col" }, head)),
        ),
      ),
      h(
        "tbody",
        {},
        rows.map(([first, ...others]) =>
          h(
            "tr",
            {},
            h("th", { scope: "row" }, first),
            others.map(other => h("td", { class: "n" }, other)),
          ),
        ),
      ),
    ),
  );
}
function view(cell) {
  const repro = cell.detail.find(line => line.startsWith("kept by itself: "));
  const said = cell.diagnosis ? cell.diagnosis.sentence : "";
  const lines = cell.detail.filter(
    line => line !== repro && line !== said && !line.startsWith("alone: "),
  );
  const parts = [
    h(
      "p",
      {},
      h("span", { class: cell.status }, `${data.symbols[cell.status]} ${SHORT[cell.status]}`),
      cell.stage === "done" ? "" : ` at ${cell.stage}`,
      cell.symptom ? ` (${cell.symptom.replaceAll("_", " ")})` : "",
      h(
        "span",
        { class: "quiet" },
        ` · ${cell.model}${cell.about ? ` (${cell.about})` : ""} · ${cell.variant} on ${cell.provider}`,
      ),
    ),
    cell.reason && h("p", {}, cell.reason),
    lines.length > 0 && h("pre", { tabindex: 0 }, lines.join("\n")),
    facts([
      ["since when", cell.standing || "no earlier run of it is known"],
      ["machine", cell.ranOn],
      ["judge it alone", command(cell.alone)],
      ["write its model", cell.transform && command(cell.transform)],
      ["see its nodes", cell.graphView && command(cell.graphView)],
      ["repro folder", repro && h("code", {}, repro.slice(16))],
    ]),
    cell.diagnosis && diagnosis(cell.diagnosis, cell.parts),
    cell.notes.length > 0 &&
      section(
        "Notes",
        h(
          "ul",
          {},
          cell.notes.map(note => h("li", {}, note)),
        ),
      ),
    cell.accuracy && accuracy(cell),
    cell.latency && latency(cell),
    decoded(cell),
    nights(cell),
    slower(cell),
    cell.placement && placement(cell.placement),
    cell.graph && graph(cell.graph),
    coverage(cell),
    cell.sensitivity && sensitivity(cell.sensitivity),
    section(
      "About this verdict",
      facts([
        ["opset", cell.opset],
        ["model", cell.model_sha256 && h("code", {}, `sha256 ${cell.model_sha256}`)],
        [
          "seconds",
          Object.entries(cell.seconds)
            .map(([stage, value]) => `${stage} ${figure(value)}`)
            .join(", "),
        ],
      ]),
    ),
  ];
  return parts.filter(Boolean);
}
function diagnosis(record, parts) {
  const terms = { node: term("own", "node") };
  return section(
    "Cause",
    h(
      "p",
      {},
      h("b", {}, record.found ? "" : "Not found. "),
      record.sentence,
      " (",
      term("diagnosis"),
      `, ${figure(record.spent.seconds)} s)`,
    ),
    facts(parts.map(([title, text]) => [terms[title] || title, text])),
    record.evidence.length > 0 &&
      h(
        "details",
        {},
        h("summary", {}, `${record.evidence.length} trials`),
        h("pre", { tabindex: 0 }, record.evidence.join("\n")),
      ),
  );
}
const FEW_OUTPUTS = 3; // fit side by side, on a phone too
function accuracy(cell) {
  const outputs = Object.entries(cell.accuracy.outputs),
    said = value => (value === null ? "" : value ? "yes" : "no"),
    second = elsewhere(cell);
  const vacuous = outputs
    .filter(([, o]) => o.vacuous)
    .map(([name, o]) =>
      h(
        "p",
        { class: "caution" },
        `${name} ${o.vacuous}: `,
        term("vacuous", "comparing it could not have failed"),
      ),
    );
  const columns = [
    [term("departure"), o => o.departure || ""],
    [term("faithful"), o => said(o.faithful)],
    [term("usable"), o => said(o.usable)],
    [term("l2", "rel L2"), o => figure(o.rel_l2)],
    [term("floor"), o => figure(o.floor_rel_l2)],
    [term("ideal", "ideal"), o => figure(o.ideal_rel_l2)],
    [term("factor", "times"), o => (o.factor === null ? "" : `${figure(o.factor)}x`)],
    [term("minimum", "would pass at"), o => (o.minimum_tolerance === null ? "none" : figure(o.minimum_tolerance))],
    [term("rtol", "rtol"), o => figure(o.rtol)],
    [term("rtol", "atol"), o => figure(o.atol)],
    [term("greatest", "max abs"), o => figure(o.max_abs)],
    [term("greatest", "max rel"), o => figure(o.max_rel)],
    [term("cosine"), o => (o.cosine === null ? "" : o.cosine.toFixed(6))],
    [term("sqnr"), o => (o.sqnr_db === null ? "" : `${o.sqnr_db.toFixed(1)} dB`)],
    [term("nonfinite", "NaN/inf"), o => count(o.nonfinite)],
  ];
  if (second) {
    const of = (o, name) => second.outputs[name];
    columns.push([`rel L2, ${second.other}`, (o, name) => of(o, name) ? figure(of(o, name).rel_l2) : ""]);
    columns.push([`NaN/inf, ${second.other}`, (o, name) => of(o, name) ? count(of(o, name).nonfinite) : ""]);
  }
  const few = outputs.length <= FEW_OUTPUTS;
  const rows = few
    ? columns.map(([head, text]) => [head, ...outputs.map(([name, o]) => text(o, name))])
    : outputs.map(([name, o]) => [name, ...columns.map(([, text]) => text(o, name))]);
  const heads = few
    ? ["output", ...outputs.map(([name]) => name)]
    : ["output", ...columns.map(([head]) => head)];
  return section("Accuracy", vacuous, errors(outputs, second), grid(heads, rows), histograms(outputs));
}
// Where a provider computes float16 in float32 there are two sets of errors: the verdict's, and these.
function elsewhere(cell) {
  const same = record => JSON.stringify(record.outputs) === JSON.stringify(cell.accuracy.outputs);
  const simulated = cell.accuracy_simulated,
    emulated = cell.accuracy_emulated;
  if (simulated && !same(simulated))
    return { by: "this provider's float32", other: SIMULATED, outputs: simulated.outputs };
  if (emulated && !same(emulated))
    return { by: SIMULATED, other: "this provider's float32", outputs: emulated.outputs };
  return null;
}
function latency(cell) {
  const l = cell.latency;
  return section(
    "Latency",
    facts([
      [term("speedup"), cell.texts.speedup],
      [
        "median",
        `${milliseconds(l.median_ms)} (${"baseline"} ${milliseconds(l.baseline_median_ms)})`,
      ],
      ["p90, p99", [l.p90_ms, l.p99_ms].map(milliseconds).join(", ")],
      ["session, first run", `${milliseconds(l.session_ms)}, ${milliseconds(l.first_run_ms)}`],
      ["threads", l.threads],
      ["how it was taken", cell.timing],
    ]),
    ratios(l),
  );
}
function nights(cell) {
  const drawn = $$("svg.trend").find(plot => plot.dataset.cell === cell.id && !dialog.contains(plot));
  if (!drawn) return null;
  const copy = drawn.cloneNode(true);
  copy.style.maxWidth = "520px";
  return section("Nights", copy);
}
function placement(p) {
  const nodes = Object.entries(p.nodes),
    total = nodes.reduce((sum, [, number]) => sum + number, 0);
  const own = ([name]) => (name === p.requested ? 0 : 1);
  nodes.sort((a, b) => own(a) - own(b));
  return section(
    "Placement",
    total > 0 &&
      h(
        "div",
        { class: "bars", "aria-hidden": "true" },
        nodes.map(([, number]) => h("span", { style: `width:${(number / total) * 100}%` })),
      ),
    facts([
      [
        term("placement", "nodes by provider"),
        nodes.map(([name, number]) => `${count(number)} on ${name}`).join(", "),
      ],
      ["share", percent(p.share)],
      ["share of the time", p.time_share === null ? "" : percent(p.time_share)],
      [
        "ran after fusion",
        Object.entries(p.executed)
          .map(([name, number]) => `${count(number)} on ${name}`)
          .join(", "),
      ],
      [
        "float arithmetic",
        Object.entries(p.arithmetic)
          .map(([kind, number]) => `${count(number)} in ${kind}`)
          .join(", "),
      ],
      [
        p.precision === "emulated" || p.precision === "mixed"
          ? term("emulated", "computed in")
          : "computed in",
        p.precision,
      ],
      ["copies between memories", p.memcpy ? count(p.memcpy) : ""],
      ["Casts inserted", p.inserted_casts ? count(p.inserted_casts) : ""],
    ]),
    Object.keys(p.off_provider_ops).length > 0 &&
      grid(
        ["operator elsewhere", "nodes"],
        Object.entries(p.off_provider_ops)
          .sort((a, b) => b[1] - a[1])
          .map(([op, number]) => [op, count(number)]),
      ),
    assigned(p.operators || {}),
  );
}
// One column for each provider; those that run most nodes come first.
function assigned(operators) {
  const names = Object.keys(operators);
  const all = [...new Set(names.flatMap(name => Object.keys(operators[name])))];
  if (!all.length) return null;
  const number = (name, op) => operators[name][op] || 0;
  const total = op => names.reduce((sum, name) => sum + number(name, op), 0);
  all.sort((a, b) => total(b) - total(a));
  return h(
    "details",
    { open: names.length > 1 },
    h("summary", {}, "nodes by operator and provider"),
    grid(
      ["operator", ...names],
      all.map(op => [op, ...names.map(name => (number(name, op) ? count(number(name, op)) : ""))]),
    ),
  );
}
function sensitivity(record) {
  return section(
    "Sensitivity",
    facts([
      [term("sensitivity"), record.score === null ? "nothing to catch" : percent(record.score)],
      [
        "faults",
        `${count(record.planted)} planted, ${count(record.caught)} caught, ${count(record.equivalent)} change nothing`,
      ],
      [
        "smallest weight change caught",
        record.smallest_change === null
          ? "none"
          : `${percent(record.smallest_change)} of ${record.smallest_change_of || "a weight"}`,
      ],
    ]),
    record.missed.length > 0 &&
      h(
        "details",
        {},
        h("summary", {}, `${record.missed.length} missed`),
        h(
          "ul",
          {},
          record.missed.map(line => h("li", {}, line)),
        ),
      ),
    Object.keys(record.kinds).length > 0 &&
      h(
        "details",
        {},
        h("summary", {}, "by kind of fault"),
        grid(
          ["fault", "planted", "caught", "change nothing"],
          Object.entries(record.kinds).map(([kind, k]) => [
            kind,
            k.planted,
            k.caught,
            k.equivalent,
          ]),
        ),
      ),
  );
}
