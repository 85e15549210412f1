// The page: state in, requests out, answers drawn.

import { Charts } from "./charts.js";
import { Drawing } from "./drawing.js";
import { ModelMap } from "./map.js";
import { Recorded, Server, isStale } from "./requests.js";
import { inUnit, number, percent } from "./scales.js";
import { State } from "./state.js";

const PAUSE = 150; // ms without a further click, before what takes longer than a forecast is asked for

const at = (id) => document.getElementById(id);
const data = at("explorer-data");
const recorded = data !== null;
const backend = recorded ? new Recorded(JSON.parse(data.textContent)) : new Server();
let about, state, map, charts, series, after, view, row;
let running = 0; // requests that are not answered yet
const problems = new Map();
const timers = new Map();
let asked = {}; // the state that the last requests were for

function option(value, text = value) {
  const one = document.createElement("option");
  one.value = value;
  one.textContent = text;
  return one;
}

const fill = (select, options) => select.replaceChildren(...options);

// one line for each piece of work that failed; an empty text takes it away
function problem(name, text) {
  text ? problems.set(name, text) : problems.delete(name);
  at("problem").textContent = [...new Set(problems.values())].join(" ");
  at("problem").hidden = !problems.size;
}

const titleOf = (name) => name.replaceAll("_", " ").replace(/^(mase|crps)\b/, (found) => found.toUpperCase());

function working(change) {
  running += change;
  document.body.setAttribute("aria-busy", String(running > 0));
}

// runs work whose answer may come too late; other errors are shown
async function guarded(name, box, work) {
  box?.classList.add("busy");
  working(1);
  try {
    await work();
    problem(name, "");
  } catch (error) {
    if (isStale(error)) return false;
    problem(name, error.message);
  } finally {
    working(-1);
  }
  box?.classList.remove("busy");
  return true;
}

// the same, after a pause, unless it is asked for again by then
function later(name, box, work) {
  backend.stop(name);
  box.classList.add("busy");
  if (!timers.has(name)) working(1);
  clearTimeout(timers.get(name));
  const start = () => {
    timers.delete(name);
    guarded(name, box, work);
    working(-1);
  };
  timers.set(name, setTimeout(start, recorded ? 0 : PAUSE));
}

const scoreShown = () => about.scores.find((one) => one.name === state.view.score);

const request = () => ({ off: state.now.off, mode: state.now.mode });

// --- drawing what is known --------------------------------------------------------------------

function showState() {
  const { now, view: seen } = state;
  map.show(now.off, seen.focus, seen.score);
  at("mode").value = now.mode;
  at("score").value = seen.score;
  at("component").value = seen.focus ?? "";
  at("toggle").textContent = seen.focus && state.isOff(seen.focus) ? "Switch on" : "Switch off";
  at("toggle").disabled = !seen.focus;
  at("undo").disabled = !state.past.length;
  at("redo").disabled = !state.future.length;
  at("reset").disabled = at("plan").disabled = at("prune").disabled = !now.off.length;
  showSeriesChoice();
  history.replaceState(null, "", `#${state.toLink()}`);
}

function showSeriesChoice() {
  const chosen = state.now.series;
  const drawn = Boolean(chosen.values);
  const options = about.series.map((one) => option(one.configuration));
  fill(at("configuration"), drawn ? [option("", "drawn by hand"), ...options] : options);
  at("configuration").value = drawn ? "" : chosen.configuration;
  const { windows = [], names = [] } = about.series.find((one) => one.configuration === chosen.configuration) ?? {};
  fill(at("window"), windows.map((window, place) => option(window, names[place])));
  at("window").disabled = drawn;
  if (!drawn) at("window").value = chosen.window;
}

