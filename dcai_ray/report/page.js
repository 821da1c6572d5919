"use strict";
// The gallery: filters, sorts and draws a page of suspects at a time from the data in the page.
// Texts from the data reach the page through textContent alone, so that no name becomes markup.
const $ = (id) => document.getElementById(id);
const data = JSON.parse($("data").textContent);
const c = data.columns;
const count = c.id.length;
const PER_PAGE = 60;
const SHEET = 100; // pictures of a sheet, in rows of ten
const state = { sort: "rank", class: "", pair: "", tier: "", decision: "", show: "", page: 0 };
let listed = [];

/** An element with texts and elements as children. */
function make(tag, properties, ...children) {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children.filter((child) => child !== null && child !== ""));
  return element;
}
const className = (i) => (i < 0 ? "another class" : data.classes[i]);
const percent = (p) => (p > 0.995 ? ">99 %" : p < 0.005 ? "<1 %" : `${Math.round(100 * p)} %`);
const pairOf = (i) => `${c.label[i]},${c.suggested[i]}`;
const number = (x) => Number(x).toLocaleString("en-US");

// --- pictures ---
const sheets = new Map();
function sheet(name) {
  if (!sheets.has(name)) {
    const image = new Image();
    image.src = "data:image/jpeg;base64," + $(name).textContent;
    sheets.set(name, image.decode().then(() => image));
  }
  return sheets.get(name);
}

/** A canvas with a picture, drawn once its sheet is decoded. */
function picture(kind, i, alt, style) {
  if (style === "large" && (data.server || i < data.sheets.large.sizes.length)) kind = style;
  if (data.server) return served(kind, i, alt, style);
  const { side, sizes } = data.sheets[kind];
  const [width, height] = sizes[i];
  if (!width) return make("span", { className: "gone" }, "image can no longer be read");
  const canvas = make("canvas", { width, height, className: style || "" });
  canvas.setAttribute("role", "img");
  canvas.setAttribute("aria-label", alt);
  const [x, y] = [(i % 10) * side, Math.floor((i % SHEET) / 10) * side];
  sheet(`${kind}-${Math.floor(i / SHEET)}`).then((image) =>
    canvas.getContext("2d").drawImage(image, x, y, width, height, 0, 0, width, height),
  );
  return canvas;
}

/** A picture that a server has. */
function served(kind, i, alt, style) {
  const image = make("img", { src: `pictures/${kind}/${i}`, alt, className: style || "", loading: "lazy" });
  // A tiny picture does not get clearer, and its neighbours should be on the screen.
  if (kind === "large") image.addEventListener("load", () => {
    image.style.maxHeight = `min(60vh, ${Math.min(640, 8 * image.naturalHeight)}px)`;
  });
  image.addEventListener("error", () => {
    image.replaceWith(make("span", { className: "gone" }, "image can no longer be read"));
  });
  return image;
}

// --- evidence in words ---
const near = (split, i) => (data.near[split] || [])[i];

/** "8 of 10 nearest are cat, 1 dog": of the suggested, the given and the commonest label. */
function votes(split, i) {
  const { votes: found } = near(split, i);
  const all = found.reduce((sum, [, n]) => sum + n, 0);
  const of = (label) => (found.find(([name]) => name === label) || [0, 0])[1];
  const first = c.suggested[i] >= 0 ? c.suggested[i] : c.label[i];
  const others = [...new Set([found[0][0], c.label[i]])].filter((k) => k !== first && of(k));
  const said = [`${of(first)} of ${all} nearest are ${className(first)}`];
  return [...said, ...others.map((k) => `${of(k)} ${className(k)}`)].join(", ");
}

/** The one sentence of a card; it says so where the neighbours are against the suggestion. */
function why(i) {
  if (c.conflict[i]) return c.conflict[i];
  const { votes: found } = near("train", i) || { votes: [] };
  const all = found.reduce((sum, [, n]) => sum + n, 0);
  const backed = found.some(([k, n]) => k === c.suggested[i] && n === found[0][1]);
  if (all && c.suggested[i] >= 0 && !backed) {
    const most = `${found[0][1]} of ${all} nearest are ${className(found[0][0])}`;
    return `a classifier says ${className(c.suggested[i])}, though ${most}`;
  }
  if (near("train", i)) return votes("train", i) + `; labelled ${className(c.label[i])}`;
  return c.reason[i];
}

