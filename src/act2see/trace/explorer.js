// The front end of the trace explorer: one ES module, no build step, nothing from elsewhere.
//
// The texts of a trace are hostile, as on the page: they are inserted as text (`append`, `setAttribute`), never as markup.
// The steps, their frames and the controls are created once for a trace. Scrubbing shows and hides them, so the focus does
// not move. Only the details of the chosen call are created again.

const SVG = "http://www.w3.org/2000/svg";
const HEIGHT = 96; // of a curve, in pixels

function fill(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== null && value !== undefined) node.setAttribute(name, value);
  }
  node.append(...children.flat(2).filter((c) => c !== null && c !== undefined));
  return node;
}

const el = (name, attributes = {}, ...children) => fill(document.createElement(name), attributes, children);
const svg = (name, attributes = {}, ...children) => fill(document.createElementNS(SVG, name), attributes, children);
const number = (value) => (value === null || value === undefined ? "?" : value.toFixed(2).replace("-", "−"));

function picture(frame, pictures, what) {
  const url = pictures[frame.picture];
  const kind = frame.imagined ? "imagined, not in the video" : `real, at ${frame.at}`;
  const node = el(
    "div",
    { class: `picture${frame.imagined ? " imagined" : ""}${url ? "" : " missing"}`, role: "img", "aria-label": `${what}: ${kind}` },
    url ? null : el("span", { class: "gone" }, "no picture"),
    frame.imagined ? el("span", { class: "badge" }, "imagined") : null,
  );
  const ratio = Math.min(4, Math.max(0.25, frame.width > 0 && frame.height > 0 ? frame.width / frame.height : 1));
  node.style.setProperty("--ratio", ratio);
  node.style.setProperty("--wide", Math.sqrt(ratio));
  if (url) node.style.backgroundImage = `url("${url}")`;
  if (Math.max(frame.width, frame.height) <= 96) node.style.imageRendering = "pixelated";
  return node;
}

function figure(frame, pictures, what, named, kind = "frame") {
  const facts = frame.facts.map((fact) => el("span", { class: "muted" }, fact));
  return el("figure", { class: kind }, picture(frame, pictures, what), el("figcaption", {}, el("b", {}, named), facts));
}

// A returned frame; a generated one beside its anchor, the frame that it was made from.
function returned(frame, pictures, n) {
  const named = frame.imagined ? "not in the video" : frame.at;
  if (!frame.anchor) return figure(frame, pictures, `frame ${n}`, named);
  const anchor = frame.anchor.imagined ? "its anchor" : `its anchor, real, ${frame.anchor.at}`;
  return el(
    "div",
    { class: "pair" },
    figure(frame.anchor, pictures, `anchor of imagined frame ${n}`, anchor, "anchor"),
    el("span", { class: "arrow", "aria-hidden": "true" }, "→"),
    figure(frame, pictures, `frame ${n}`, named),
  );
}

// Similarity over the clip: a dot for each candidate, filled if it was chosen.
function drawn(step, data) {
  const { low, high, seconds } = data.scale;
  const x = (time) => 100 * Math.min(1, Math.max(0, time / seconds));
  const y = (value) => 6 + (HEIGHT - 12) * (1 - (high > low ? (value - low) / (high - low) : 0.5));
  const { start, step: width, values } = step.curve;
  const points = values.flatMap((v, i) => (v === null ? [] : [`${10 * x(start + i * width)},${y(v)}`]));
  const trail = svg("polyline", { points: points.join(" "), class: "trail", "vector-effect": "non-scaling-stroke" });
  const dots = step.candidates
    .filter((c) => c.score !== null)
    .map((c) => {
      const kind = c.state === "chosen" ? `dot ${step.kind}` : "dot other";
      const told = svg("title", {}, `${c.at}, similarity ${number(c.score)}${c.mark ? `, ${c.mark}` : ""}`);
      return svg("circle", { cx: `${x(c.seconds)}%`, cy: y(c.score), r: c.state === "chosen" ? 5.5 : 3.5, class: kind }, told);
    });
  const ticks = data.scale.ticks.map(([time, label]) => svg("text", { x: `${x(time)}%`, y: HEIGHT + 16 }, label));
  const axis = svg("line", { x1: 0, x2: "100%", y1: HEIGHT, y2: HEIGHT, class: "base" });
  const inner = svg("svg", { width: "100%", height: HEIGHT, viewBox: `0 0 1000 ${HEIGHT}`, preserveAspectRatio: "none" }, trail);
  const said = `Similarity to the query over the clip, at most ${number(step.best)}`;
  return el(
    "figure",
    { class: "curve" },
    el("div", { class: "axis" }, svg("svg", { width: "100%", height: HEIGHT + 20, role: "img", "aria-label": said }, inner, axis, dots, ticks)),
    el("figcaption", { class: "muted" }, `similarity to the query, at most ${number(step.best)}`),
  );
}

