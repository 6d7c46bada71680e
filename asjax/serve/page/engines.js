// Two ways to tag a recording with one interface: the model in this page, or the service.
//   tag({wave, file}, {on, signal}) -> {windows, logits, events, frames, frame_rate, notes}
//   hear(wave) -> probabilities of one window
// Both take the wave away from the caller, so that it is in memory once.
"use strict";

class Cancelled extends Error {}

// onnxruntime-web in a worker.
class Browser {
  constructor(about, onLoading) {
    this.about = about;
    this.jobs = new Map();
    this.job = 0;
    this.worker = new Worker("worker.js");
    this.loaded = new Promise((ready, failed) => {
      this.worker.onmessage = ({ data }) => {
        if (data.type === "loading") onLoading(data.got, data.total);
        else if (data.type === "ready") ready();
        else if (data.type === "failed") failed(new Error(data.line));
        else if (this.jobs.has(data.job)) this.jobs.get(data.job)(data);
      };
      this.worker.onerror = (event) => {
        event.preventDefault();
        failed(new Error(event.message || "worker.js cannot be loaded"));
      };
    });
    this.worker.postMessage({ type: "load", about });
  }

  // Post a job. `on` gets its messages; the answer is the message of the type `wanted`.
  post(type, wanted, wave, on = () => {}, signal = null) {
    const job = ++this.job;
    return new Promise((done, failed) => {
      const end = (how, value) => (this.jobs.delete(job), how(value));
      this.jobs.set(job, (data) => {
        if (data.type === wanted) end(done, data);
        else if (data.type === "error") end(failed, new Error(`The model failed: ${data.line}`));
        else on(data);
      });
      if (signal) {
        signal.addEventListener("abort", () => {
          this.worker.postMessage({ type: "cancel" });
          end(failed, new Cancelled());
        });
      }
      this.worker.postMessage({ type, job, wave }, [wave.buffer]);
    });
  }

  async tag({ wave }, { on, signal }) {
    const windows = [];
    const done = await this.post("tag", "done", wave, (data) => {
      if (data.window) windows.push(data.window);
      on(data.done / data.total, windows, `window ${data.done} of ${data.total}`);
    }, signal);
    return { ...done, windows, notes: [] };
  }

  async hear(wave) {
    return (await this.post("window", "heard", wave)).p;
  }
}

// The service that sent this page.
class Service {
  constructor(about) {
    this.about = about;
    this.loaded = Promise.resolve();
  }

  async post(path, body, signal) {
    let answer, found;
    try {
      answer = await fetch(path, { method: "POST", body, signal });
      found = await answer.json();
    } catch (error) {
      if (error.name === "AbortError") throw new Cancelled();
      throw new Error("The service does not answer. Is asjax serve still running?");
    }
    if (!answer.ok) throw new Error(`The service says: ${found.error}`);
    return found;
  }

  async tag({ file, wave }, { on, signal }) {
    const { about } = this, path = about.frames ? "events" : "tag";
    const body = file || sound.wav(wave, about.sample_rate), name = file ? file.name : "the microphone";
    if (body.size > about.max_bytes) {
      const mb = (n) => Math.floor(n / (1 << 20));
      throw new Error(`${name} has ${mb(body.size)} MB; the service takes at most ${mb(about.max_bytes)} MB. Start it with a larger --max-mb.`);
    }
    on(null, [], "the service is computing");
    const found = await this.post(`${path}?scores=1&top=1&name=${encodeURIComponent(name)}`, body, signal);
    const at = new Map(about.labels.map((label, index) => [label.id, index]));
    return {
      windows: found.windows,
      logits: found.logits,
      events: found.events && found.events.map((e) => ({ ...e, index: at.get(e.id) })),
      notes: found.notes || [],
      duration_s: found.duration_s,
    };
  }

  async hear(wave) {
    const body = sound.wav(wave, this.about.sample_rate);
    return (await this.post("tag?scores=1&top=1&name=the%20microphone", body)).windows[0].p;
  }
}
