// The page: asks the server for one view after the other and shows what changes of it. Everything that a run holds
// becomes text nodes; no markup is ever made of it. The view is in the address behind #: list, run or compare.

import {drawCurves, drawDots, spark} from "./charts.js";

const $ = id => document.getElementById(id);
const view = $("view");
let source = null;
let state = {};        // sections of the open view, by name
let readOnly = true;
let chosen = new Set();  // runs that shall be compared
let costAxis = "queries";
let pressed = null;    // the button to stop that was pressed once
const SURE_MILLISECONDS = 15000;  // in which it must be pressed again

// ------------------------------------------------------------------------------------------------ elements
/** Return an element. `given`: class, attributes, or on… listeners. Strings become text. */
function el(name, given = {}, ...inside) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(given)) {
    if (value === null || value === undefined || value === false) continue;
    if (key.startsWith("on")) made.addEventListener(key.slice(2), value);
    else if (key === "checked" || key === "disabled" || key === "open") made[key] = value;
    else made.setAttribute(key, value);
  }
  made.append(...inside.flat().filter(one => one !== null && one !== undefined && one !== ""));
  return made;
}

const badge = (kind, words) => el("span", {class: `badge ${kind}`}, words);
const clock = time => new Date(1000 * time).toLocaleTimeString([], {hour12: false});
const link = (hash, words) => el("a", {href: hash}, words);
const runHash = run => `#run/${encodeURIComponent(run)}`;

function table(heads, rows, caption) {
  const head = heads.map(one => el("th", {scope: "col", class: one.text ? "text" : null}, one.title));
  return el("div", {class: "scroll", tabindex: "0", role: "region", "aria-label": caption},
    el("table", {}, el("caption", {class: "hidden"}, caption), el("thead", {}, el("tr", {}, head)), el("tbody", {}, rows)));
}

const cell = (value, kind = "number") => el("td", {class: kind}, value);

function measured(value) {
  return [value.value, value.interval ? el("span", {class: "soft interval", title: "95 % interval"}, ` ${value.interval}`) : null];
}

function bar(share) {
  if (share === null) return "—";
  const percent = Math.round(100 * share);
  return el("span", {class: "bar"}, el("progress", {max: "100", value: percent, "aria-label": "budget spent"}), ` ${percent} %`);
}

/** Put `made` into the place of a section; a control that had the focus keeps it, opened details stay open. */
function replaceSection(id, made) {
  const old = $(`section-${id}`);
  if (!old) return;
  const focused = old.contains(document.activeElement) ? document.activeElement.dataset.key : null;
  const opened = new Set([...old.querySelectorAll("details[open]")].map(one => one.dataset.key));
  const scrolled = [...old.querySelectorAll(".scroll")].map(one => one.scrollLeft);
  old.replaceChildren(...made.filter(one => one !== null));
  old.hidden = !old.hasChildNodes();
  for (const one of old.querySelectorAll("details")) one.open ||= opened.has(one.dataset.key);
  [...old.querySelectorAll(".scroll")].forEach((one, number) => { one.scrollLeft = scrolled[number] ?? 0; });
  if (focused) [...old.querySelectorAll("[data-key]")].find(one => one.dataset.key === focused)?.focus();
}

function sections(...ids) {
  view.replaceChildren(...ids.map(id => el("section", {id: `section-${id}`, class: id, hidden: ""})));
}

// ------------------------------------------------------------------------------------------------ the list
function showList(runs) {
  const rows = runs.map(run => el("tr", {},
    cell(el("input", {type: "checkbox", "aria-label": `compare ${run.title}`, "data-key": `choose ${run.run}`, checked: chosen.has(run.run),
      onchange: event => { event.target.checked ? chosen.add(run.run) : chosen.delete(run.run); nameComparison(); }})),
    cell([link(runHash(run.run), run.title), run.run === run.title ? null : el("span", {class: "soft place"}, run.run)], "text name"),
    cell([badge(run.state, run.state_words), run.problem ? el("span", {class: "problem"}, run.problem) : null], "text"),
    cell(measured(run.dev)), cell(measured(run.test)), cell(bar(run.share)), cell(run.left || "—"), cell(run.queries), cell(run.usd),
    cell(run.trials, "text")));
  const metric = runs.find(run => run.metric !== "metric")?.metric ?? "metric";
  const heads = [{title: ""}, {title: "Run", text: true}, {title: "State", text: true}, {title: `Dev ${metric}`}, {title: "Test"},
    {title: "Budget spent"}, {title: "Time left"}, {title: "Queries"}, {title: "Cost"}, {title: "Trials", text: true}];
  replaceSection("list", [
    el("h1", {}, "Runs"), table(heads, rows, "Runs"),
    el("p", {class: "caption"}, "The interval is Wilson's 95 % interval of an accuracy, of the dev or test rows alone. The time left assumes the rate so far."),
    el("p", {}, el("button", {id: "compare", type: "button", "data-key": "compare", onclick: compareChosen}, "Compare")),
  ]);
  nameComparison();
}

