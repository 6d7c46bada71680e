// The page: what its buttons, keys and files do.
"use strict";

const HOP_S = 1; // between two results of the microphone
const MIC_S = 600; // as long as the microphone may listen
let about, engine, view, work = null, mic = null, playing = null, url = "";

const audio = $("audio");
const announce = (text) => ($("status").textContent = text);

function fail(text) {
  $("error").textContent = text;
  $("error").hidden = !text;
}

function busy(text, share = null) {
  $("busy").hidden = !text;
  $("doing").textContent = text || "";
  if (share === null) $("progress").removeAttribute("value");
  else $("progress").value = share;
}

// ---------------------------------------------------------------------------------------- start

async function start() {
  $("cancel").hidden = true;
  busy("Loading the model");
  try {
    const answer = await fetch("labels.json");
    if (!answer.ok) throw new Error(`labels.json: the server answered ${answer.status}`);
    about = await answer.json();
    if (about.onnx && typeof WebAssembly === "undefined") throw new Error("this browser has no WebAssembly");
    const mb = (n) => (n / 1e6).toFixed(1);
    engine = about.onnx
      ? new Browser(about, (got, total) => busy(`Loading the model: ${mb(got)}${total ? ` of ${mb(total)}` : ""} MB`, total ? Math.min(1, got / total) : null))
      : new Service(about);
    await engine.loaded;
  } catch (error) {
    busy("");
    $("where").textContent = "";
    const hint = location.protocol === "file:" ? "Browsers load it only from a web server: run python -m http.server in this folder." : "Load the page again, or make it anew with asjax demo.";
    return fail(`The model cannot be loaded (${error.message}). ${hint}`);
  }
  busy("");
  $("cancel").hidden = false;
  const khz = about.sample_rate / 1000, n = about.labels.length;
  $("model").textContent = `${about.name} · ${n} ${n === 1 ? "class" : "classes"} · ${khz} kHz · windows of ${about.clip_s} s`;
  const local = ["localhost", "127.0.0.1", "[::1]"].includes(location.hostname);
  $("where").textContent = about.onnx
    ? "The model runs inside this page. No sound leaves this machine."
    : `Sound goes to asjax serve ${local ? "on this machine and nowhere else" : `at ${location.host}`}.`;
  view = new View(about);
  $("choose").disabled = $("mic").disabled = false;
  document.body.dataset.ready = "1";
  announce("The model is ready.");
}

// ------------------------------------------------------------------------------------ recordings

async function open(file) {
  if (mic) stopListening(false);
  await analyse(file.name, file, async (source, signal) => {
    try {
      const found = await sound.decode(file, source, about.sample_rate);
      if (!found.wave.length && about.onnx) throw new Error(`${file.name} holds no sound.`);
      return found;
    } catch (error) {
      if (about.onnx || signal.aborted) throw error;
      return { wave: null, notes: [] }; // the service may know more formats than the browser
    }
  });
}

// Tag a recording: `waved` makes its wave and notes. A new recording ends the work on an older one.
async function analyse(name, file, waved) {
  if (work) work.abort();
  const mine = (work = new AbortController()), { signal } = mine;
  fail("");
  stop();
  $("result").hidden = true;
  if (url) URL.revokeObjectURL(url);
  url = file ? URL.createObjectURL(file) : "";
  try {
    busy(`Decoding ${name}`);
    announce(`Working on ${name}.`);
    const cancelled = new Promise((_, end) => signal.addEventListener("abort", () => end(new Cancelled())));
    const { wave, notes } = await Promise.race([waved(url, signal), cancelled]);
    const duration_s = wave ? wave.length / about.sample_rate : null, peaks = wave && sound.peaks(wave);
    if (!file && wave) url = URL.createObjectURL(sound.wav(wave, about.sample_rate));
    let drawn = 0;
    const on = (share, windows, text) => {
      busy(`${name}: ${text}`, share);
      if (!windows.length || performance.now() - drawn < 150) return;
      drawn = performance.now();
      shownResult({ name, duration_s, peaks, windows: [...windows], p: mean(windows) }, true);
    };
    const found = await engine.tag({ wave, file }, { on, signal });
    if (signal.aborted) throw new Cancelled();
    const p = Float32Array.from(found.logits, (x) => tagging.probability(x, about.activation));
    // The service decodes by itself, so only its own notes are about what it heard.
    const said = about.onnx ? notes : found.notes;
    shownResult({ name, peaks, ...found, notes: said, duration_s: found.duration_s || duration_s, p }, false);
  } catch (error) {
    if (work !== mine) return; // the next recording is under way
    $("result").hidden = true;
    if (error instanceof Cancelled) announce("Cancelled.");
    else fail(error.message);
  }
  if (work === mine) {
    work = null;
    busy("");
  }
}

