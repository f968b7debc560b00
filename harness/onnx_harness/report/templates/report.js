"use strict";
const filters = document.getElementById("filters");
const bodies = [...document.querySelectorAll("#cells tbody")].map(body => ({
  body, rows: [...body.querySelectorAll("tr[data-status]")].map(row => ({
    row, status: row.dataset.status, text: (row.dataset.model + " " + row.textContent).toLowerCase() })) }));
function apply() {
  const words = filters.querySelector("input[type=search]").value.toLowerCase().split(/\s+/).filter(Boolean);
  const wanted = new Set([...filters.querySelectorAll("input:checked")].map(box => box.value));
  let shown = 0, total = 0;
  for (const { body, rows } of bodies) {
    let any = false;
    for (const { row, status, text } of rows) {
      const keep = wanted.has(status) && words.every(word => text.includes(word));
      row.hidden = !keep;
      any ||= keep;
      shown += keep;
      total += 1;
    }
    body.hidden = !any;
  }
  filters.querySelector("output").textContent = shown === total ? "" : `${shown} of ${total} cells`;
}
filters.hidden = false;
filters.addEventListener("input", apply);
filters.addEventListener("submit", event => event.preventDefault());
apply();
