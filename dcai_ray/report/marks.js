// Marks: what a person decides, one at a time or over a selection, with undo and download.
// They live in the page alone; leaving it with marks that were not downloaded asks first.
const marks = new Map(data.marks); // suspect -> {decision, label, at, note}
const selected = new Set();
const past = []; // what each step replaced: [[suspect, mark or undefined], ...]
let downloaded = true;
let isSaved = () => downloaded;
let record = () => {}; // what a server does with decisions as they are made

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
  record(step.map(([i]) => row(i)));
  changed();
  if (skipped) $("status").textContent += `; ${skipped} not relabelled: choose a new label`;
}

function undo() {
  const step = past.pop() || [];
  const at = new Date().toISOString();
  record(step.map(([i]) => ({ ...row(i), decision: "undo", label: "", at })));
  for (const [i, old] of step) {
    if (old) marks.set(i, old);
    else marks.delete(i);
  }
  changed();
  return step.map(([i]) => i);
}

/** Draw the marks again, and keep the focus where it was. */
function changed() {
  downloaded = !marks.size;
  const at = document.activeElement.closest("#cards li");
  draw();
  if (at) focusCard(at.dataset.i);
}

function focusCard(i) {
  const button = document.querySelector(`#cards li[data-i="${i}"] .card`);
  if (button) button.focus();
}

const quoted = (text) => `"${String(text).replaceAll('"', '""')}"`;

/** A mark as a record of what was decided. */
function row(i) {
  const { decision, label, at, note } = marks.get(i);
  return { id: c.id[i], given_label: className(c.label[i]), decision, label: label < 0 ? "" : className(label), at, note };
}

function csv() {
  const by = $("by").value;
  const rows = [...marks.keys()].sort((i, j) => i - j).map(row).map((r) =>
    [r.id, "train", r.given_label, r.decision, r.label, by, r.at, r.note].map(quoted).join(","),
  );
  return ["id,split,given_label,decision,label,by,at,note", ...rows].join("\r\n") + "\r\n";
}

function download() {
  const href = URL.createObjectURL(new Blob([csv()], { type: "text/csv" }));
  make("a", { href, download: "decisions.csv" }).click();
  setTimeout(() => URL.revokeObjectURL(href), 1000);
  downloaded = true;
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
    const old = marks.get(i);
    past.push([[i, old]]);
    marks.set(i, { decision: "unsure", label: -1, ...old, at: new Date().toISOString(), note: note.value });
    record([row(i)]);
    changed();
  });
  const set = (decision) => () => {
    mark(decision, [i]);
    open(i);
  };
  const title = make("h3", { id: "detail-title", tabIndex: -1 }, c.path[i]);
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
  title.focus();
}

const after = (i) => listed[Math.min(listed.indexOf(i) + 1, listed.length - 1)];
const isClass = (key) => /^[1-9]$/.test(key) && Number(key) <= data.classes.length;

/** Give a suspect a class; its own one keeps it. */
function markClass(k, i) {
  if (k === c.label[i]) mark("keep", [i]);
  else mark("relabel", [i], String(k));
}

const KEYS = { k: "keep", d: "drop", r: "relabel", u: "unsure" };
function key(event) {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.target.matches("input:not([type=checkbox]), select")) return;
  const shown = $("detail").open;
  const item = event.target.closest("#cards li");
  let undone;
  const i = shown ? Number($("detail").dataset.i) : item ? Number(item.dataset.i) : -1;
  if (event.key === "z") [undone] = undo();
  else if (i < 0) return;
  else if (event.key in KEYS) mark(KEYS[event.key], [i]);
  else if (isClass(event.key)) markClass(Number(event.key) - 1, i);
  else if (event.key === "x") select(i, !selected.has(i));
  else if (!shown && event.key.startsWith("Arrow")) move(item, event.key);
  else if (shown && (event.key === "ArrowRight" || (event.key === " " && !event.target.matches("button")))) open(after(i));
  else if (shown && event.key === "ArrowLeft") open(listed[Math.max(listed.indexOf(i) - 1, 0)]);
  else return;
  const decided = event.key in KEYS || isClass(event.key);
  if (shown && decided) open(data.server ? after(i) : i);
  if (shown && event.key === "z") open(undone ?? i);
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
  if (!isSaved()) event.preventDefault();
});
start();
