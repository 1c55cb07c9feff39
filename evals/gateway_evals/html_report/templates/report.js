"use strict";
(async () => {
  const $ = (id) => document.getElementById(id);
  const make = (tag, text, kind) => {
    const element = document.createElement(tag);
    if (text !== undefined) element.textContent = text;   // never as markup: models wrote it
    if (kind) element.className = kind;
    return element;
  };
  const MARKS = { r: ["✓", "right"], p: ["◐", "partly right"], w: ["✗", "wrong"], u: ["?", "no answer found"],
    f: ["!", "failed"], s: ["•", "scored"], "-": ["–", "not asked"] };
  const HEIGHT = 56, SPARE = 6;

  const bytes = Uint8Array.from(atob($("packed").textContent), (c) => c.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  const data = await new Response(stream).json();
  $("packed").remove();
  const total = data.doc.length;
  $("browser").hidden = false;

  data.tasks.forEach((task, index) => $("task").append(new Option(task.title || task.name, index)));
  data.models.forEach((name, index) => $("of").append(new Option(name, index)));
  if (data.models.length < 2) $("of").parentElement.hidden = $("disagree").parentElement.hidden = true;

  // Lower case once, not at each key.
  const texts = new Array(total);
  const text = (i) => texts[i] ??= [data.question[i], data.target[i], ...data.said.map((said) => said.answer[i])].join("\n").toLowerCase();

  let shown = [], chosen = -1, pair = [0, Math.min(1, data.models.length - 1)];

  function filter() {
    const began = performance.now();
    const words = $("search").value.toLowerCase().trim(), task = $("task").value, status = $("status").value;
    const of = $("of").value, disagree = $("disagree").checked;
    const asked = of === "" ? data.said : [data.said[+of]];
    const kept = [];
    for (let i = 0; i < total; i++) {
      if (task !== "" && data.task[i] !== +task) continue;
      if (status && !asked.some((said) => said.status[i] === status)) continue;
      if (of !== "" && asked[0].status[i] === "-") continue;
      if (disagree) {
        let first = "";
        if (!data.said.some((said) => {
          const one = said.status[i];
          if (one === "-") return false;
          first ||= one;
          return one !== first;
        })) continue;
      }
      if (words && !text(i).includes(words)) continue;
      kept.push(i);
    }
    const before = shown[chosen];
    shown = kept;
    chosen = shown.indexOf(before);
    $("space").style.height = `${shown.length * HEIGHT}px`;
    if (chosen < 0) $("list").scrollTop = 0;
    $("count").textContent = `${shown.length.toLocaleString("en")} of ${total.toLocaleString("en")} samples`;
    draw();
    if (chosen < 0 && shown.length) choose(0, false); else if (!shown.length) $("detail").replaceChildren(make("p", "No sample fits these filters."));
    document.documentElement.dataset.filterMs = (performance.now() - began).toFixed(1);
  }

  function draw() {
    const list = $("list"), first = Math.max(0, Math.floor(list.scrollTop / HEIGHT) - SPARE);
    const last = Math.min(shown.length, Math.ceil((list.scrollTop + list.clientHeight) / HEIGHT) + SPARE);
    $("rows").style.transform = `translateY(${first * HEIGHT}px)`;
    $("rows").replaceChildren(...Array.from({ length: Math.max(0, last - first) }, (_, n) => row(first + n)));
    if (chosen >= first && chosen < last) list.setAttribute("aria-activedescendant", `row-${chosen}`);
    else list.removeAttribute("aria-activedescendant");
  }

  function row(place) {
    const i = shown[place], element = make("div", undefined, "row");
    element.id = `row-${place}`;
    element.setAttribute("role", "option");
    element.setAttribute("aria-selected", String(place === chosen));
    element.setAttribute("aria-setsize", shown.length);
    element.setAttribute("aria-posinset", place + 1);
    const top = make("div", undefined, "top"), told = [];
    top.append(make("span", `${data.tasks[data.task[i]].title} · row ${data.doc[i]}`, "where"));
    data.said.forEach((said, m) => {
      const [glyph, word] = MARKS[said.status[i]];
      const mark = make("span", glyph, `mark ${said.status[i] === "-" ? "none" : said.status[i]}`);
      mark.title = `${data.models[m]}: ${word}`;
      told.push(mark.title);
      top.append(mark);
    });
    const line = question(i);
    element.append(top, make("div", line, "what"));
    element.setAttribute("aria-label", `${data.tasks[data.task[i]].title}, row ${data.doc[i]}. ${told.join(", ")}. ${line.slice(0, 200)}`);
    element.addEventListener("click", () => { choose(place, true); });
    return element;
  }

  // A prompt's last lines tell rows apart; its first are the same few-shot examples everywhere.
  const question = (i) => data.question[i].trim().slice(-400).split("\n").filter((line) => line.trim()).slice(-2).join(" ");

  function choose(place, go) {
    chosen = Math.max(0, Math.min(shown.length - 1, place));
    const list = $("list"), top = chosen * HEIGHT;
    if (go) {
      if (top < list.scrollTop) list.scrollTop = top;
      else if (top + HEIGHT > list.scrollTop + list.clientHeight) list.scrollTop = top + HEIGHT - list.clientHeight;
    }
    draw();
    detail(shown[chosen]);
    if (go === true && matchMedia("(max-width: 860px)").matches) $("detail").scrollIntoView({ block: "start" });
  }

  function detail(i) {
    const box = $("detail");
    const back = make("button", "Back to the list");
    back.id = "back";
    back.addEventListener("click", () => { $("list").focus(); $("list").scrollIntoView({ block: "center" }); });
    box.replaceChildren(back, make("h3", `${data.tasks[data.task[i]].title} · row ${data.doc[i]}`));
    part(box, "Question", data.question[i]);
    part(box, "Right answer", data.target[i]);
    data.models.forEach((name, m) => {
      const said = data.said[m], status = said.status[i];
      if (status === "-") return;
      const [error, latency, tokens, finish, views] = said.more[i];
      const head = make("h4");
      head.append(make("span", MARKS[status][0], `mark ${status}`), ` ${name}: ${MARKS[status][1]}`);
      box.append(head, make("pre", error || said.answer[i] || "(nothing)"));
      const facts = [];
      if (latency != null) facts.push(latency < 1 ? `${Math.round(latency * 1000)} ms` : `${latency.toFixed(2)} s`);
      if (tokens) facts.push(`${tokens} tokens`);
      if (finish) facts.push(`ended by ${finish}`);
      for (const [filter, found, extracted, values] of views) {
        const scores = Object.entries(values).map(([metric, value]) => `${metric} ${+(+value).toFixed(4)}`).join(", ");
        const seen = !extracted ? "no answer found" : found !== said.answer[i] && found ? `read as “${found.slice(0, 200)}”` : "";
        facts.push([filter === "none" ? "" : `${filter}:`, seen, scores].filter(Boolean).join(" "));
      }
      box.append(make("p", facts.filter(Boolean).join(" · "), "facts"));
    });
    if (data.models.length > 1) differences(box, i);
    box.scrollTop = 0;
  }

  function part(box, title, content) {
    if (!content) return;
    box.append(make("h4", title), make("pre", content));
  }

  function differences(box, i) {
    const line = make("div", undefined, "pair"), out = make("pre");
    const selects = [0, 1].map((side) => {
      const select = make("select");
      select.setAttribute("aria-label", side ? "Second model" : "First model");
      data.models.forEach((name, m) => select.append(new Option(name, m, false, m === pair[side])));
      select.addEventListener("change", () => { pair[side] = +select.value; show(); });
      return select;
    });
    line.append(selects[0], "against", selects[1]);
    const show = () => {
      const [a, b] = pair.map((m) => data.said[m].answer[i]);
      if (a === b) return out.replaceChildren("(the same words)");
      out.replaceChildren(...diff(words(a), words(b)).map(([kind, piece]) =>
        kind === "=" ? document.createTextNode(piece) : make(kind === "-" ? "del" : "ins", piece)));
    };
    out.setAttribute("aria-label", "Difference of the two answers");
    box.append(make("h4", "Difference, word by word"), line, out);
    show();
  }

  const words = (value) => value.match(/\s+|[\p{L}\p{N}_]+|[^\s\p{L}\p{N}_]/gu) || [];

  // Longest common subsequence of words, between what both begin and end with.
  function diff(a, b) {
    let start = 0, end = 0;
    while (start < a.length && start < b.length && a[start] === b[start]) start++;
    while (end < a.length - start && end < b.length - start && a[a.length - 1 - end] === b[b.length - 1 - end]) end++;
    const x = a.slice(start, a.length - end), y = b.slice(start, b.length - end), steps = [];
    const add = (kind, piece) => {
      const last = steps[steps.length - 1];
      if (last && last[0] === kind) last[1] += piece; else if (piece) steps.push([kind, piece]);
    };
    add("=", a.slice(0, start).join(""));
    if (x.length * y.length > 4e6) { add("-", x.join("")); add("+", y.join("")); }
    else {
      const wide = y.length + 1, best = new Uint16Array((x.length + 1) * wide);
      for (let i = x.length - 1; i >= 0; i--) for (let j = y.length - 1; j >= 0; j--)
        best[i * wide + j] = x[i] === y[j] ? best[(i + 1) * wide + j + 1] + 1 : Math.max(best[(i + 1) * wide + j], best[i * wide + j + 1]);
      let i = 0, j = 0;
      while (i < x.length || j < y.length) {
        if (i < x.length && j < y.length && x[i] === y[j]) { add("=", x[i]); i++; j++; }
        else if (j >= y.length || (i < x.length && best[(i + 1) * wide + j] >= best[i * wide + j + 1])) add("-", x[i++]);
        else add("+", y[j++]);
      }
    }
    add("=", a.slice(a.length - end).join(""));
    return steps;
  }

  let waiting = 0;
  $("search").addEventListener("input", () => { clearTimeout(waiting); waiting = setTimeout(filter, 80); });
  for (const id of ["task", "of", "status", "disagree"]) $(id).addEventListener("change", filter);
  $("list").addEventListener("scroll", draw, { passive: true });
  addEventListener("resize", draw);
  $("list").addEventListener("keydown", (event) => {
    const page = Math.floor($("list").clientHeight / HEIGHT);
    const to = { ArrowDown: chosen + 1, ArrowUp: chosen - 1, PageDown: chosen + page, PageUp: chosen - page, Home: 0, End: shown.length - 1 }[event.key];
    if (to !== undefined && shown.length) { event.preventDefault(); choose(to, "keys"); }
    else if (event.key === "Enter" && shown.length) $("detail").focus();
  });
  $("detail").addEventListener("keydown", (event) => { if (event.key === "Escape") $("list").focus(); });
  addEventListener("keydown", (event) => {
    if (event.key === "/" && !/^(INPUT|SELECT|TEXTAREA)$/.test(document.activeElement.tagName)) { event.preventDefault(); $("search").focus(); }
  });
  filter();
  document.documentElement.dataset.ready = "yes";
})();
