/* Draws what workflow.json says. All text is set as text; nothing that a user named becomes markup. */
"use strict";
(() => {
  const main = document.getElementById("daskml");
  const only = main.dataset.part;
  const run = new URLSearchParams(location.search).get("run") || "";
  const NS = "http://www.w3.org/2000/svg";
  const KINDS = [["c", "committed"], ["q", "quarantined"], ["running", "running"], ["r", "reused"], ["f", "failed"],
                 ["t", "todo"], ["later", "later"]];
  const WORDS = {t: "to do", r: "reused", p: "partly done", c: "committed", q: "rows without a result", f: "failed"};
  const drawn = {};
  const rates = {};
  let chosen = "", picked = -1, data = null, failures = 0;

  const h = (tag, attributes, ...children) => fill(document.createElement(tag), attributes, children);
  const s = (tag, attributes, ...children) => fill(document.createElementNS(NS, tag), attributes, children);
  function fill(node, attributes, children) {
    for (const [name, value] of Object.entries(attributes || {})) {
      if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
      else if (value !== undefined && value !== null) node.setAttribute(name, value);
    }
    node.append(...children.flat(Infinity).filter(child => child !== null && child !== undefined).map(
      child => child instanceof Node ? child : document.createTextNode(String(child))));
    return node;
  }
  const count = value => Number(value).toLocaleString("en-US");
  const clock = time => new Date(time * 1000).toLocaleTimeString("en-GB");
  function took(seconds) {
    if (seconds === null || seconds === undefined) return "";
    if (seconds < 9.95) return seconds.toFixed(1) + " s";
    const whole = Math.round(seconds), two = value => String(value).padStart(2, "0");
    if (whole < 60) return whole + " s";
    if (whole < 3600) return Math.floor(whole / 60) + " min " + two(whole % 60) + " s";
    if (whole < 86400) return Math.floor(whole / 3600) + " h " + two(Math.floor(whole % 3600 / 60)) + " min";
    return Math.floor(whole / 86400) + " d " + Math.floor(whole % 86400 / 3600) + " h";
  }
  function soon(seconds) {
    const [each, unit] = seconds < 60 ? [1, "s"] : seconds < 3600 ? [60, "min"] : seconds < 86400 ? [3600, "h"] : [86400, "d"];
    return Math.ceil(seconds / each) + " " + unit;
  }
  function pace(rate) {
    for (const [factor, unit] of [[1, "s"], [60, "min"], [3600, "h"]])
      if (rate * factor >= 1) return (rate * factor >= 100 ? count(Math.round(rate * factor)) : (rate * factor).toPrecision(3)) + "/" + unit;
    return "";
  }
  function bytes(value) {
    const units = ["B", "KiB", "MiB", "GiB", "TiB"];
    let power = 0;
    while (value >= 1024 && power < 4) { value /= 1024; power += 1; }
    return value.toFixed(power > 2 ? 1 : 0) + " " + units[power];
  }
  const money = value => value === null ? "unknown" : value === 0 ? "0" : value < 0.01 ? value.toPrecision(2) : value.toFixed(2);
  const share = value => (100 * value).toFixed(0) + " %";
  const color = name => getComputedStyle(document.documentElement).getPropertyValue("--" + name).trim();
  const pill = state => h("span", {class: "pill " + (/^[a-z]+$/.test(state) ? state : "")}, state);
  const table = (names, rows, numbers) => h("table", {},
    h("thead", {}, h("tr", {}, names.map((name, at) => h("th", {class: numbers.includes(at) ? "n" : "", scope: "col"}, name)))),
    h("tbody", {}, rows));

  function parts(stage) {
    const running = stage.state === "running" ? stage.running || 0 : 0;
    return {committed: stage.done - stage.quarantined, quarantined: stage.quarantined, running, reused: stage.reused,
            failed: stage.failed, todo: stage.units - stage.done - stage.failed - running, later: stage.later};
  }
  function bar(stage) {
    const found = parts(stage), total = Math.max(1, stage.units + stage.reused + stage.later);
    const empty = stage.state === "ok" && !stage.units && !stage.reused;
    const label = KINDS.map(([, name]) => found[name] ? count(found[name]) + " " + name : "").filter(Boolean).join(", ");
    return h("div", {class: "bar", role: "img", "aria-label": label || stage.state, title: label || stage.state},
      empty ? h("i", {style: "width:100%;background:var(--c)"}) :
      KINDS.map(([key, name]) => found[name] > 0 ? h("i", {style: `width:${100 * found[name] / total}%;background:var(--${key})`}) : null));
  }

  function graph(all) {
    const stages = all.stages.slice(0, 60), depth = {}, columns = [];
    const known = new Set(stages.map(stage => stage.name));
    for (const stage of stages) depth[stage.name] = 0;
    for (let turn = 0; turn < stages.length; turn++) {
      let moved = false;
      for (const [from, to] of all.edges)
        if (known.has(from) && known.has(to) && depth[to] <= depth[from] && depth[from] < stages.length) { depth[to] = depth[from] + 1; moved = true; }
      if (!moved) break;
    }
    if (!all.edges.length) stages.forEach((stage, at) => { depth[stage.name] = at % 6; });
    const place = {};
    for (const stage of stages) {
      const column = columns[depth[stage.name]] = columns[depth[stage.name]] || [];
      place[stage.name] = {x: depth[stage.name] * 206, y: column.length * 68};
      column.push(stage.name);
    }
    const height = Math.max(58, ...columns.filter(Boolean).map(column => column.length * 68 - 10));
    const lines = s("svg", {"aria-hidden": "true"}, all.edges.filter(([a, b]) => place[a] && place[b]).map(([a, b]) => {
      const x = place[a].x + 168, y = place[a].y + 29, to = place[b];
      return s("path", {d: `M${x},${y} C${x + 20},${y} ${to.x - 20},${to.y + 29} ${to.x},${to.y + 29}`});
    }));
    return h("div", {class: "graph", style: `height:${height}px;width:${Math.max(1, columns.length) * 206 - 38}px`}, lines,
      stages.map(stage => h("div", {class: "node " + (/^[a-z]+$/.test(stage.state) ? stage.state : ""), title: stage.name, style: `left:${place[stage.name].x}px;top:${place[stage.name].y}px`},
        h("b", {}, stage.name), bar(stage),
        h("span", {class: "soft"}, stage.total ? count(stage.done + stage.reused) + " / " + count(stage.total) : stage.state,
          stage.state === "running" && stage.eta !== null ? " · " + soon(stage.eta) + " left" : ""))));
  }

  const SECTIONS = {
    stages: ["Stages", "wide", found => [found.run.stages, found.run.edges], found => {
      if (!found.run.stages.length) return [];
      const legend = h("div", {class: "legend"}, KINDS.map(([key, name]) => h("span", {}, h("i", {style: `background:var(--${key})`}), name === "todo" ? "to do" : name === "later" ? "expected later" : name)));
      const names = ["stage", "kind", "state", "units", "to do", "running", "committed", "reused", "quarantined", "failed", "rows", "rate", "left", "time", "why"];
      const rows = found.run.stages.map(stage => {
        const counts = parts(stage), cell = (name, value) => h("td", {class: value && (name === "failed" || name === "quarantined") ? "n has-" + name : "n", "data-count": name}, stage.state === "waiting" ? "" : count(value));
        const why = stage.message || Object.entries(stage.reasons).map(([reason, units]) => reason + " " + count(units)).join(", ");
        return h("tr", {"data-stage": stage.name}, h("td", {class: "t"}, stage.name), h("td", {}, stage.kind), h("td", {}, pill(stage.state)),
          cell("total", stage.total), cell("todo", counts.todo), cell("running", counts.running), cell("committed", counts.committed), cell("reused", stage.reused),
          cell("quarantined", stage.quarantined), cell("failed", stage.failed), cell("rows", stage.rows),
          h("td", {class: "n"}, pace(stage.rate)), h("td", {class: "n"}, took(stage.eta)), h("td", {class: "n"}, stage.state === "waiting" ? "" : took(stage.finished_in)), h("td", {class: "t"}, why));
      });
      return [legend, graph(found.run), table(names, rows, [3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13])];
    }],
    chunks: ["Chunks", "", found => [found.map], chunks],
    scaling: ["Scaling", "", found => [found.scaling], found => {
      if (!found.scaling.length) return [];
      const classes = [...new Set(found.scaling.map(event => event.worker_class))].slice(0, 4);
      const lines = classes.flatMap(name => {
        const mine = found.scaling.filter(event => event.worker_class === name);
        return [{name: name + " need", key: "q", points: mine.map(event => [event.time, event.need])}, {name: name + " have", key: "c", points: mine.map(event => [event.time, event.have])}];
      });
      return [steps(lines, "", "workers"), table(["when", "class", "have", "need", "starting", "backlog"],
        found.scaling.slice(-12).reverse().map(event => h("tr", {title: (event.rule ? event.rule + ": " : "") + event.reason}, h("td", {}, clock(event.time)), h("td", {class: "t"}, event.worker_class),
          h("td", {class: "n"}, count(event.have)), h("td", {class: "n"}, count(event.need)), h("td", {class: "n"}, count(event.starting)), h("td", {class: "n"}, took(event.backlog_seconds)))), [2, 3, 4, 5])];
    }],
    alerts: ["Alerts", "", found => [found.alerts], found => found.alerts.map(one => h("div", {class: "alert " + one.kind},
      one.since ? h("span", {class: "soft"}, clock(one.since) + " ") : null, one.stage ? h("b", {}, one.stage + ": ") : null, one.text))],
    cost: ["Cost (estimate)", "", found => [found.cost], found => {
      const fact = (name, value) => h("div", {}, h("b", {}, value), h("span", {class: "soft"}, name));
      if (!found.cost.spent && !found.cost.rate) return [h("span", {class: "soft"}, "No prices: give the worker classes of the cluster price_per_hour.")];
      return [h("div", {class: "facts"}, fact("spent", money(found.cost.spent)), fact("per hour now", money(found.cost.rate)), fact("forecast of the run", money(found.cost.forecast)),
        found.cost.per_thousand === null ? null : fact("per 1,000 predictions", money(found.cost.per_thousand)))];
    }],
    trials: ["Trials", "", found => [found.trials], found => found.trials.map(one => [
      h("div", {}, h("b", {}, one.stage), ` ${count(one.done)} scored, ${count(one.failed)} failed, best `, h("b", {"data-count": "best"}, one.best === null ? "none yet" : one.best.toPrecision(6))),
      steps([{name: "best so far", points: one.curve.map(([n, score]) => [n, score]), key: "running"}], "trials", "score"),
      one.rungs.length > 1 ? h("div", {role: "list"}, one.rungs.map(rung => h("div", {role: "listitem", style: "display:flex;gap:8px;align-items:center"},
        h("span", {style: "width:5em"}, "rung " + rung.rung), h("i", {style: `height:10px;background:var(--running);width:${60 * rung.done / Math.max(...one.rungs.map(r => r.done))}%`}), h("span", {}, count(rung.done))))) : null,
      table(["trial", "rung", "score", "setting"], one.top.slice(0, 10).map(row => h("tr", {}, h("td", {class: "n"}, row.trial), h("td", {class: "n"}, row.rung), h("td", {class: "n"}, row.score.toPrecision(6)), h("td", {class: "t"}, row.params))), [0, 1, 2]),
    ])],
    workers: ["Workers", "", found => [found.fleet], found => found.fleet.count ? [
      table(["class", "workers", "busy", "memory", "GPU"], found.fleet.classes.map(row => h("tr", {}, h("td", {class: "t"}, row.class), h("td", {class: "n"}, count(row.workers)),
        h("td", {class: "n"}, row.threads ? share(row.busy / row.threads) : ""), h("td", {class: "n"}, bytes(row.memory) + (row.limit ? " of " + bytes(row.limit) : "")), h("td", {class: "n"}, row.gpu === null ? "" : share(row.gpu)))), [1, 2, 3, 4]),
      h("details", {}, h("summary", {}, "Fullest workers"), table(["worker", "state", "tasks", "memory"], found.fleet.workers.map(row => h("tr", {}, h("td", {class: "t"}, row.name), h("td", {}, row.status),
        h("td", {class: "n"}, row.busy + " / " + row.threads), h("td", {class: "n"}, bytes(row.memory) + (row.limit ? " of " + bytes(row.limit) : "")))), [2, 3]))] : []],
  };
  const NOTHING = {stages: "No stage yet.", chunks: "No map: nothing with places has run yet.", trials: "No search in this run.", scaling: "No scaling decision yet.", workers: "No worker is connected.", alerts: "Nothing needs a look.", cost: ""};

  function steps(lines, x, y) {
    const points = lines.flatMap(line => line.points);
    if (points.length < 2) return null;
    const W = Math.max(180, Math.min(400, main.clientWidth - 110)), H = 110, low = [Math.min(...points.map(p => p[0])), Math.min(...points.map(p => p[1]))], high = [Math.max(...points.map(p => p[0])), Math.max(...points.map(p => p[1]))];
    const at = (value, axis, size) => high[axis] === low[axis] ? size / 2 : (value - low[axis]) / (high[axis] - low[axis]) * size;
    const label = lines.map(line => line.name + " " + (line.points.length ? line.points[line.points.length - 1][1] : "")).join(", ");
    const number = value => String(Number(value.toPrecision(4)));
    const legend = lines.length < 2 ? null : h("div", {class: "legend"}, lines.map(line => h("span", {}, h("i", {style: `background:var(--${line.key})`}), line.name)));
    return [legend, s("svg", {viewBox: `0 0 ${W + 60} ${H + 24}`, role: "img", "aria-label": `${y}: ${label}`, style: "width:100%;max-width:560px"},
      s("title", {}, label),
      lines.map(line => s("path", {fill: "none", stroke: `var(--${line.key})`, "stroke-width": 2, d: line.points.map((p, n) => {
        const px = 46 + at(p[0], 0, W), py = 8 + H - at(p[1], 1, H);
        return n ? `H${px}V${py}` : `M${px},${py}`;
      }).join("")})),
      s("text", {x: 0, y: 14}, number(high[1])), s("text", {x: 0, y: 8 + H}, number(low[1])), s("text", {x: 46, y: H + 22}, y + (x ? " over " + x : "")))];
  }

  /* The chunk map: one dimension is wrapped; of more, the last two are a plane, and planes are laid side by side. */
  function layout(counts) {
    const total = counts.reduce((a, b) => a * b, 1);
    if (counts.length === 1) {
      const columns = Math.min(total, Math.max(1, Math.ceil(Math.sqrt(total * 4))));
      return {columns, rows: Math.ceil(total / columns), place: at => [at % columns, Math.floor(at / columns)],
              find: (x, y) => x < columns && y * columns + x < total ? y * columns + x : -1};
    }
    const w = counts[counts.length - 1], height = counts[counts.length - 2], planes = total / (w * height);
    const across = Math.max(1, Math.min(planes, Math.round(Math.sqrt(planes * 3 * height / w)))), gap = planes > 1 ? 1 : 0;
    return {columns: across * (w + gap) - gap, rows: Math.ceil(planes / across) * (height + gap) - gap,
      place: at => { const plane = Math.floor(at / (w * height)), rest = at % (w * height);
        return [plane % across * (w + gap) + rest % w, Math.floor(plane / across) * (height + gap) + Math.floor(rest / w)]; },
      find: (x, y) => { const px = Math.floor(x / (w + gap)), py = Math.floor(y / (height + gap)), ix = x % (w + gap), iy = y % (height + gap), plane = py * across + px;
        return ix < w && iy < height && px < across && plane < planes ? plane * w * height + iy * w + ix : -1; }};
  }
  function chunks(found) {
    const map = found.map;
    if (!map) return [];
    const shape = layout(map.counts), wide = Math.max(200, Math.min(620, main.clientWidth - 60));
    const size = Math.max(1, Math.min(22, Math.floor(wide / shape.columns)));
    const canvas = h("canvas", {width: shape.columns * size, height: shape.rows * size, tabindex: 0, role: "img", "data-cells": map.cells.length, "data-size": size,
      "aria-label": `${map.stage}, ${map.name}: ${count(map.units)} units, ${count(map.done)} committed, ${count(map.failed)} failed, ${count(map.todo - map.done - map.failed)} to do. Arrow keys choose a cell.`});
    const pen = canvas.getContext("2d"), colors = {};
    for (const key of "trpcqf") colors[key] = color(key);
    const inset = size > 4 ? 1 : 0;
    for (let at = 0; at < map.cells.length; at++) {
      const [x, y] = shape.place(at);
      pen.fillStyle = colors[map.cells[at]];
      pen.fillRect(x * size, y * size, size - inset, size - inset);
      if (size > 5 && map.cells[at] === "f") {  // told apart from quarantined ones without their colours, too
        pen.strokeStyle = color("card");
        pen.beginPath();
        pen.moveTo(x * size + 1, y * size + 1); pen.lineTo((x + 1) * size - 2, (y + 1) * size - 2);
        pen.moveTo((x + 1) * size - 2, y * size + 1); pen.lineTo(x * size + 1, (y + 1) * size - 2);
        pen.stroke();
      }
    }
    if (picked >= 0 && picked < map.cells.length) {
      const [x, y] = shape.place(picked);
      pen.strokeStyle = color("ink"); pen.lineWidth = 2;
      pen.strokeRect(x * size, y * size, Math.max(3, size - inset), Math.max(3, size - inset));
    }
    canvas.addEventListener("click", event => {
      const box = canvas.getBoundingClientRect(), scale = canvas.width / box.width / size;
      pick(shape.find(Math.floor((event.clientX - box.left) * scale), Math.floor((event.clientY - box.top) * scale)));
    });
    canvas.addEventListener("keydown", event => {
      const move = {ArrowLeft: -1, ArrowRight: 1, ArrowUp: -shape.columns, ArrowDown: shape.columns}[event.key];
      if (move) { event.preventDefault(); pick(Math.max(0, Math.min(map.cells.length - 1, picked + move))); }
    });
    const many = map.step.some(step => step > 1);
    const choose = map.stages.length > 1 ? h("select", {"aria-label": "stage", onchange: event => { chosen = event.target.value; picked = -1; ask(); }},
      map.stages.map(name => fill(h("option", {value: name}, name), name === map.stage ? {selected: ""} : {}, []))) : h("b", {}, map.stage);
    return [h("div", {}, choose, ` ${map.name}: ${count(map.units)} units` + (many ? `, up to ${count(map.step.reduce((a, b) => a * b, 1))} in a cell` : "") + (map.shape.length > 1 ? ` (${map.shape.map(count).join(" × ")})` : "")),
      h("div", {class: "legend"}, Object.entries(WORDS).map(([key, word]) => h("span", {}, h("i", {style: `background:var(--${key})`}), word))),
      canvas, h("div", {class: "cell", id: "daskml-cell", role: "status"}, picked < 0 ? h("span", {class: "soft"}, "Click a cell to see its units.") : "…")];
  }
  async function pick(at) {
    if (at < 0 || !data || !data.map) return;
    picked = at;
    drawn.chunks = null;
    draw();
    const answer = await fetch("workflow.json?" + new URLSearchParams({page: 1, run: data.run.run, map: data.map.stage, cell: at}));
    const cell = await answer.json();
    const node = document.getElementById("daskml-cell");  // now: the map may have been drawn anew meanwhile
    if (!node || picked !== at || cell.at === undefined) return;
    const where = cell.ranges.map(([a, b]) => a === b ? a : a + "–" + b).join(", ");
    const facts = [`${cell.name} ${where}`, `${count(cell.units)} unit${cell.units === 1 ? "" : "s"}`, cell.todo && cell.todo < cell.units ? `${count(cell.todo)} to run` : "", cell.done ? `${count(cell.done)} committed` : "",
      cell.failed ? `${count(cell.failed)} failed` : "", cell.quarantined ? `${count(cell.quarantined)} with rows without a result` : "", cell.done ? took(cell.seconds) + " each" : ""].filter(Boolean).join(" · ");
    node.replaceChildren(h("div", {}, facts), cell.unit ? h("div", {}, h("b", {}, cell.unit), cell.worker ? " on " + cell.worker : "", cell.why ? ": " + cell.why : "") : cell.todo ? "not run yet" : "reused");
    node.dataset.at = at;
  }

  function head(found) {
    const one = found.run, rate = one.stages.filter(stage => stage.state === "running").reduce((sum, stage) => sum + stage.rate, 0);
    const left = one.stages.map(stage => stage.eta).filter(eta => eta !== null);
    const history = rates[one.run] = rates[one.run] || [];
    if (one.state === "running") { history.push([found.time, rate]); history.splice(0, history.length - 240); }
    const facts = [one.run ? "run " + one.run : "", one.started ? "started " + clock(one.started) : "", took(one.elapsed), rate ? pace(rate).replace("/", " units/") : "", left.length ? took(Math.max(...left)) + " left" : "",
      count(found.fleet.count) + (found.fleet.count === 1 ? " worker" : " workers"), found.backlog && found.backlog.units ? count(found.backlog.units) + " units in the backlog" + (found.backlog.seconds === null ? "" : " (" + took(found.backlog.seconds) + " of work)") : ""];
    const others = found.others.filter(other => other.run !== one.run).slice(0, 12);
    return [h("header", {}, h("h1", {}, one.workflow || (one.stages.length ? "Python session" : "No workflow yet")), pill(one.state), h("b", {"data-count": "percent"}, Math.floor(100 * one.fraction) + " %"),
        history.length < 2 ? null : s("svg", {viewBox: "0 0 120 24", width: 120, height: 24, role: "img", "aria-label": "throughput, " + (pace(rate) || "none now")},
          s("polygon", {fill: "var(--running)", "fill-opacity": 0.3, points: "0,24 " + history.map((p, n) => `${(120 * n / Math.max(1, history.length - 1)).toFixed(1)},${(23 - 22 * p[1] / Math.max(1e-9, ...history.map(q => q[1]))).toFixed(1)}`).join(" ") + " 120,24"}))),
      h("div", {class: "soft"}, facts.filter(Boolean).join(" · ")),
      found.known ? null : h("div", {}, "Run " + run.slice(0, 60) + " has not reported to this scheduler; this is the newest one."),
      one.message ? h("div", {}, one.message) : null,
      one.stages.length ? null : h("div", {}, "No workflow has reported to this scheduler. Start one with: daskml-scale run"),
      others.length ? h("div", {}, h("span", {class: "soft"}, "Other runs: "), others.map(other => [h("a", {href: "?run=" + encodeURIComponent(other.run)}, (other.workflow || "Python session") + " " + other.run), " ", h("span", {class: "soft"}, other.state), "  "])) : null];
  }

  const top = h("div", {}), cards = h("div", {class: "cards"}), lost = h("div", {}), left = h("div", {class: "column"}), right = h("div", {class: "column"});
  const beside = {chunks: left, scaling: left, workers: left, trials: right, cost: right, alerts: right};
  const places = {};
  main.append(lost, top, cards);
  for (const [name, [title, kind]] of Object.entries(SECTIONS)) {
    if (only && only !== name) continue;
    places[name] = h("div", {});
    (only ? cards : beside[name] || cards).append(h("section", {class: kind, id: "daskml-" + name, "aria-label": title}, h("h2", {}, title), places[name]));
  }
  if (!only) cards.append(left, right);
  function draw() {
    for (const stage of data.run.stages) stage.finished_in = stage.wall || (stage.started && stage.state === "running" ? data.time - stage.started : 0);
    if (!only) top.replaceChildren(...head(data).filter(Boolean));
    for (const [name, place] of Object.entries(places)) {
      const key = JSON.stringify(SECTIONS[name][2](data));
      if (drawn[name] === key) continue;
      drawn[name] = key;
      const open = place.querySelector("details[open]") !== null, focus = place.contains(document.activeElement), cell = name === "chunks" && document.getElementById("daskml-cell");
      const found = SECTIONS[name][3](data).flat(Infinity).filter(Boolean);
      place.replaceChildren(...(found.length ? found : [h("span", {class: "soft"}, NOTHING[name])]));
      if (open && place.querySelector("details")) place.querySelector("details").open = true;
      if (cell && cell.dataset.at === String(picked)) document.getElementById("daskml-cell")?.replaceWith(cell);
      if (focus) place.querySelector("canvas")?.focus();
    }
  }
  async function ask() {
    const asked = new URLSearchParams({page: 1, run, map: chosen});
    try {
      const answer = await fetch("workflow.json?" + asked, {cache: "no-store"});
      if (!answer.ok) throw new Error(answer.status === 401 ? "open the printed link again" : "HTTP " + answer.status);
      const found = await answer.json();
      if (!found.run) throw new Error("this scheduler has no workflow plugin");
      data = found;
      failures = 0;
      lost.replaceChildren();
      draw();
      window.daskml = {data, drawn: (window.daskml?.drawn || 0) + 1, painted: window.daskml?.painted ?? performance.now()};
    } catch (error) {
      failures += 1;
      if (failures > 1) lost.replaceChildren(h("span", {class: "lost", role: "alert"}, "The scheduler does not answer (" + error.message + "); what is shown may be old."));
    }
  }
  async function follow() {
    if (!document.hidden) await ask();
    const still = data && data.run.state !== "running" && data.run.state !== "waiting";
    setTimeout(follow, failures ? Math.min(10000, 1000 * failures) : still ? 3000 : 1000);
  }
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => { drawn.chunks = null; if (data) draw(); });
  document.addEventListener("visibilitychange", () => { if (!document.hidden) ask(); });
  follow();
})();