function showForecast() {
  const off = state.now.off.length;
  charts.forecast(at("forecast"), series, off ? after : null, { shown: Number(at("shown").value), off });
  const whole = series.clean;
  const now = off && after ? after : whole;
  const pair = (a, b) => (off ? `${number(a)} → ${number(b)}` : number(a));
  const rows = [
    ["forecast moved", `${number(now.moved)} seasonal errors`],
    ["Spearman distance", number(now.spearman)],
    ["MASE here", pair(whole.mase, now.mase)],
    ["parroting", pair(whole.parroting, now.parroting)],
  ];
  at("measures").replaceChildren(...rows.map(([name, value]) => {
    const group = document.createElement("div");
    const [term, detail] = [document.createElement("dt"), document.createElement("dd")];
    [term.textContent, detail.textContent] = [name, value];
    group.append(term, detail);
    return group;
  }));
  const cells = `${off} of ${map.cells.size} components off`;
  const moved = off ? `; this forecast moved by ${number(now.moved)} seasonal errors` : "";
  at("status").textContent = `${cells}${moved}.`;
}

function showLosses(found) {
  const rows = Object.entries(found.metrics).map(([name, one]) => [
    name, number(one.before), number(one.after), percent(one.change.value),
    one.change.low === null ? "no interval" : `${percent(one.change.low)} to ${percent(one.change.high)}`,
    one.change.low > 0 ? "worse" : one.change.high < 0 ? "better" : "",
  ]);
  const [before, now] = found.parroting;
  const change = before === null ? "n/a" : `${now >= before ? "+" : "−"}${number(Math.abs(now - before))}`;
  rows.push(["parroting", number(before), number(now), change, "", ""]);
  rows.push(["Spearman distance", "0", number(found.spearman), "", "", ""]);
  at("losses").tBodies[0].replaceChildren(...rows.map(([name, ...cells]) => {
    const line = document.createElement("tr");
    const heading = document.createElement("th");
    heading.scope = "row";
    heading.textContent = name;
    line.append(heading);
    const look = cells.pop();
    const limits = cells.pop();
    cells.forEach((text, column) => {
      const cell = line.insertCell();
      cell.className = `number ${column === 2 ? look : ""}`;
      cell.textContent = text;
    });
    const small = document.createElement("small");
    small.textContent = limits;
    if (limits) line.cells[3].append(small);
    return line;
  }));
}

function showComponent() {
  const found = view.attention;
  at("component-view").hidden = false;
  at("component-view").classList.toggle("single", !found);
  at("lag-figure").hidden = !found;
  const { share } = view.writing;
  const words = [];
  if (found) {
    const { sharpness, lag, period_share: period, period_share_uniform: even } = found.statistics;
    words.push(`Sharpness ${number(sharpness, 2)} (0: even attention, 1: a single key), mean distance ${number(lag)} steps.`);
    if (period !== null) words.push(`${percent(period).slice(1)} of its attention is at multiples of the period of ${number(series.period)} steps (even attention: ${percent(even).slice(1)}).`);
  } else if (state.view.focus.includes(".head.")) {
    words.push("This head attends over series, or never ran, so there is no map over time.");
  }
  words.push(share === null ? "No direct share of the forecast is attributed to it." : `Direct share of the forecast: ${percent(share)}.`);
  at("component-about").textContent = words.join(" ");
  charts.writes(at("writes"), view.writing);
  if (!found) return;
  const gaps = found.lags.slice(1).map((lag, i) => lag - found.lags[i]);
  charts.lag(at("lag"), { ...found, lag_width: 0.9 * Math.min(...gaps, 1e9) || 1 }, series.period);
  at("query").max = found.weights.length - 1;
  showQuery(Math.min(row ?? found.weights.length - 1, found.weights.length - 1));
}

function showQuery(chosen) {
  row = chosen;
  const { weights, keys, queries } = view.attention;
  at("query").value = row;
  const name = (time, place) => (time === null ? `mark ${place}` : `step ${time}`);
  const most = weights[row].map((weight, place) => [weight, place]).sort((a, b) => b[0] - a[0]).slice(0, 3);
  const looks = most.filter(([weight]) => weight > 0).map(([weight, place]) => `${name(keys[place], place)} (${(100 * weight).toFixed(0)} %)`);
  at("query-text").textContent = `The query at ${name(queries[row], row)} looks most at ${looks.join(", ") || "nothing"}.`;
  charts.attention(at("attention"), series, view.attention, row, showQuery);
}

