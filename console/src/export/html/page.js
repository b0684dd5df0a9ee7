"use strict";
// Paints what the recorder's emulator saw. Everything from the session is put in as text, never as markup.
(() => {
  const at = (id) => document.getElementById(id);
  const frames = JSON.parse(at("frames").textContent);
  const { about, styles, marks, length, cut, marks_left_out } = JSON.parse(at("session").textContent);
  const BASE = ["#3b414c", "#e5707a", "#94c97a", "#e2bf76", "#6aaef0", "#c880dc", "#5fbcc6", "#ccd2dc",
    "#6b7483", "#f48c95", "#aee096", "#f2d48e", "#8cc4ff", "#dc9cee", "#80d6df", "#ffffff"];
  const FRONT = "#d8dce3", BACK = "#16181d";

  const palette = (index) => {
    if (index < 16) return BASE[index];
    if (index > 231) { const grey = 8 + 10 * (index - 232); return `rgb(${grey},${grey},${grey})`; }
    const part = (n) => { const step = Math.floor((index - 16) / n) % 6; return step ? 55 + 40 * step : 0; };
    return `rgb(${part(36)},${part(6)},${part(1)})`;
  };
  const colour = (value) => (value === null ? null : typeof value === "number" ? palette(value) : value);
  const looks = styles.map(([fore, back, letters]) => {
    const bright = letters.includes("b") && typeof fore === "number" && fore < 8 ? fore + 8 : fore;
    let front = colour(bright), ground = colour(back);
    if (letters.includes("v")) [front, ground] = [ground ?? BACK, front ?? FRONT];
    return { front, ground, letters };
  });

  let cols = 80, rows = [], cursor = null, shown = -1, now = 0, playing = false, ticked = 0, typed = "";
  const screen = at("screen"), lines = [], caret = document.createElement("span");
  caret.className = "cursor";

  const blank = (count) => Array.from({ length: count }, () => []);
  // Changes the rows; says which ones have to be painted.
  const apply = (state, frame) => {
    if (frame.n) return [];
    let dirty = null;
    if (frame.k) { state.rows = blank(frame.z[1]); state.cols = frame.z[0]; }
    else if (frame.u) { state.rows.splice(0, frame.u); state.rows.push(...blank(frame.u)); }
    else dirty = (frame.r ?? []).map(([row]) => row);
    for (const [row, runs] of frame.r ?? []) state.rows[row] = runs;
    state.cursor = frame.c;
    return dirty;
  };
  const paintRow = (row) => {
    const line = lines[row];
    line.textContent = "";
    for (const [col, style, text, wide] of rows[row]) {
      const span = document.createElement("span"), look = looks[style];
      span.textContent = text;
      span.style.left = `${col}ch`;
      span.style.width = `${[...text].length * (wide ? 2 : 1)}ch`;
      if (look.front) span.style.color = look.front;
      if (look.ground) span.style.background = look.ground;
      if (look.letters.includes("b")) span.style.fontWeight = "bold";
      if (look.letters.includes("f")) span.style.opacity = "0.6";
      if (look.letters.includes("i")) span.style.fontStyle = "italic";
      const drawn = [look.letters.includes("u") && "underline", look.letters.includes("s") && "line-through"];
      if (drawn.some(Boolean)) span.style.textDecoration = drawn.filter(Boolean).join(" ");
      line.append(span);
    }
  };
  const paint = (dirty) => {
    while (lines.length > rows.length) lines.pop().remove();
    while (lines.length < rows.length) { const line = document.createElement("div"); lines.push(line); screen.append(line); }
    screen.style.width = `${cols}ch`;
    for (const row of dirty ?? rows.keys()) paintRow(row);
    if (cursor && lines[cursor[1]]) { caret.style.left = `${cursor[0]}ch`; lines[cursor[1]].append(caret); } else caret.remove();
    at("typed").textContent = typed;
  };

  const indexAt = (t) => {
    let low = 0, high = frames.length;
    while (low < high) { const middle = (low + high) >> 1; if (frames[middle].t <= t) low = middle + 1; else high = middle; }
    return low - 1;
  };
  const show = (index) => {
    if (index === shown) return;
    let from = shown + 1, dirty = new Set();
    if (index < shown || index - shown > 300) {
      from = Math.max(index, 0);
      while (from > 0 && !frames[from].k) from -= 1;
      dirty = null; typed = "";
    }
    const state = { rows, cols, cursor };
    for (let i = from; i <= index; i += 1) {
      const changed = apply(state, frames[i]);
      if (frames[i].i) typed = (typed + frames[i].i).slice(-200);
      if (changed && dirty) changed.forEach((row) => dirty.add(row)); else dirty = null;
    }
    ({ rows, cols, cursor } = state);
    if (index < 0) { rows = []; cursor = null; dirty = null; }
    shown = index;
    paint(dirty);
  };

  const clock = (ms) => {
    const s = Math.floor(ms / 1000), two = (n) => String(n).padStart(2, "0");
    return s < 3600 ? `${Math.floor(s / 60)}:${two(s % 60)}` : `${Math.floor(s / 3600)}:${two(Math.floor(s / 60) % 60)}:${two(s % 60)}`;
  };
  const items = [];
  const go = (t) => {
    now = Math.min(Math.max(t, 0), length);
    show(indexAt(now));
    at("seek").value = now;
    at("time").textContent = `${clock(now)} / ${clock(length)}`;
    let current = -1;
    marks.forEach((mark, i) => { if (mark.t <= now) current = i; });
    items.forEach((item, i) => item.classList.toggle("now", i === current));
  };
  const tick = (time) => {
    if (!playing) return;
    let next = now + (time - ticked) * Number(at("speed").value);
    ticked = time;
    const coming = frames[shown + 1];
    const idle = about.idle_limit * 1000;
    // A pause is shown for so long only, then what ends it comes.
    if (at("idle").checked) {
      const since = shown >= 0 ? frames[shown].t : 0, until = coming ? coming.t : length;
      if (until - since > idle && next - since >= idle) next = Math.max(next, until);
    }
    go(next);
    if (now >= length) play(false); else requestAnimationFrame(tick);
  };
  const play = (on) => {
    if (on && now >= length) go(0);
    playing = on;
    at("play").textContent = on ? "Pause" : "Play";
    if (on) { ticked = performance.now(); requestAnimationFrame(tick); }
  };
  const step = () => { play(false); if (frames[shown + 1]) go(frames[shown + 1].t); };
  const jump = (direction) => {
    const before = marks.filter((mark) => mark.t < now - 500), after = marks.find((mark) => mark.t > now);
    const target = direction > 0 ? after : before[before.length - 1];
    if (target) go(target.t);
  };
  const faster = (direction) => {
    const speed = at("speed");
    speed.selectedIndex = Math.min(Math.max(speed.selectedIndex + direction, 0), speed.options.length - 1);
  };
  const search = (query) => {
    const wanted = query.toLowerCase();
    if (!wanted) return;
    play(false);
    const has = (runs) => runs.map((run) => run[2]).join("").toLowerCase().includes(wanted);
    for (let i = shown + 1; i < frames.length; i += 1) {
      if ((frames[i].r ?? []).some(([, runs]) => has(runs))) {
        // The page has jumped there; the text may stand anywhere on it.
        at("found").textContent = `at ${clock(frames[i].t)}`;
        return go(frames[i].t);
      }
    }
    at("found").textContent = "not found behind here";
  };

  const element = (name, parent, className, text) => {
    const made = document.createElement(name);
    if (className) made.className = className;
    if (text !== undefined) made.textContent = text;
    parent.append(made);
    return made;
  };
  const list = () => {
    for (const mark of marks) {
      const gap = mark.n === undefined;
      const tick = element("i", at("marks"), gap ? "gap" : "");
      tick.style.left = `${length ? (100 * mark.t) / length : 0}%`;
      const item = element("li", at("commands"), gap ? "gap" : "");
      const button = element("button", item);
      button.type = "button";
      element("span", button, "at", clock(mark.t));
      element("code", button, "", mark.text);
      const failed = mark.exit !== undefined && mark.exit !== 0;
      element("span", button, failed ? "how bad" : "how", failed ? `exit ${mark.exit}` : mark.ms === undefined ? "" : `${(mark.ms / 1000).toFixed(1)} s`);
      button.addEventListener("click", () => go(mark.t));
      items.push(item);
    }
    if (!marks.length) element("li", at("commands"), "none", "None were recognised.");
    if (marks_left_out) element("li", at("commands"), "none", `… and ${marks_left_out} more, for which the page has no room`);
  };
  const say = (text) => { at("notice").hidden = false; at("notice").append(text, document.createElement("br")); };
  const hash = () => {
    const [, name, value] = /^#(t|c)=([0-9.]+)$/.exec(location.hash) ?? [];
    if (name === "t") go(Number(value) * 1000);
    const command = name === "c" && marks.find((mark) => mark.n === Number(value));
    if (command) go(command.t);
    return Boolean(name);
  };

  if (about.title) { at("title").textContent = about.title; document.title = about.title; }
  const started = about.started_at ? `${about.started_at.replace("T", " ").replace(/\..*|Z$/, "")} UTC · ` : "";
  at("about").textContent = `${started}${clock(length)} · session ${about.session} · channel ${about.channel}`;
  if (!about.finished) say("The session was not finished when this page was made.");
  if (cut !== null) say(`The session is longer than this page may be: it ends after ${clock(cut)}.`);
  at("typed").hidden = !frames.some((frame) => frame.i);
  at("idle").parentElement.title = `Pauses last ${about.idle_limit} s at most`;
  at("seek").max = length;
  at("seek").addEventListener("input", () => go(Number(at("seek").value)));
  at("play").addEventListener("click", () => play(!playing));
  at("step").addEventListener("click", step);
  at("find").addEventListener("submit", (event) => { event.preventDefault(); search(at("query").value); });
  addEventListener("hashchange", hash);
  addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.altKey || event.metaKey || ["search", "select-one"].includes(event.target.type)) return;
    const seconds = event.shiftKey ? 60 : 5;
    const act = {
      " ": () => play(!playing), ".": step, "]": () => jump(1), "[": () => jump(-1),
      "+": () => faster(1), "-": () => faster(-1), "/": () => at("query").focus(),
      ArrowLeft: () => go(now - 1000 * seconds), ArrowRight: () => go(now + 1000 * seconds),
    }[event.key];
    if (act && !(event.key === " " && event.target.tagName === "BUTTON")) { event.preventDefault(); act(); }
  });
  list();
  if (!hash()) go(0);
})();