function nameComparison() {
  const button = $("compare");
  button.disabled = chosen.size < 2;
  button.textContent = chosen.size < 2 ? "Choose two runs or more to compare" : `Compare ${chosen.size} runs`;
}

function compareChosen() {
  location.hash = `#compare/${[...chosen].map(encodeURIComponent).join("/")}`;
}

// ------------------------------------------------------------------------------------------------ one run
function showHead(head) {
  document.title = `${head.dev.value} · ${head.title}`;
  const tile = (label, value, note) => el("div", {class: "tile"}, el("div", {class: "label"}, label), el("div", {class: "value"}, value), el("div", {class: "note"}, note || "\u00a0"));
  const tiles = [
    tile(`Dev ${head.metric} of the best prompt`, head.dev.value, head.dev.interval ? `95 %: ${head.dev.interval}` : head.best_trial),
    tile("Its test score, once at the end", head.test.value, head.test.interval ? `95 %: ${head.test.interval}` : ""),
    tile("Budget spent", head.share === null ? "—" : `${Math.round(100 * head.share)} %`, head.trials),
    tile("Time left", head.left || "—", `after ${head.wall}`),
    tile("Oracles busy", head.busy === null || head.busy === undefined ? "—" : `${head.busy} of ${head.workers}`, head.busy_share ? `${head.busy_share} of the time` : ""),
    tile("Queue", head.waiting === null || head.waiting === undefined ? "—" : `${head.waiting} tiles`, "waiting for a worker"),
    tile("Cost", head.usd, head.spent),
  ];
  const canStop = !readOnly && ["running", "starting"].includes(head.state);
  replaceSection("head", [
    el("div", {class: "title"}, el("h1", {}, head.title), badge(head.state, head.state_words),
      canStop ? stopButton(head.run, null) : null),
    el("p", {class: "soft"}, [head.task, head.model].filter(Boolean).join(" · "), el("span", {class: "mono place"}, head.address)),
    head.text ? el("p", {class: "quote"}, head.text) : null,
    head.not_better ? el("p", {class: "caption"}, "Not better on dev than the manual prompt by the paired test, which is what the run returns so far.") : null,
    head.resume ? el("p", {}, "Continue it with ", el("code", {}, head.resume)) : null,
    el("div", {class: "tiles"}, tiles),
  ]);
}

function showCurves({plots, rule}) {
  const place = $("section-curves");
  const ids = plots.map(plot => `plot-${plot.id}`);
  if ([...place.querySelectorAll(".plot")].map(one => one.id).join() !== ids.join()) {
    place.replaceChildren(
      el("div", {class: "plots"}, plots.map(plot => el("div", {class: "card"}, el("h3", {}, plot.title),
        el("div", {class: "plot", id: `plot-${plot.id}`, role: "img", "aria-label": plot.title})))),
      rule ? el("p", {class: "caption"}, "Lines are means over a method's trials, bands their range. ", rule) : "");
    place.hidden = !plots.length;
  }
  for (const plot of plots) drawCurves($(`plot-${plot.id}`), plot);
}

function showTrials({lines, left_out: leftOut}) {
  const running = ["running", "starting"].includes(state.head?.state);
  const rows = lines.map(line => el("tr", {class: line.best ? "best" : line.status === "failed" ? "failed" : null},
    cell([line.trial, line.best ? el("span", {class: "star", title: "best trial"}, " ★") : null], "text mono"),
    cell(line.method, "text"), cell(badge(line.status, line.status), "text"), cell(spark(line.spark, `train loss of ${line.trial}, now ${line.loss}`)),
    cell(line.dev), cell(line.test), cell(line.loss), cell(line.queries), cell(line.wall), cell(line.restarts),
    cell([line.drawn.join(" "), line.text ? el("span", {class: "said"}, line.text) : null, line.reason ? el("span", {class: "soft"}, line.reason) : null], "text drawn"),
    cell(!readOnly && running && line.status === "running" ? stopButton(state.head.run, line.trial) : "")));
  const heads = ["Trial", "Method", "Status"].map(title => ({title, text: true}))
    .concat(["Train loss", "Dev", "Test", "Loss", "Queries", "Time", "Adopted"].map(title => ({title})), [{title: "Settings and prompt", text: true}, {title: ""}]);
  replaceSection("trials", [el("h2", {}, "Trials"), lines.length ? table(heads, rows, "Trials") : el("p", {}, "No trial has started."),
    leftOut ? el("p", {class: "caption"}, `${leftOut} more are in the report; these are under way, or the best.`) : null]);
}