// --- asking -----------------------------------------------------------------------------------

async function chooseSeries() {
  await guarded("forecast", at("forecast"), async () => {
    series = await backend.ask("series", { series: state.now.series });
    after = null;
    showForecast();
  });
}

async function forecast() {
  if (!state.now.off.length) {
    backend.stop("forecast");
    after = null;
    at("forecast").classList.remove("busy");
    problem("forecast", "");
    return showForecast();
  }
  return guarded("forecast", at("forecast"), async () => {
    const body = { series: state.now.series, ...request() };
    if (series.quick_steps < series.horizon) {
      after = await backend.ask("forecast", { ...body, whole: false });
      showForecast();
    }
    after = await backend.ask("forecast", { ...body, whole: true });
    showForecast();
  });
}

function losses() {
  later("losses", at("losses"), async () => showLosses(await backend.ask("losses", request())));
}

function component() {
  later("component", at("component-view"), async () => {
    view = await backend.ask("component", { series: state.now.series, component: state.view.focus, ...request() });
    showComponent();
  });
}

async function scores() {
  const score = scoreShown();
  at("score-about").textContent = score.about;
  let found = { done: -1, total: 0 };
  while (found.done < found.total && state.view.score === score.name) {
    const before = found.done;
    const answered = await guarded("scores", null, async () => {
      found = await backend.ask("scores", { score: score.name, series: state.now.series });
      const scale = map.colour(score, found.values, about.colours);
      at("scale").style.background = scale.background;
      at("low").textContent = inUnit(scale.low, score.unit);
      at("high").textContent = inUnit(scale.high, score.unit);
      const share = found.done < found.total ? ` (${found.done} of ${found.total} measured)` : "";
      at("score-about").textContent = `${score.about}${share}`;
    });
    if (!answered || found.done === before) return; // another score, or a refusal
  }
}

// --- what the user does -----------------------------------------------------------------------

// asks for all that depends on what has changed since the last call
async function changed() {
  const [chosen, off] = [JSON.stringify(state.now.series), JSON.stringify(request())];
  const [newSeries, newOff] = [chosen !== asked.series, off !== asked.off];
  asked = { series: chosen, off };
  problem("link", "");
  showState();
  if (newSeries) await chooseSeries();
  component();
  if (newOff) losses();
  if (newSeries && scoreShown().of_series) scores();
  await forecast();
}

function switchCells(addresses, off) {
  const next = recorded ? (off ? addresses.slice(0, 1) : []) : state.switched(addresses, off);
  state.change({ off: next });
  changed();
}

function choose(address) {
  state.view.focus = address;
  row = null;
  showState();
  component();
}

const moved = (done) => done && changed();

function pick(next) {
  state.change({ series: next });
  changed();
}

async function plan() {
  let found;
  await guarded("plan", null, async () => (found = await backend.ask("plan", { off: state.now.off })));
  return found;
}

async function savePlan() {
  const found = await plan();
  if (!found) return;
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([found.plan], { type: "application/json" }));
  link.download = "plan.json";
  link.click();
  URL.revokeObjectURL(link.href);
}

async function showPrune() {
  const found = await plan();
  if (!found) return;
  const other = state.now.mode === "zero" ? "" : " The forecasts shown replace outputs by another mode; pruning is zero.";
  at("prune-about").textContent = `Removes ${state.now.off.length} of ${map.cells.size} heads and MLPs for good.${other}`;
  at("command").textContent = found.command;
  at("python").textContent = found.python;
  at("prune-dialog").showModal();
}