function mean(windows) {
  const out = new Float32Array(about.labels.length);
  for (const { p } of windows) for (let c = 0; c < out.length; c++) out[c] += p[c] / windows.length;
  return out;
}

function shownResult(result, partial) {
  const first = $("result").hidden;
  $("result").hidden = false;
  $("name").textContent = result.name;
  for (const button of $("downloads").children) button.disabled = partial;
  const count = result.windows.length, parts = [sound.clock(result.duration_s), `${count} ${count === 1 ? "window" : "windows"}`];
  if (result.events) parts.push(`${result.events.length} ${result.events.length === 1 ? "event" : "events"}`);
  $("summary").textContent = parts.join(" · ");
  $("notes").replaceChildren(...(result.notes || []).map((note) => make("li", {}, note)));
  $("notes").hidden = !(result.notes || []).length;
  view.show(result);
  if (first) {
    $("play").disabled = !url;
    if (url) audio.src = url;
    seek(0);
    $("timeline").style.setProperty("--seen", 0);
  }
  if (partial) return;
  const best = view.classes.slice(0, 3).map((c) => `${about.labels[c].name} ${shown(result.p[c])}`);
  announce(`${result.name} is done. Most probable: ${best.join(", ")}.`);
  $("readout").textContent = `Whole recording: ${best.join(" · ")}`;
  $("name").focus({ preventScroll: true });
}

// -------------------------------------------------------------------------------------- playback

function seek(t) {
  const { duration_s } = view.result;
  const at = Math.max(0, Math.min(t, duration_s)), words = view.words(at);
  $("timeline").style.setProperty("--at", at / duration_s);
  $("timeline").style.setProperty("--seen", 1);
  $("cursor").setAttribute("aria-valuenow", at.toFixed(2));
  $("cursor").setAttribute("aria-valuetext", words);
  $("readout").textContent = words;
  $("time").textContent = `${sound.clock(at)} / ${sound.clock(duration_s)}`;
  return (view.now = at);
}

// Play from a time on, up to `until` or the end.
function play(from, until = Infinity) {
  if (!url) return;
  audio.currentTime = from;
  playing = { until };
  audio.play().catch((error) => {
    playing = null;
    if (error.name !== "AbortError") fail("This browser cannot play the recording.");
  });
}

function stop() {
  playing = null;
  audio.pause();
}

function follow() {
  if (!playing || audio.paused) return;
  seek(Math.min(audio.currentTime, playing.until));
  if (audio.currentTime >= playing.until) return stop();
  requestAnimationFrame(follow);
}

audio.onplaying = () => {
  $("timeline").classList.add("playing");
  $("play").setAttribute("aria-label", "Stop");
  follow();
};
audio.onpause = audio.onended = () => {
  $("timeline").classList.remove("playing");
  $("play").setAttribute("aria-label", "Play");
};

const second = (t) => play(seek(t), Math.min(t + 1, view.result.duration_s));
const toggle = () => {
  if (!audio.paused) return stop();
  play(view.now < view.result.duration_s - 0.05 ? view.now : 0);
};

$("play").onclick = toggle;
$("timeline").onclick = (event) => {
  const strip = event.target.closest(".strip");
  if (!strip || strip.id === "axis") return;
  const box = strip.getBoundingClientRect(), t = ((event.clientX - box.left) / box.width) * view.result.duration_s;
  if (audio.paused) second(t);
  else play(seek(t)); // while it plays, a click goes on from there
};
$("cursor").onkeydown = (event) => {
  const step = Math.min(1, view.result.duration_s / 20);
  const to = { ArrowLeft: view.now - step, ArrowDown: view.now - step, ArrowRight: view.now + step, ArrowUp: view.now + step,
    PageDown: view.now - 10 * step, PageUp: view.now + 10 * step, Home: 0, End: view.result.duration_s }[event.key];
  if (to !== undefined) (stop(), seek(to));
  else if (event.key === "Enter") second(view.now);
  else if (event.key === " ") toggle();
  else return;
  event.preventDefault();
};
$("events").onclick = (event) => {
  const button = event.target.closest("button[data-event]");
  if (!button) return;
  const e = view.result.events[button.dataset.event];
  play(seek(e.onset_s), e.offset_s);
};

// ------------------------------------------------------------------------------------ microphone