function showRestarts(lines) {
  const rows = lines.map(line => el("tr", {}, cell(clock(line.time)), cell(line.trial, "text mono"), cell(String(line.stage)), cell(line.queries),
    cell(badge(line.adopted === "proposal" ? "done" : line.adopted === "source_trial" ? "taken" : "", line.adopted_words), "text"),
    cell(line.incumbent_loss), cell(line.loss), cell(line.text, "text said"), cell([line.source, line.reason].filter(Boolean).join(": "), "text soft")));
  const heads = [{title: "Time"}, {title: "Trial", text: true}, {title: "Stage"}, {title: "Queries"}, {title: "Outcome", text: true}, {title: "Own loss"},
    {title: "Proposal's loss"}, {title: "Prompt", text: true}, {title: "Source, reason", text: true}];
  replaceSection("restarts", lines.length ? [el("h2", {}, "Restarts"), table(heads, rows, "Restarts, the latest first")] : []);
}

function showAnswers(lines) {
  replaceSection("answers", lines.length ? [el("h2", {}, "What proposers said"), ...lines.map(line => el("details", {class: "talk", "data-key": `${line.time} ${line.trial}`},
    el("summary", {}, `${clock(line.time)} ${line.trial}, ${line.stage}, ${line.proposer}: ${line.texts.length} prompts `, line.problem ? badge("failed", line.problem) : null),
    el("p", {class: "soft"}, "Instruction"), el("pre", {class: "said"}, line.instruction),
    el("p", {class: "soft"}, "Answer"), el("pre", {class: "said"}, line.answer),
    line.cut ? el("p", {class: "caption"}, `${line.cut} more characters are in ledger.jsonl.`) : null))] : []);
}

function showWarnings(lines) {
  replaceSection("warnings", lines.length ? [el("h2", {}, "Warnings"), el("ul", {class: "warning"}, lines.map(line => el("li", {}, line)))] : []);
}

function showLog(lines) {
  const rows = lines.map(line => el("tr", {}, cell(clock(line.time)), cell(line.kind, "text kind"), cell(line.trial, "text mono"), cell(line.text, "text")));
  const heads = [{title: "Time"}, {title: "Kind", text: true}, {title: "Trial", text: true}, {title: "Message", text: true}];
  replaceSection("log", [el("h2", {}, "Log"), lines.length ? table(heads, rows, "Log, the latest first") : el("p", {}, "Nothing yet.")]);
}

// ------------------------------------------------------------------------------------------------ several runs
function showCompared(runs) {
  const rows = runs.map(run => el("tr", {}, cell([link(runHash(run.run), run.title), run.run === run.title ? null : el("span", {class: "soft place"}, run.run)], "text name"), cell(badge(run.state, run.state_words), "text"),
    cell(measured(run.dev)), cell(measured(run.test)), cell(run.queries), cell(run.forwards), cell(run.tokens), cell(run.usd), cell(run.wall), cell(run.busy)));
  const heads = [{title: "Run", text: true}, {title: "State", text: true}, {title: "Dev"}, {title: "Test"}, {title: "Queries"}, {title: "Forwards"}, {title: "Tokens"},
    {title: "Cost"}, {title: "Wall clock"}, {title: "Oracle time"}];
  replaceSection("runs", [el("h1", {}, "Comparison"), table(heads, rows, "Cost and accuracy")]);
}

function showCosts(costs) {
  if (!costs) return;
  const place = $("section-costs");
  const axes = {queries: "queries of the run", usd: "US dollars", seconds: "wall-clock seconds"};
  if (!$("plot-costs")) {
    place.hidden = false;
    place.append(el("h2", {}, "Cost beside accuracy"),
      el("label", {}, "Cost in ", el("select", {onchange: event => { costAxis = event.target.value; showCosts(state.costs); }},
        Object.entries(axes).map(([axis, title]) => el("option", {value: axis}, title)))),
      el("div", {class: "plot", id: "plot-costs", role: "img", "aria-label": "Cost beside accuracy"}));
  }
  drawDots($("plot-costs"), costs, costAxis, axes[costAxis]);
}

