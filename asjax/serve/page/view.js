// What people see of a result: rows of sounds over time, events, tables, and the files to download.
//   result: {name, duration_s, windows, p, logits, events, frames, frame_rate, peaks}
"use strict";

const $ = (id) => document.getElementById(id);

function make(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  node.append(...children);
  return node;
}

const shown = (p) => (p >= 0.9995 ? "1.00" : p.toFixed(2));
const seconds = (t) => `${t.toFixed(t < 100 ? 2 : 1)} s`;

class View {
  constructor(about) {
    this.labels = about.labels;
    this.few = 8;
    this.many = 20;
    this.most = this.few;
    new ResizeObserver(() => this.draw()).observe($("timeline"));
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.draw());
    $("more").onclick = () => {
      this.most = this.most === this.few ? this.many : this.few;
      this.show(this.result);
    };
    $("numbers").ontoggle = () => this.table();
  }

  // Indices of classes, the most probable first; those with events are always among them.
  chosen(result) {
    const order = Array.from(result.p.keys()).sort((a, b) => result.p[b] - result.p[a]);
    const first = order.slice(0, this.most), with_events = new Set((result.events || []).map((e) => e.index));
    return [...first, ...order.slice(this.most).filter((c) => with_events.has(c))].slice(0, this.many);
  }

  show(result) {
    this.result = result;
    this.classes = this.chosen(result);
    const rows = $("rows");
    while (rows.children.length > this.classes.length) rows.lastChild.remove();
    this.classes.forEach((c, i) => {
      if (!rows.children[i]) rows.append(this.row());
      const name = this.labels[c].name, [label, value] = rows.children[i].firstChild.children;
      label.textContent = label.title = name;
      value.textContent = shown(result.p[c]);
    });
    const extra = Math.min(this.many, this.labels.length) > this.few;
    $("more").hidden = !extra;
    $("more").textContent = this.most === this.few ? "Show more sounds" : "Show fewer sounds";
    $("cursor").setAttribute("aria-valuemax", result.duration_s.toFixed(2));
    this.axis();
    this.draw();
    this.events();
    this.table();
  }

  row() {
    const label = make("span", { class: "label" }, make("b"), make("i", { class: "number" }));
    const strip = make("span", { class: "strip" }, make("canvas", { "aria-hidden": "true" }));
    return make("div", { class: "row", role: "listitem" }, label, strip);
  }

  axis() {
    const { duration_s } = this.result, axis = $("axis"), wide = axis.clientWidth || 600;
    const steps = [0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 1800, 3600];
    const step = steps.find((s) => (s / duration_s) * wide >= 60) || 7200;
    axis.replaceChildren();
    for (let k = 0; k * step <= duration_s * 1.0001; k++) {
      const at = (k * step) / duration_s, text = step < 1 ? (k * step).toFixed(1) : sound.clock(k * step);
      const tick = make("span", {}, text);
      tick.style.left = `${100 * at}%`;
      tick.className = k === 0 ? "first" : at * wide > wide - 16 ? "last" : "";
      axis.append(tick);
    }
  }

  draw() {
    if (!this.result || $("result").hidden) return;
    const style = getComputedStyle(document.documentElement);
    const colour = (name) => style.getPropertyValue(name).trim();
    paint($("cursor").firstChild, (g, w, h) => {
      const { peaks } = this.result;
      if (!peaks || !peaks.length) return;
      g.fillStyle = colour("--wave");
      for (let x = 0; x < w; x++) {
        const from = Math.floor((x * peaks.length) / w), end = Math.max(from + 1, Math.floor(((x + 1) * peaks.length) / w));
        let top = 0;
        for (let i = from; i < end; i++) top = Math.max(top, peaks[i]);
        const tall = Math.max(1, top * (h - 6));
        g.fillRect(x, (h - tall) / 2, 1, tall);
      }
    });
    this.classes.forEach((c, i) => {
      paint($("rows").children[i].lastChild.firstChild, (g, w, h, scale) => this.strip(g, w, h, scale, c, colour));
    });
  }

  // One class over time: its probability as height, and its events as bars.
  strip(g, w, h, scale, c, colour) {
    const { windows, frames, frame_rate, duration_s, events } = this.result;
    g.fillStyle = colour("--link");
    const bar = (x, p, wide) => {
      const tall = Math.round(p * h);
      if (tall) g.fillRect(x, h - tall, wide, tall);
    };
    if (frames) {
      g.globalAlpha = 0.55;
      const classes = this.labels.length, count = frames.length / classes, per = (duration_s * frame_rate) / w;
      for (let x = 0; x < w; x++) {
        const from = Math.floor(x * per), end = Math.min(count, Math.max(from + 1, Math.floor((x + 1) * per)));
        let top = 0;
        for (let t = from; t < end; t++) top = Math.max(top, frames[t * classes + c]);
        bar(x, top, 1);
      }
    } else {
      g.globalAlpha = events ? 0.55 : 0.85;
      let from = 0;
      for (const { end_s, p } of windows) {
        const x = Math.round((from / duration_s) * w), end = Math.round((end_s / duration_s) * w);
        const gap = end - x > 6 * scale ? scale : 0; // windows are told apart where there is room
        bar(x, p[c], end - x - gap);
        from = end_s;
      }
    }
    g.globalAlpha = 1;
    g.fillStyle = colour("--event");
    for (const e of events || []) {
      if (e.index !== c) continue;
      const x = Math.round((e.onset_s / duration_s) * w), end = Math.round((e.offset_s / duration_s) * w);
      g.beginPath();
      g.roundRect(x, h - 6 * scale, Math.max(2 * scale, end - x), 6 * scale, 2 * scale);
      g.fill();
    }
  }

  // The probabilities at a time: of the frame, or of the window that is drawn there.
  at(t) {
    const { windows, frames, frame_rate } = this.result, classes = this.labels.length;
    if (frames) {
      const frame = Math.min(frames.length / classes - 1, Math.max(0, Math.floor(t * frame_rate)));
      return frames.subarray(frame * classes, (frame + 1) * classes);
    }
    const found = windows.find((w) => w.end_s > t) || windows[windows.length - 1];
    return found && found.p;
  }

  words(t) {
    const p = this.at(t);
    if (!p) return seconds(t);
    const best = [...this.classes].sort((a, b) => p[b] - p[a]).slice(0, 3);
    return `${seconds(t)}: ${best.map((c) => `${this.labels[c].name} ${shown(p[c])}`).join(" · ")}`;
  }

  events() {
    const { events } = this.result, most = 200;
    for (const id of ["events", "events-csv", "legend"]) $(id).hidden = !events;
    if (!events) return;
    const body = $("events").querySelector("tbody");
    body.replaceChildren(
      ...events.slice(0, most).map((e, i) => {
        const { name } = this.labels[e.index];
        const button = make("button", { type: "button", "data-event": i, "aria-label": `Play ${name} from ${seconds(e.onset_s)}` }, "▶");
        return make(
          "tr", {}, make("td", {}, button), make("td", { class: "mark" }, name),
          ...[e.onset_s.toFixed(2), e.offset_s.toFixed(2), shown(e.p)].map((text) => make("td", { class: "n" }, text)),
        );
      }),
    );
    $("events-note").textContent = !events.length
      ? "No sound is above the threshold of its class."
      : events.length > most ? `The first ${most} of ${events.length} events. The CSV has all of them.` : "";
  }

  table() {
    if (!$("numbers").open || !this.result) return;
    const { windows } = this.result, most = 200, table = $("numbers").querySelector("table");
    const head = ["From (s)", "To (s)", ...this.classes.map((c) => this.labels[c].name)];
    const line = (cells, tag) => make("tr", {}, ...cells.map((text) => make(tag, tag === "th" ? { scope: "col", class: "n" } : { class: "n" }, text)));
    const rows = windows.slice(0, most).map((w) => line([w.start_s.toFixed(2), w.end_s.toFixed(2), ...this.classes.map((c) => shown(w.p[c]))], "td"));
    table.replaceChildren(make("thead", {}, line(head, "th")), make("tbody", {}, ...rows));
    $("numbers-note").textContent = windows.length > most
      ? `The first ${most} of ${windows.length} windows and the sounds of the timeline. The CSV has everything.`
      : "The sounds of the timeline. The CSV has every class.";
  }
}