async function listen() {
  if (work) work.abort();
  fail("");
  stop();
  $("result").hidden = true;
  $("mic").disabled = true;
  const mine = new sound.Microphone();
  try {
    await mine.start(about.sample_rate, MIC_S, (line) => (stopListening(true), fail(line)));
  } catch (error) {
    $("mic").disabled = false;
    return fail(error.message);
  }
  mic = mine;
  $("mic").disabled = false;
  $("mic").setAttribute("aria-pressed", "true");
  $("mic").textContent = "Stop the microphone";
  $("live").hidden = false;
  $("live").dataset.results = 0;
  $("skipped").textContent = "";
  $("now").replaceChildren();
  announce("The microphone is on.");
  const windows = [];
  let next = HOP_S, skipped = 0, last = "";
  while (mic === mine) {
    const t = mine.seconds;
    if (t < Math.max(next, 0.1)) {
      await new Promise((done) => setTimeout(done, 50));
      continue;
    }
    const late = Math.floor((t - next) / HOP_S); // never queue: the newest window counts
    if (late > 0) {
      skipped += late;
      $("skipped").textContent = `${skipped} results were left out, because the model takes longer than ${HOP_S} s.`;
    }
    next += HOP_S * (1 + late);
    try {
      const wave = await mine.last(about.clip_s, about.sample_rate), loud = level(wave, about.sample_rate);
      const p = await engine.hear(wave);
      if (mic !== mine) return;
      windows.push({ start_s: Math.max(0, t - about.clip_s), end_s: t, p });
      now(p, loud, t);
      $("live").dataset.results = windows.length;
      const best = about.labels[p.indexOf(Math.max(...p))].name;
      if (best !== last) announce((last = best));
    } catch (error) {
      if (mic === mine) (stopListening(false), fail(error.message));
      return;
    }
  }
}

function level(wave, rate) {
  let sum = 1e-12;
  const part = wave.subarray(Math.max(0, wave.length - rate));
  for (const x of part) sum += (x * x) / part.length;
  return Math.max(-60, 10 * Math.log10(sum));
}

function now(p, loud, t) {
  const order = Array.from(p.keys()).sort((a, b) => p[b] - p[a]).slice(0, 5);
  $("now").replaceChildren(
    ...order.map((c) => {
      const bar = make("span", { class: "bar", "aria-hidden": "true" }, make("i"));
      bar.firstChild.style.width = `${100 * p[c]}%`;
      return make("li", {}, make("span", {}, about.labels[c].name), make("span", { class: "number n" }, shown(p[c])), bar);
    }),
  );
  $("clock").textContent = sound.clock(t);
  $("level").firstChild.style.width = `${(100 * (loud + 60)) / 60}%`;
  $("level").setAttribute("aria-valuenow", Math.round(loud));
  $("level").setAttribute("aria-valuetext", `${Math.round(loud)} dB`);
}

// `keep`: tag all that was heard, as if it were a file.
function stopListening(keep) {
  const heard = mic;
  mic = null;
  $("mic").setAttribute("aria-pressed", "false");
  $("mic").textContent = "Use the microphone";
  $("live").hidden = true;
  heard.stop();
  announce("The microphone is off.");
  if (keep && heard.filled) {
    const waved = async () => ({ wave: await heard.last(MIC_S, about.sample_rate), notes: [] });
    analyse("microphone", null, waved);
  }
}

// --------------------------------------------------------------------------------------- buttons

$("choose").onclick = () => $("file").click();
$("mic").onclick = () => (mic ? stopListening(true) : listen());
$("file").onchange = () => {
  const [file] = $("file").files;
  if (file) open(file);
  $("file").value = ""; // the same file may be chosen again
};
$("cancel").onclick = () => {
  if (!work) return;
  work.abort();
  $("choose").focus();
};
$("csv").onclick = () => save(downloads.csv(view.result, about.labels), view.result.name);
$("events-csv").onclick = () => save(downloads.events(view.result, about.labels), view.result.name);
$("json").onclick = () => save(downloads.json(view.result, about.labels, about.name), view.result.name);

let inside = 0;
const over = (step) => document.body.classList.toggle("over", (inside = Math.max(0, inside + step)) > 0);
addEventListener("dragenter", (event) => (event.preventDefault(), over(1)));
addEventListener("dragleave", () => over(-1));
addEventListener("dragover", (event) => event.preventDefault());
addEventListener("drop", async (event) => {
  event.preventDefault();
  over(-inside);
  const { files } = event.dataTransfer;
  if (!engine || $("choose").disabled) return;
  if (!files.length) return fail("That was not a file. Drop an audio file, such as a wav or mp3.");
  await open(files[0]);
  if (files.length > 1 && $("error").hidden) fail(`Only the first of ${files.length} files was taken: ${files[0].name}.`);
});

start();
