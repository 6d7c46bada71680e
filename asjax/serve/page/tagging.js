// From windows of a model's scores to the tags and events of a recording: the rules of asjax.predict.
// No DOM and no model here, so that the page, its worker and tests share these functions.
"use strict";

const tagging = (() => {
  // Half to even, as Python and numpy round.
  const round = (x) => {
    const low = Math.floor(x), rest = x - low;
    if (rest !== 0.5) return Math.round(x);
    return low % 2 ? low + 1 : low;
  };

  // First samples of consecutive windows; the last one ends with the recording.
  function tiled(samples, size) {
    const starts = [];
    for (let s = 0; s + size <= samples; s += size) starts.push(s);
    if (!starts.length) return [0];
    if (starts[starts.length - 1] + size < samples) starts.push(samples - size);
    return starts;
  }

  // Frames that begin before the end of a recording.
  const framesOf = (samples, per) => Math.max(1, Math.ceil(samples / per - 1e-6));

  // First frames of windows of `size` frames that overlap by half; the last one ends with the
  // last frame.
  function framed(frames, size) {
    const hop = Math.floor(size / 2), starts = [];
    const count = Math.max(1, Math.ceil((frames - size) / hop) + 1);
    for (let i = 0; i < count; i++) starts.push(Math.min(i * hop, Math.max(0, frames - size)));
    return starts;
  }

  // The windows of a recording in the order of time: {start, tile, frame}. `tile`: it counts for
  // the tags; `frame`: its first frame, or null. A window of both is computed once.
  function plan(samples, size, frames) {
    const found = new Map();
    const at = (start) => {
      if (!found.has(start)) found.set(start, { start, tile: false, frame: null });
      return found.get(start);
    };
    for (const start of tiled(samples, size)) at(start).tile = true;
    if (frames) {
      const per = size / frames;
      for (const frame of framed(framesOf(samples, per), frames)) {
        at(round(frame * per)).frame = frame;
      }
    }
    return [...found.values()].sort((a, b) => a.start - b.start);
  }

  // Scores [C] from logits: the logits, or the logarithm of their softmax.
  function scores(logits, activation) {
    if (activation !== "softmax") return Float32Array.from(logits);
    let best = -Infinity, sum = 0;
    for (const x of logits) best = Math.max(best, x);
    for (const x of logits) sum += Math.exp(x - best);
    return Float32Array.from(logits, (x) => x - best - Math.log(sum));
  }

  function probability(score, activation) {
    if (activation === "softmax") return Math.exp(score);
    return score >= 0 ? 1 / (1 + Math.exp(-score)) : Math.exp(score) / (1 + Math.exp(score));
  }

  const logSum = (values) => {
    const best = values.reduce((a, b) => Math.max(a, b), -Infinity);
    if (best === -Infinity) return best;
    return best + Math.log(values.reduce((sum, x) => sum + Math.exp(x - best), 0));
  };
  const logExpit = (x) => (x >= 0 ? -Math.log1p(Math.exp(-x)) : x - Math.log1p(Math.exp(x)));

  // The scores of a recording from those of its windows: of the mean of the probabilities.
  function reduced(rows, activation) {
    if (rows.length === 1) return rows[0];
    const out = new Float32Array(rows[0].length);
    const column = new Float64Array(rows.length), other = new Float64Array(rows.length);
    for (let c = 0; c < out.length; c++) {
      for (let i = 0; i < rows.length; i++) {
        const x = rows[i][c];
        column[i] = activation === "softmax" ? x : logExpit(x);
        other[i] = logExpit(-x);
      }
      const minus = activation === "softmax" ? Math.log(rows.length) : logSum(other);
      out[c] = logSum(column) - minus;
    }
    return out;
  }

  // The frames of a recording from overlapping windows; an overlap is divided in its middle.
  class Track {
    constructor(frames, size, classes) {
      Object.assign(this, { frames, size, classes, at: 0, last: null });
      this.scores = new Float32Array(frames * classes);
    }
    add(first, scores) {
      if (this.last) this.take(Math.floor((this.last.first + first + this.size) / 2));
      this.last = { first, scores };
    }
    take(end) {
      const { first, scores } = this.last, c = this.classes;
      this.scores.set(scores.subarray((this.at - first) * c, (end - first) * c), this.at * c);
      this.at = end;
    }
    // Probabilities [frames * classes], in place.
    joined(activation) {
      this.take(this.frames);
      const out = this.scores;
      for (let t = 0; t < this.frames; t++) {
        const row = out.subarray(t * this.classes, (t + 1) * this.classes);
        const s = activation === "softmax" ? scores(row, activation) : row;
        for (let c = 0; c < row.length; c++) row[c] = probability(s[c], activation);
      }
      return out;
    }
  }

  // Running median of k values, mirrored at the ends with the edge value; an even window covers
  // i - k/2 ... i + k/2 - 1, and its median is the upper of the two middle values.
  function median(values, k) {
    if (k <= 1) return values;
    const n = values.length, out = new Float32Array(n), sorted = [];
    const mirrored = (i) => {
      const j = ((i % (2 * n)) + 2 * n) % (2 * n);
      return values[j < n ? j : 2 * n - 1 - j];
    };
    const place = (x) => {
      let low = 0, high = sorted.length;
      while (low < high) {
        const mid = (low + high) >> 1;
        if (sorted[mid] < x) low = mid + 1;
        else high = mid;
      }
      return low;
    };
    const left = k >> 1;
    for (let i = -left; i < k - left; i++) {
      const x = mirrored(i);
      sorted.splice(place(x), 0, x);
    }
    for (let i = 0; i < n; i++) {
      out[i] = sorted[k >> 1];
      sorted.splice(place(mirrored(i - left)), 1);
      const x = mirrored(i + k - left);
      sorted.splice(place(x), 0, x);
    }
    return out;
  }

  // Events of frame probabilities [frames * classes]: {onset_s, offset_s, index, p} in time order.
  function events(track, rate, duration, { threshold, median_s }) {
    const classes = threshold.length, frames = track.length / classes, found = [];
    const column = new Float32Array(frames);
    for (let c = 0; c < classes; c++) {
      let most = 0;
      for (let t = 0; t < frames; t++) most = Math.max(most, (column[t] = track[t * classes + c]));
      if (!(most > threshold[c])) continue; // a median is never above the maximum
      const smooth = median(column, Math.max(1, round(median_s[c] * rate)));
      let first = -1;
      for (let t = 0; t <= frames; t++) {
        const on = t < frames && smooth[t] > threshold[c];
        if (on && first < 0) first = t;
        if (on || first < 0) continue;
        if (first / rate < duration) {
          let sum = 0;
          for (let i = first; i < t; i++) sum += column[i];
          const offset = Math.min(t / rate, duration);
          found.push({ onset_s: first / rate, offset_s: offset, index: c, p: sum / (t - first) });
        }
        first = -1;
      }
    }
    return found.sort(
      (a, b) => a.onset_s - b.onset_s || a.offset_s - b.offset_s || a.index - b.index,
    );
  }

  return { round, tiled, framed, framesOf, plan, scores, probability, reduced, Track, median, events };
})();

if (typeof module !== "undefined") module.exports = tagging;