/** Each piece of evidence as a sentence. */
function evidence(i) {
  const said = [];
  const label = className(c.label[i]);
  if (c.suggested[i] >= 0) {
    const sure = c.likelihood[i] === null ? "" : ` (${percent(c.likelihood[i])})`;
    const agrees = c.suggested[i] === c.label[i] ? ", as it is labelled" : `, not ${label}`;
    said.push(`A classifier that has not seen it says ${className(c.suggested[i])}${sure}${agrees}.`);
  }
  if (near("train", i)) said.push(`Training ${data.unit}: ${votes("train", i)}.`);
  if (near("shapley_val", i)) said.push(`Clean ${data.unit}: ${votes("shapley_val", i)}.`);
  if (c.wrong[i] !== null) said.push(`The label is wrong with a probability of ${percent(c.wrong[i])}.`);
  const effect = c.value[i] < 0 ? "it lowers the score" : "it does not lower the score";
  const spread = c.stderr[i] === null ? "" : ` ± ${c.stderr[i].toPrecision(1)}`;
  said.push(`Its value is ${c.value[i].toPrecision(2)}${spread}: on average, ${effect} on the validation ${data.unit}.`);
  if (disagrees(i)) said.push("Value and probability disagree.");
  if (c.conflict[i]) said.push(`Copy under another label: ${c.conflict[i]}.`);
  else if (c.copied[i]) said.push("The same picture occurs more than once.");
  if (c.tier[i]) said.push(`Tier: ${c.tier[i]}.`);
  said.push(`The rule's decision: ${c.decision[i]}${c.reason[i] ? `, ${c.reason[i]}` : ""}.`);
  if (c.truth[i]) said.push(`The true label is ${c.truth[i]}.`);
  return said;
}
const disagrees = (i) => c.wrong[i] !== null && c.wrong[i] > 0.5 !== c.value[i] < 0;

// --- filter and sort ---
const gain = (i) => (c.wrong[i] ?? c.likelihood[i] ?? 1) * -c.value[i];
const certainty = (i) => c.likelihood[i] ?? -1;
const SORTS = {
  rank: ["most suspicious", (i, j) => i - j],
  wrong: ["P(wrong)", (i, j) => (c.wrong[j] ?? -1) - (c.wrong[i] ?? -1)],
  gain: ["expected gain", (i, j) => gain(j) - gain(i)],
  value: ["lowest value", (i, j) => c.value[i] - c.value[j]],
  certainty: ["certainty of the suggestion", (i, j) => certainty(j) - certainty(i)],
  pair: ["pair of classes", (i, j) => c.label[i] - c.label[j] || c.suggested[i] - c.suggested[j]],
};
const SHOWS = {
  conflict: ["copies under another label", (i) => c.conflict[i]],
  copied: ["duplicates", (i) => c.copied[i] || c.conflict[i]],
  disagree: ["value and probability disagree", disagrees],
  marked: ["marked", (i) => marks.has(i)],
  unmarked: ["not marked", (i) => !marks.has(i)],
};

function list() {
  const show = state.show && SHOWS[state.show][1];
  listed = [];
  for (let i = 0; i < count; i++) {
    if (state.class !== "" && c.label[i] !== Number(state.class)) continue;
    if (state.pair && pairOf(i) !== state.pair) continue;
    if (state.tier && c.tier[i] !== state.tier) continue;
    if (state.decision && c.decision[i] !== state.decision) continue;
    if (show && !show(i)) continue;
    listed.push(i);
  }
  const order = SORTS[state.sort][1];
  listed.sort((i, j) => order(i, j) || i - j);
}

/** List and draw again, after a change of filter or order. */
function change(key, value) {
  state[key] = value;
  if ($(key)) $(key).value = value;
  state.page = 0;
  list();
  draw();
}

function card(i) {
  const box = make("input", { type: "checkbox", checked: selected.has(i), tabIndex: -1 });
  box.setAttribute("aria-label", `Select ${c.path[i]}`);
  box.addEventListener("change", () => select(i, box.checked));
  const suggestion = c.suggested[i] >= 0 && c.suggested[i] !== c.label[i];
  const button = make(
    "button",
    { type: "button", className: "card" },
    i < data.pictured ? picture("suspects", i, c.path[i]) : null,
    c.shown[i] ? make("span", { className: "shown" }, c.shown[i]) : null,
    make("b", {}, className(c.label[i]), suggestion ? ` → ${className(c.suggested[i])}?` : ""),
    make("span", { className: "soft" }, c.wrong[i] === null ? "" : `P(wrong) ${percent(c.wrong[i])}`),
    make("span", {}, why(i)),
    i < data.pictured ? null : make("span", { className: "soft" }, c.path[i]),
    make("span", { className: "mark" }, marks.has(i) ? words(i) : ""),
  );
  button.addEventListener("click", () => open(i));
  const item = make("li", { className: selected.has(i) ? "chosen" : "" }, button, box);
  item.dataset.i = i;
  return item;
}

