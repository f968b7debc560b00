// The plots of a cell: errors on a logarithmic axis, and the pairs of sessions.
// As wide as the screen, so that letters on a phone are as large as on a desk.
const plotWidth = () => Math.max(320, Math.min(680, document.documentElement.clientWidth - 26));

function logAxis(values, left, width) {
  const low = Math.floor(Math.log10(Math.min(...values)) - 0.15),
    high = Math.ceil(Math.log10(Math.max(...values)) + 0.15);
  const at = value => left + ((Math.log10(value) - low) / (high - low)) * width;
  const step = Math.max(1, Math.ceil(((high - low) * 70) / width)),
    ticks = [];
  for (let exponent = low; exponent <= high; exponent += step) ticks.push(10 ** exponent);
  return { at, ticks };
}

const SIMULATED = "simulated float16";
const called = words => (words === SIMULATED ? term("simulated", words) : words);
function errors(outputs, second) {
  const entries = outputs
    .slice(0, 40)
    .map(([name, o]) => ({
      name,
      error: o.rel_l2,
      second: second && second.outputs[name] ? second.outputs[name].rel_l2 : null,
      floor: o.floor_rel_l2,
      ideal: o.ideal_rel_l2,
      allowed: o.factor > 0 && o.rel_l2 > 0 ? (o.rel_l2 / o.factor) * data.faithful : null,
      needs: o.minimum_tolerance,
      bound: o.rtol,
    }));
  const values = entries
    .flatMap(e => [e.error, e.second, e.floor, e.ideal, e.allowed, e.needs, e.bound])
    .filter(value => value > 0);
  if (!values.length) return null;
  const width = plotWidth(),
    narrow = width < 500,
    left = narrow ? 74 : 150,
    letters = narrow ? 10 : 22,
    rowHeight = 40,
    { at, ticks } = logAxis(values, left, width - left - 20);
  const height = entries.length * rowHeight + 24;
  const mark = (value, make) => (value > 0 ? make(at(value)) : null);
  const rows = entries.map((e, place) => {
    const one = place * rowHeight + 12,
      two = one + 15;
    return s(
      "g",
      {},
      s("title", {}, e.name),
      s("text", { x: 0, y: one + 4 }, e.name.length > letters ? `${e.name.slice(0, letters - 1)}…` : e.name),
      s(
        "text",
        { x: left - 6, y: two + 4, "text-anchor": "end", class: "tick" },
        narrow ? "needs" : "needs / tolerance",
      ),
      s("line", { class: "row", x1: left, x2: width - 20, y1: one, y2: one }),
      s("line", { class: "row", x1: left, x2: width - 20, y1: two, y2: two }),
      mark(e.allowed, x =>
        s(
          "line",
          { class: "bound", x1: x, x2: x, y1: one - 7, y2: one + 7 },
          s("title", {}, `faithful up to ${figure(e.allowed)}`),
        ),
      ),
      mark(e.floor, x =>
        s(
          "circle",
          { class: "floor-mark", cx: x, cy: one, r: 4.5 },
          s("title", {}, `noise floor ${figure(e.floor)}`),
        ),
      ),
      mark(e.ideal, x =>
        s(
          "path",
          { class: "ideal-mark", d: `M${x - 5} ${one + 4}L${x} ${one - 5}L${x + 5} ${one + 4}Z` },
          s("title", {}, `ideal conversion ${figure(e.ideal)}`),
        ),
      ),
      mark(e.second, x =>
        s(
          "path",
          { class: "second-mark", d: `M${x - 5} ${one}L${x} ${one - 5}L${x + 5} ${one}L${x} ${one + 5}Z` },
          s("title", {}, `${second.other}: ${figure(e.second)}`),
        ),
      ),
      mark(e.error, x =>
        s(
          "circle",
          { class: "error-mark", cx: x, cy: one, r: 3.5 },
          s("title", {}, `${second ? second.by : "error"} ${figure(e.error)}`),
        ),
      ),
      mark(e.bound, x =>
        s(
          "line",
          { class: "bound", x1: x, x2: x, y1: two - 7, y2: two + 7 },
          s("title", {}, `tolerance ${figure(e.bound)}`),
        ),
      ),
      mark(e.needs, x =>
        s(
          "rect",
          { class: "error-mark", x: x - 3.5, y: two - 3.5, width: 7, height: 7 },
          s("title", {}, `would pass at ${figure(e.needs)}`),
        ),
      ),
    );
  });
  return [
    h(
      "p",
      { class: "quiet" },
      second ? ["● ", called(second.by), ", ◇ ", called(second.other), ", ○ "] : "● error and ○ ",
      term("floor"),
      ", △ ",
      term("ideal"),
      " as ",
      term("l2", "relative L2 errors"),
      "; ■ the smallest ",
      term("tolerance", "tolerance"),
      " that would pass; dashed: the bound of each. Logarithmic.",
    ),
    h(
      "div",
      { class: "wide", tabindex: 0, role: "region", "aria-label": "errors" },
      s(
        "svg",
        {
          viewBox: `0 0 ${width} ${height}`,
          role: "img",
          "aria-label": "errors of each output; the table has the figures",
        },
        ticks.map(tick => [
          s("line", { class: "row", x1: at(tick), x2: at(tick), y1: 2, y2: height - 20 }),
          s(
            "text",
            { class: "tick", x: at(tick), y: height - 6, "text-anchor": "middle" },
            tick.toExponential(0),
          ),
        ]),
        rows,
      ),
    ),
  ];
}

function ratios(l) {
  if (!l.log_ratios || l.log_ratios.length < 2) return null;
  const width = plotWidth(),
    left = 20,
    room = width - 40,
    values = l.log_ratios,
    ends = (l.speedup_ci95 || []).map(Math.log);
  const low = Math.min(0, ...values, ...ends),
    high = Math.max(0, ...values, ...ends),
    pad = (high - low) * 0.06 + 1e-4;
  const at = value => left + ((value - low + pad) / (high - low + 2 * pad)) * room,
    axis = 52;
  const marks = [...new Set([low, 0, high])].filter(
    (value, place, all) => value === 0 || Math.abs(at(value) - at(0)) > 45,
  );
  return [
    h(
      "p",
      { class: "quiet" },
      `The ${values.length} `,
      term("pairs"),
      ", a dot each; the bar is the 95% interval, the dashed line 1x.",
    ),
    h(
      "div",
      { class: "wide", tabindex: 0, role: "region", "aria-label": "pairs" },
      s(
        "svg",
        {
          viewBox: `0 0 ${width} 72`,
          role: "img",
          "aria-label": `speedup of ${values.length} pairs`,
        },
        s("line", { class: "axis", x1: left, x2: width - 20, y1: axis, y2: axis }),
        s("line", { class: "one", x1: at(0), x2: at(0), y1: 4, y2: axis }),
        ends.length === 2 &&
          s("line", {
            class: "span",
            x1: at(ends[0]),
            x2: at(ends[1]),
            y1: 28,
            y2: 28,
            "stroke-width": 3,
          }),
        values.map((value, place) =>
          s(
            "circle",
            { class: "best", cx: at(value), cy: 14 + ((place * 7) % 28), r: 3.2, opacity: 0.75 },
            s("title", {}, `${Math.exp(value).toFixed(3)}x`),
          ),
        ),
        marks.map(value =>
          s(
            "text",
            { class: "tick", x: at(value), y: axis + 14, "text-anchor": "middle" },
            `${Math.exp(value).toFixed(2)}x`,
          ),
        ),
      ),
    ),
  ];
}