function candidates(step, pictures) {
  const tiles = step.candidates.map((c, i) => {
    const what = `candidate ${i + 1}`;
    const shown = c.frame ? picture(c.frame, pictures, what) : null;
    const state = c.mark ? el("span", { class: "mark" }, c.mark) : null;
    return el("li", { class: c.state || null }, shown, el("b", {}, c.at), " ", el("span", {}, number(c.score)), " ", state);
  });
  return [el("p", { class: "muted" }, step.ranked), el("ol", { class: "candidates", role: "list" }, tiles)];
}

// The details of a call: its query, its candidates and its result.
function detail(step, data, pictures) {
  const head = el(
    "p",
    { class: "call" },
    el("span", { class: "tag" }, step.tag || "no tag"),
    " ",
    el("bdi", { class: "query" }, step.query),
    step.took ? el("span", { class: "took" }, step.took) : null,
  );
  const notes = step.notes.map(([who, words]) => el("p", { class: "note" }, el("b", {}, who), ": ", el("bdi", {}, words)));
  const frames = step.frames.map((f, i) => returned(f, pictures, step.first + i));
  const found = step.candidates.length ? [el("h3", {}, "Candidates"), candidates(step, pictures)] : [];
  return [
    head,
    notes,
    step.curve ? drawn(step, data) : null,
    found,
    el("h3", {}, frames.length ? "Returned frames" : "No frame was returned"),
    el("div", { class: "returned" }, frames),
  ];
}

function chainStep(step, choose) {
  if (step.kind === "text") {
    const note = step.author === "graph" ? el("p", { class: "note" }, "Not written by the model: the graph opened the answer.") : null;
    return [note, el("p", { class: "said", dir: "auto" }, step.text.trim())];
  }
  if (step.kind === "answer") {
    const choice = step.choice ? el("bdi", { class: "option" }, step.choice) : null;
    return [el("p", { class: "body" }, el("b", {}, step.forced ? "Made to answer: " : "Answer: "), el("bdi", {}, step.text), choice)];
  }
  const button = el(
    "button",
    { type: "button", class: `look ${step.kind}`, "aria-pressed": "false" },
    el("span", { class: "tag" }, step.tag || "no tag"),
    " ",
    el("bdi", { class: "query" }, step.query),
    el("span", { class: "took" }, step.came),
  );
  button.addEventListener("click", () => choose(step.call));
  return [button];
}