function paint(canvas, drawn) {
  const scale = Math.min(3, window.devicePixelRatio || 1), box = canvas.getBoundingClientRect();
  const w = (canvas.width = Math.max(1, Math.round(box.width * scale)));
  const h = (canvas.height = Math.max(1, Math.round(box.height * scale)));
  drawn(canvas.getContext("2d"), w, h, scale);
}

// ------------------------------------------------------------------------------------ downloads

const digits = (p) => Number(p.toPrecision(7));
const field = (text) => (/[",\n\r]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text);
const lines = (rows) => rows.map((row) => row.map((cell) => field(String(cell))).join(",")).join("\n") + "\n";

const downloads = {
  csv({ name, windows }, labels) {
    const taken = new Set(["file", "start_s", "end_s"]);
    const columns = labels.map((l) => (taken.has(l.name.toLowerCase()) ? `${l.name} [${l.id}]` : l.name));
    const rows = windows.map((w) => [name, w.start_s.toFixed(6), w.end_s.toFixed(6), ...Array.from(w.p, digits)]);
    return [lines([[...taken, ...columns], ...rows]), "tags.csv", "text/csv"];
  },
  events({ name, events }, labels) {
    const rows = events.map((e) => [name, e.onset_s.toFixed(6), e.offset_s.toFixed(6), labels[e.index].name, digits(e.p)]);
    return [lines([["filename", "onset", "offset", "event_label", "probability"], ...rows]), "events.csv", "text/csv"];
  },
  json({ name, duration_s, p, logits, windows, events }, labels, model) {
    const order = Array.from(p.keys()).sort((a, b) => logits[b] - logits[a]);
    const tag = (c) => ({ label: labels[c].name, id: labels[c].id, p: digits(p[c]), logit: digits(logits[c]) });
    const found = { file: name, model, duration_s, tags: order.map(tag) };
    found.windows = windows.map((w) => ({ start_s: w.start_s, end_s: w.end_s, p: Array.from(w.p, digits) }));
    if (events) {
      found.events = events.map((e) => ({
        onset_s: e.onset_s, offset_s: e.offset_s, label: labels[e.index].name, id: labels[e.index].id, p: digits(e.p),
      }));
    }
    found.classes = labels.map((l) => l.name);
    return [JSON.stringify(found, null, 1) + "\n", "tags.json", "application/json"];
  },
};

function save([text, ending, type], name) {
  const url = URL.createObjectURL(new Blob([text], { type }));
  make("a", { href: url, download: `${name.replace(/\.[^.]*$/, "")}.${ending}` }).click();
  setTimeout(() => URL.revokeObjectURL(url), 10_000);
}
