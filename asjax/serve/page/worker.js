// The model in a thread of its own, so that the page stays usable while it computes.
"use strict";

importScripts("tagging.js");
let session, about, current = 0;

const say = (type, more = {}, transfer = []) => postMessage({ type, ...more }, transfer);
const line = (error) => String((error && error.message) || error).split("\n")[0].slice(0, 300);
const breathe = () => new Promise((done) => setTimeout(done)); // lets a message come in

onmessage = async ({ data }) => {
  if (data.type === "cancel") current = 0;
  else if (data.type === "load") await load(data.about).catch((e) => say("failed", { line: line(e) }));
  else if (data.type === "tag") {
    current = data.job;
    try {
      await tag(data.job, data.wave);
    } catch (error) {
      say("error", { job: data.job, line: line(error) });
    }
  } else if (data.type === "window") {
    try {
      const { p } = await run(data.wave, 0);
      say("heard", { job: data.job, p }, [p.buffer]);
    } catch (error) {
      say("error", { job: data.job, line: line(error) });
    }
  }
};

async function load(what) {
  about = what;
  importScripts("ort.wasm.min.js");
  ort.env.wasm.numThreads = 1; // threads need headers that a plain web server does not send
  ort.env.wasm.wasmPaths = new URL("./", self.location.href).href;
  ort.env.logLevel = "error";
  const bytes = await fetched(about.onnx);
  session = await ort.InferenceSession.create(bytes, { executionProviders: ["wasm"] });
  say("ready");
}

async function fetched(name) {
  const answer = await fetch(name);
  if (!answer.ok) throw new Error(`${name}: the server answered ${answer.status}`);
  const total = Number(answer.headers.get("Content-Length")) || 0, reader = answer.body.getReader();
  const parts = [];
  for (let got = 0, shown = 0; ; ) {
    const { done, value } = await reader.read();
    if (done) return new Uint8Array(await new Blob(parts).arrayBuffer());
    parts.push(value);
    got += value.length;
    if (got - shown > 1e6) say("loading", { got: (shown = got), total });
  }
}

// The scores of the window that begins with sample `start`; silence after the end.
async function run(wave, start) {
  const size = tagging.round(about.clip_s * about.sample_rate);
  const input = new Float32Array(size);
  input.set(wave.subarray(start, start + size));
  const feeds = { [session.inputNames[0]]: new ort.Tensor("float32", input, [1, size]) };
  const out = await session.run(feeds);
  const scores = tagging.scores(out.logits.data, about.activation);
  if (!scores.every(Number.isFinite)) throw new Error("the model's output is not finite");
  const p = scores.map((x) => tagging.probability(x, about.activation));
  return { scores, p, frames: out.frame_logits && out.frame_logits.data };
}

async function tag(job, wave) {
  const rate = about.sample_rate, size = tagging.round(about.clip_s * rate);
  const classes = about.labels.length, rows = [], seconds = (n) => n / rate;
  const plan = tagging.plan(wave.length, size, about.frames);
  const per = about.frames ? size / about.frames : 0;
  const track = per && new tagging.Track(tagging.framesOf(wave.length, per), about.frames, classes);
  let last = performance.now();
  for (let i = 0; i < plan.length; i++) {
    const { start, tile, frame } = plan[i];
    const { scores, p, frames } = await run(wave, start);
    if (frame !== null) track.add(frame, frames.slice());
    const end = Math.min(start + size, wave.length);
    const window = tile ? { start_s: seconds(start), end_s: seconds(end), p } : null;
    if (tile) rows.push(scores);
    say("window", { job, window, done: i + 1, total: plan.length });
    if (performance.now() - last > 40) {
      await breathe();
      last = performance.now();
    }
    if (current !== job) return;
  }
  const logits = tagging.reduced(rows, about.activation), found = { job, logits };
  if (track) {
    found.frames = track.joined(about.activation);
    found.frame_rate = rate / per;
    found.events = tagging.events(found.frames, found.frame_rate, seconds(wave.length), about);
  }
  say("done", found, track ? [found.frames.buffer] : []);
}
