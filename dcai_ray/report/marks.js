// Marks: what a person decides, one at a time or over a selection, with undo and download.
// They live in the page alone; leaving it with marks that were not downloaded asks first.
const marks = new Map(); // suspect -> {decision, label, at, note}
const selected = new Set();
const past = []; // what each step replaced: [[suspect, mark or undefined], ...]
let saved = true;

const words = (i) => {
  const { decision, label } = marks.get(i);
  return decision === "relabel" ? `relabel: ${className(label)}` : decision;
};

function tell() {
  const parts = [`${number(listed.length)} of ${number(count)} listed`];
  if (selected.size) parts.push(`${number(selected.size)} selected`);
  if (marks.size) parts.push(`${number(marks.size)} marked`);
  $("status").textContent = parts.join(", ");
  $("undo").disabled = !past.length;
  $("download").disabled = !marks.size;
}

function select(i, chosen) {
  if (chosen) selected.add(i);
  else selected.delete(i);
  const item = document.querySelector(`#cards li[data-i="${i}"]`);
  if (item) {
    item.classList.toggle("chosen", chosen);
    item.querySelector("input").checked = chosen;
  }
  tell();
}

/** Mark suspects as one step; relabelling takes the label chosen, else the suggested one. */
function mark(decision, targets, label = $("label").value) {
  const at = new Date().toISOString();
  const step = [];
  for (const i of targets) {
    const to = decision !== "relabel" ? -1 : label === "" ? c.suggested[i] : Number(label);
    if (decision === "relabel" && (to < 0 || to === c.label[i])) continue;
    step.push([i, marks.get(i)]);
    marks.set(i, { decision, label: to, at, note: (marks.get(i) || { note: "" }).note });
  }
  const skipped = targets.length - step.length;
  if (step.length) past.push(step);
  changed();
  if (skipped) $("status").textContent += `; ${skipped} not relabelled: choose a new label`;
}

function undo() {
  for (const [i, old] of past.pop() || []) {
    if (old) marks.set(i, old);
    else marks.delete(i);
  }
  changed();
}

/** Draw the marks again, and keep the focus where it was. */
function changed() {
  saved = !marks.size;
  const at = document.activeElement.closest("#cards li");
  draw();
  if (at) focusCard(at.dataset.i);
}

function focusCard(i) {
  const button = document.querySelector(`#cards li[data-i="${i}"] .card`);
  if (button) button.focus();
}

const quoted = (text) => `"${String(text).replaceAll('"', '""')}"`;

function csv() {
  const by = $("by").value;
  const rows = [...marks].sort(([i], [j]) => i - j).map(([i, { decision, label, at, note }]) =>
    [c.id[i], "train", className(c.label[i]), decision, label < 0 ? "" : className(label), by, at, note]
      .map(quoted).join(","),
  );
  return ["id,split,given_label,decision,label,by,at,note", ...rows].join("\r\n") + "\r\n";
}

function download() {
  const href = URL.createObjectURL(new Blob([csv()], { type: "text/csv" }));
  make("a", { href, download: "decisions.csv" }).click();
  setTimeout(() => URL.revokeObjectURL(href), 1000);
  saved = true;
}

/** Neighbours of one pool, as pictures where the page carries them. */
function neighbours(split, title, i) {
  const found = near(split, i);
  if (!found) return [];
  const item = ([label, cell]) =>
    make("li", {}, cell < 0 ? null : picture("neighbours", cell, `labelled ${className(label)}`), className(label));
  return [make("p", { className: "note" }, title), make("ul", { className: "near" }, ...found.first.map(item))];
}

function open(i) {
  const step = (by) => {
    const next = listed[listed.indexOf(i) + by];
    if (next !== undefined) open(next);
  };
  const button = (text, action) => {
    const element = make("button", { type: "button" }, text);
    element.addEventListener("click", action);
    return element;
  };
  const note = make("input", { value: (marks.get(i) || { note: "" }).note });
  note.addEventListener("change", () => {
    if (!marks.has(i)) mark("unsure", [i]);
    marks.get(i).note = note.value;
    saved = false;
  });
  const set = (decision) => () => {
    mark(decision, [i]);
    open(i);
  };
  const title = make("h3", { id: "detail-title" }, c.path[i]);
  const large = i < data.pictured ? picture("suspects", i, c.path[i], "large") : null;
  const dialog = $("detail");
  dialog.replaceChildren(
    title,
    ...(large ? [large] : []),
    make("p", {}, make("b", {}, `labelled ${className(c.label[i])}`), ` ${marks.has(i) ? `· marked ${words(i)}` : ""}`),
    make("ul", {}, ...evidence(i).map((text) => make("li", {}, text))),
    ...neighbours("train", `Nearest training ${data.unit}, with their labels:`, i),
    ...neighbours("shapley_val", `Nearest clean ${data.unit}, with their labels:`, i),
    make(
      "div", { className: "bar" },
      button("Keep", set("keep")), button("Drop", set("drop")),
      button("Relabel", set("relabel")), button("Unsure", set("unsure")),
      make("label", {}, "note", note),
      button("Previous", () => step(-1)), button("Next", () => step(1)),
      button("Close", () => dialog.close()),
    ),
  );
  dialog.dataset.i = i;
  if (!dialog.open) dialog.showModal();
}

const KEYS = { k: "keep", d: "drop", r: "relabel", u: "unsure" };
function key(event) {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.target.matches("input:not([type=checkbox]), select")) return;
  const shown = $("detail").open;
  const item = event.target.closest("#cards li");
  const i = shown ? Number($("detail").dataset.i) : item ? Number(item.dataset.i) : -1;
  if (event.key === "z") undo();
  else if (i < 0) return;
  else if (event.key in KEYS) mark(KEYS[event.key], [i]);
  else if (event.key === "x") select(i, !selected.has(i));
  else if (!shown && event.key.startsWith("Arrow")) move(item, event.key);
  else if (shown && event.key === "ArrowRight") open(listed[Math.min(listed.indexOf(i) + 1, listed.length - 1)]);
  else if (shown && event.key === "ArrowLeft") open(listed[Math.max(listed.indexOf(i) - 1, 0)]);
  else return;
  if (shown && (event.key in KEYS || event.key === "z")) open(i);
  event.preventDefault();
}

function move(item, name) {
  const items = [...$("cards").children];
  const columns = items.filter((other) => other.offsetTop === items[0].offsetTop).length;
  const by = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -columns, ArrowDown: columns }[name];
  const to = items[items.indexOf(item) + by];
  if (to) to.querySelector(".card").focus();
}

for (const button of document.querySelectorAll("[data-mark]")) {
  button.addEventListener("click", () => mark(button.dataset.mark, [...selected]));
}
$("all").addEventListener("click", () => {
  for (const i of listed) selected.add(i);
  draw();
});
$("none").addEventListener("click", () => {
  selected.clear();
  draw();
});
$("undo").addEventListener("click", undo);
$("download").addEventListener("click", download);
$("detail").addEventListener("close", () => focusCard($("detail").dataset.i));
document.addEventListener("keydown", key);
addEventListener("beforeunload", (event) => {
  if (!saved) event.preventDefault();
});
start();