function build(model, root) {
  const data = model.get("data");
  const pictures = model.get("pictures");
  const steps = data.steps;
  const last = Math.max(0, steps.length - 1);
  const clamp = (at) => Math.min(last, Math.max(0, at));
  const callAt = (at) => steps.slice(0, at + 1).reduce((n, s) => s.call || n, 0);

  const set = (changes) => {
    for (const [name, value] of Object.entries(changes)) model.set(name, value);
    model.save_changes();
  };
  const scrub = (at) => {
    if (clamp(at) !== model.get("at")) set({ at: clamp(at), call: callAt(clamp(at)) });
  };

  const slider = el("input", { type: "range", min: 0, max: last, step: 1, "aria-label": "Step of the chain" });
  const back = el("button", { type: "button", "aria-label": "Previous step" }, "◀");
  const on = el("button", { type: "button", "aria-label": "Next step" }, "▶");
  const where = el("output", { class: "where" });
  slider.addEventListener("input", () => scrub(Number(slider.value)));
  back.addEventListener("click", () => scrub(model.get("at") - 1));
  on.addEventListener("click", () => scrub(model.get("at") + 1));

  const tiles = [];
  const seen = (frames, from) => {
    for (const frame of frames) {
      const what = from < 0 ? "frame given at the start" : "returned frame";
      const caption = el("figcaption", {}, frame.imagined ? `from ${frame.at}` : frame.at);
      tiles.push({ from, node: el("li", {}, el("figure", {}, picture(frame, pictures, what), caption)) });
    }
  };
  seen(data.initial, -1);
  const rows = steps.map((step, i) => {
    if (step.frames) seen(step.frames, i);
    return el("li", { class: `step ${step.kind}` }, chainStep(step, (call) => set({ call })));
  });
  const about = el("div", { class: "detail", role: "region", "aria-label": "The chosen call" });
  const earlier = data.earlier.map(([question, answer]) =>
    el("li", {}, el("bdi", {}, question), " ", el("bdi", { class: "said" }, answer)),
  );
  const options = data.options.map(([letter, text, chosen]) =>
    el("li", { class: chosen ? "chosen" : null }, el("span", { class: "letter" }, letter), el("bdi", {}, text)),
  );

  root.replaceChildren(
    el("p", { class: "eyebrow" }, el("bdi", {}, data.file), ` · ${data.seconds}`),
    earlier.length ? el("ol", { class: "earlier", role: "list", "aria-label": "Asked before" }, earlier) : "",
    el("p", { class: "question", dir: "auto" }, data.question),
    options.length ? el("ol", { class: "options", role: "list" }, options) : "",
    el("div", { class: "scrub" }, back, slider, on, where),
    el("p", { class: "muted" }, "In the model's view at this step"),
    el("ol", { class: "tiles", role: "list" }, tiles.map((t) => t.node)),
    el("div", { class: "columns" }, el("ol", { class: "steps", role: "list" }, rows), about),
  );

  const moved = () => {
    const at = clamp(model.get("at"));
    slider.value = at;
    const step = steps[at];
    const name = step ? (step.call ? `${step.tag || "no tag"}, call ${step.call}` : step.kind) : "nothing was written";
    where.textContent = steps.length ? `${at + 1} of ${steps.length}: ${name}` : name;
    slider.setAttribute("aria-valuetext", where.textContent);
    back.disabled = at === 0;
    on.disabled = at === last;
    rows.forEach((row, i) => {
      row.hidden = i > at;
      row.classList.toggle("current", i === at);
    });
    for (const tile of tiles) tile.node.hidden = tile.from > at;
  };
  const chosen = () => {
    const call = model.get("call");
    steps.forEach((step, i) => {
      if (step.call) rows[i].querySelector("button").setAttribute("aria-pressed", String(step.call === call));
    });
    const step = steps.find((s) => s.call && s.call === call);
    const none = steps.some((s) => s.call) ? "Choose a call, or move to one." : "This run made no call.";
    about.className = `detail look ${step ? step.kind : ""}`;
    about.replaceChildren(...(step ? detail(step, data, pictures) : [el("p", { class: "muted" }, none)]).flat(2).filter(Boolean));
  };
  moved();
  chosen();
  return { moved, chosen, scrub, last };
}

function render({ model, el: place }) {
  // Notebooks have shortcuts for arrow keys; with this attribute JupyterLab leaves them to the explorer.
  const root = el("div", { class: "a2s fragment explorer", role: "group", "aria-label": "Trace explorer", "data-lm-suppress-shortcuts": "true" });
  place.append(root);
  let built = build(model, root);
  const again = () => {
    built = build(model, root);
  };
  const moved = () => built.moved();
  const chosen = () => built.chosen();
  root.addEventListener("keydown", (event) => {
    if (event.altKey || event.ctrlKey || event.metaKey || event.shiftKey || event.target.type === "range") return;
    const at = model.get("at");
    const to = { ArrowLeft: at - 1, ArrowRight: at + 1, Home: 0, End: built.last }[event.key];
    if (to === undefined) return;
    event.preventDefault();
    event.stopPropagation();
    built.scrub(to);
  });
  const heard = { "change:data": again, "change:pictures": again, "change:at": moved, "change:call": chosen };
  for (const [name, what] of Object.entries(heard)) model.on(name, what);
  return () => {
    for (const [name, what] of Object.entries(heard)) model.off(name, what);
  };
}

export default { render };