async function copy(text, button) {
  const before = button.textContent;
  try {
    await navigator.clipboard.writeText(text);
    button.textContent = "Copied";
  } catch {
    button.textContent = "Cannot copy here";
  }
  setTimeout(() => (button.textContent = before), 1500);
}

function listen() {
  const on = (id, event, work) => at(id).addEventListener(event, work);
  on("undo", "click", () => moved(state.undo()));
  on("redo", "click", () => moved(state.redo()));
  on("reset", "click", () => (state.change({ off: [] }), changed()));
  on("link", "click", () => copy(location.href, at("link")));
  on("plan", "click", savePlan);
  on("prune", "click", showPrune);
  on("copy-command", "click", () => copy(at("command").textContent, at("copy-command")));
  on("copy-python", "click", () => copy(at("python").textContent, at("copy-python")));
  on("mode", "change", () => (state.change({ mode: at("mode").value }), changed()));
  on("score", "change", () => {
    state.view.score = at("score").value;
    showState();
    scores();
  });
  on("configuration", "change", () => {
    const found = about.series.find((one) => one.configuration === at("configuration").value);
    if (found) pick({ configuration: found.configuration, window: found.windows[0] });
  });
  on("window", "change", () => pick({ ...state.now.series, window: Number(at("window").value) }));
  on("shown", "change", showForecast);
  on("component", "change", () => choose(at("component").value || null));
  on("toggle", "click", () => switchCells([state.view.focus], !state.isOff(state.view.focus)));
  on("query", "input", () => showQuery(Number(at("query").value)));
  window.addEventListener("keydown", (event) => {
    if (!(event.ctrlKey || event.metaKey) || event.target.matches("textarea, input")) return;
    const key = event.key.toLowerCase();
    if (key !== "z" && key !== "y") return;
    event.preventDefault();
    moved(key === "y" || event.shiftKey ? state.redo() : state.undo());
  });
  window.addEventListener("hashchange", () => restore());
  window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
    showForecast();
    if (view) showComponent();
  });
}

async function restore() {
  const lost = state.fromLink(location.hash.slice(1), about.series);
  await changed();
  const text = `Left out of the link: ${lost === 1 ? "a part" : `${lost} parts`} that this model or its data does not have.`;
  problem("link", lost ? text : "");
  scores();
}

async function start() {
  about = await backend.ask("model");
  const { model } = about;
  const samples = model.samples ? `, ${model.samples} samples a forecast` : "";
  at("subject").textContent = `${model.name}: ${model.brief}, ${model.parameters.toLocaleString("en")} parameters, on ${about.data}${samples}`;
  document.title = `${model.name}: tsprune explore`;
  document.body.classList.toggle("static", recorded);
  const known = about.rows.flatMap((line) => line.parts.flatMap((part) => part.cells));
  const [first] = about.series;
  state = new State({
    known,
    modes: about.modes,
    scores: about.scores.map((one) => one.name),
    first: { configuration: first.configuration, window: first.windows[0] },
    focus: known[0],
  });
  map = new ModelMap(at("map"), about.rows, { onSwitch: switchCells, onChoose: choose, single: recorded });
  charts = new Charts(about.colours, document.querySelectorAll(".plot"));
  fill(at("score"), about.scores.map((one) => option(one.name, titleOf(one.name))));
  fill(at("component"), known.map((address) => option(address)));
  const { windows, configurations } = about.few;
  const sources = configurations === 1 ? "one configuration" : `${configurations} configurations`;
  at("few").textContent = `${windows} of ${about.data}, from ${sources}; metrics relative to Seasonal Naive, changes with 95 % intervals`;
  new Drawing(at("draw-dialog"), about.drawn.steps, (values) => pick({ values }));
  at("draw").addEventListener("click", () => at("draw-dialog").showModal());
  listen();
  if (location.hash.length > 1) {
    await restore();
    state.past = [];
    showState();
  } else {
    await changed();
    await scores();
  }
  document.body.dataset.ready = "yes"; // for tests
}

start().catch((error) => problem("start", error.message));