function showSettings({lines, left_out: leftOut}) {
  const runs = state.runs ?? [];
  const rows = lines.map(line => el("tr", {}, el("th", {scope: "row", class: "text mono"}, line.name), line.values.map(value => cell(value || "—", "text mono"))));
  const heads = [{title: "Setting", text: true}, ...runs.map(run => ({title: run.run || run.title, text: true}))];
  replaceSection("settings", [el("h2", {}, "Settings that differ"), lines.length ? table(heads, rows, "Settings that differ") : el("p", {}, "None."),
    leftOut ? el("p", {class: "caption"}, `${leftOut} more are in config.json.`) : null]);
}

// ------------------------------------------------------------------------------------------------ stopping
const stopKey = trial => `stop ${trial ?? ""}`;
const stopWords = trial => pressed === stopKey(trial) ? "Really stop?" : trial ? "Stop" : "Stop the run";

function stopButton(run, trial) {
  return el("button", {type: "button", class: "stop", "data-key": stopKey(trial), "aria-label": trial ? `Stop trial ${trial}` : "Stop the run",
    onclick: event => stop(event.currentTarget, run, trial)}, stopWords(trial));
}

/** Write anew what stands on the buttons for a trial: they are made anew with every change of the run. */
function renameStop(trial) {
  for (const one of document.querySelectorAll("button.stop")) {
    if (one.dataset.key === stopKey(trial)) one.textContent = stopWords(trial);
  }
}

/** Ask once more in the button itself, then post. */
async function stop(button, run, trial) {
  if (pressed !== stopKey(trial)) {
    pressed = stopKey(trial);
    renameStop(trial);
    setTimeout(() => {
      if (pressed === stopKey(trial)) pressed = null;
      renameStop(trial);
    }, SURE_MILLISECONDS);
    return;
  }
  pressed = null;
  renameStop(trial);
  button.disabled = true;
  let said;
  try {
    const answer = await fetch("stop", {method: "POST", headers: {"Content-Type": "application/json"}, body: JSON.stringify({run, trial})});
    const told = await answer.json();
    said = answer.ok ? `${trial ?? "The run"} was asked to stop, and ends after the step that it is at.` : told.error;
  } catch {
    said = "The server did not answer.";
  }
  $("said").textContent = said;
}

// ------------------------------------------------------------------------------------------------ views
const VIEWS = {
  list: {sections: ["list"], show: {runs: showList}},
  run: {
    sections: ["head", "warnings", "curves", "trials", "restarts", "answers", "log"],
    show: {head: head => { showHead(head); if (state.trials) showTrials(state.trials); }, curves: showCurves, trials: showTrials,
      restarts: showRestarts, answers: showAnswers, warnings: showWarnings, log: showLog},
  },
  compare: {
    sections: ["runs", "curves", "costs", "settings"],
    show: {runs: showCompared, curves: showCurves, costs: showCosts, settings: showSettings,
      left_out: count => { if (count) $("said").textContent = `Eight runs are compared at most; ${count} are left out.`; }},
  },
};

/** Return the parts of the address behind #; none where it is not written as it must be. */
function asked() {
  try {
    return location.hash.slice(1).split("/").map(decodeURIComponent);
  } catch {
    return [];
  }
}

function open() {
  const [name, ...runs] = asked();
  const kind = name in VIEWS ? name : "list";
  const {sections: ids, show} = VIEWS[kind];
  source?.close();
  state = {};
  document.title = "Runs";
  $("said").textContent = "";
  $("path").replaceChildren(kind === "list" ? "" : link("#list", "← All runs"));
  sections(...ids);
  const query = new URLSearchParams([["view", kind], ...runs.map(run => ["run", run])]);
  source = new EventSource(`events?${query}`);
  source.addEventListener("page", event => { readOnly = JSON.parse(event.data).read_only; });
  source.addEventListener("trouble", event => trouble(JSON.parse(event.data)));
  source.onerror = () => trouble("The server does not answer. If it was started again, open the address that it has printed.");
  for (const [section, draw] of Object.entries(show)) {
    source.addEventListener(section, event => {
      state[section] = JSON.parse(event.data);
      draw(state[section]);
    });
  }
}

function trouble(words) {
  $("trouble").textContent = words;
  $("trouble").hidden = !words;
}

history.replaceState(null, "", location.pathname + location.hash);  // the token is in a cookie from here on
addEventListener("hashchange", open);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
  if (state.curves) showCurves(state.curves);
  if (state.costs) showCosts(state.costs);
});
open();