function draw() {
  const pages = Math.max(1, Math.ceil(listed.length / PER_PAGE));
  state.page = Math.min(Math.max(state.page, 0), pages - 1);
  const start = state.page * PER_PAGE;
  $("cards").replaceChildren(...listed.slice(start, start + PER_PAGE).map(card));
  $("page").textContent = `page ${state.page + 1} of ${pages}`;
  $("back").disabled = state.page === 0;
  $("next").disabled = state.page === pages - 1;
  tell();
}

function turn(by) {
  state.page += by;
  draw();
  $("suspects").scrollIntoView();
}

// --- matrix of classes ---
function matrix() {
  const pairs = new Map();
  for (let i = 0; i < count; i++) {
    if (c.suggested[i] >= 0) pairs.set(pairOf(i), (pairs.get(pairOf(i)) || 0) + 1);
  }
  const sums = new Map();
  for (const [pair, n] of pairs) for (const k of pair.split(",")) sums.set(k, (sums.get(k) || 0) + n);
  const shown = [...sums].sort((a, b) => b[1] - a[1]).slice(0, 12).map(([k]) => Number(k));
  shown.sort((a, b) => a - b);
  const head = (scope, text) => Object.assign(make("th", {}, text), { scope });
  const cell = (given, suggested) => {
    const pair = `${given},${suggested}`;
    if (!pairs.has(pair)) return make("td", {});
    const button = make("button", { type: "button" }, number(pairs.get(pair)));
    button.setAttribute("aria-label", `${className(given)} → ${className(suggested)}: ${pairs.get(pair)}`);
    button.addEventListener("click", () => change("pair", state.pair === pair ? "" : pair));
    return make("td", {}, button);
  };
  const row = (given) => make("tr", {}, head("row", className(given)), ...shown.map((s) => cell(given, s)));
  const top = make("tr", {}, head("col", "given ↓ suggested →"), ...shown.map((k) => head("col", className(k))));
  document.querySelector("#pairs table").append(make("thead", {}, top), make("tbody", {}, ...shown.map(row)));
  return [...pairs].sort((a, b) => b[1] - a[1]);
}

function options(id, entries) {
  $(id).append(...entries.map(([value, text]) => make("option", { value, textContent: text })));
  if (id in state) $(id).addEventListener("change", () => change(id, $(id).value));
}

function start() {
  const pairs = matrix();
  const any = ["", "all"];
  const labels = [...new Set(c.label)].sort((a, b) => a - b);
  const named = ([pair, n]) => [pair, `${pair.split(",").map((k) => className(Number(k))).join(" → ")} (${n})`];
  const classes = data.classes.map((name, k) => [String(k), name]);
  if (data.server && marks.size) state.show = "unmarked"; // go on where one stopped
  options("sort", Object.entries(SORTS).map(([key, [text]]) => [key, text]));
  options("class", [any, ...labels.map((k) => classes[k])]);
  options("pair", [any, ...pairs.map(named)]);
  const tiers = ["likely", "possible", "look"].filter((name) => c.tier.includes(name));
  $("tier").parentElement.hidden = !tiers.length;
  options("tier", [any, ...tiers.map((name) => [name, name])]);
  options("decision", [any, ...[...new Set(c.decision)].sort().map((name) => [name, name])]);
  options("show", [any, ...Object.entries(SHOWS).map(([key, [text]]) => [key, text])]);
  options("label", [["", "as suggested"], ...classes]);
  $("clear").addEventListener("click", () => {
    for (const key of ["class", "pair", "tier", "decision", "show"]) change(key, "");
  });
  $("back").addEventListener("click", () => turn(-1));
  $("next").addEventListener("click", () => turn(1));
  $("sort").value = state.sort;
  $("show").value = state.show;
  $("suspects").hidden = false;
  list();
  draw();
}
