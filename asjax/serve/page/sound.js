// Files and the microphone as waves at the model's rate, and waves as files for playback.
"use strict";

const sound = (() => {
  const MOST_MB = 512; // of a file, and of its decoded samples; about 75 minutes of stereo at 16 kHz
  const LIMIT = 1e5; // as in asjax.data.sound

  const clock = (s) => {
    const whole = Math.floor(s + 1e-6), two = (n) => String(n).padStart(2, "0");
    const minutes = Math.floor(whole / 60) % 60, hours = Math.floor(whole / 3600);
    return (hours ? `${hours}:${two(minutes)}` : `${minutes}`) + `:${two(whole % 60)}`;
  };

  // The length of a file in seconds as the browser's player sees it; NaN if it cannot say.
  const lengthOf = (url) =>
    new Promise((found) => {
      const probe = new Audio(), end = (value) => (clearTimeout(timer), found(value));
      const timer = setTimeout(() => end(NaN), 5000);
      probe.preload = "metadata";
      probe.onloadedmetadata = () => end(probe.duration);
      probe.onerror = () => end(NaN);
      probe.src = url;
    });

  // A file as a mono wave, and notes about it: {wave, notes}. Errors are lines for people.
  async function decode(file, url, rate) {
    if (!file.size) throw new Error(`${file.name} is empty (0 bytes). Choose another file.`);
    const tool = "Cut it into parts, or use asjax tag, which takes any length.";
    if (file.size > MOST_MB << 20) {
      throw new Error(`${file.name} has ${Math.round(file.size / (1 << 20))} MB; this page takes at most ${MOST_MB} MB. ${tool}`);
    }
    const seconds = await lengthOf(url), most = (MOST_MB << 20) / (8 * rate);
    if (seconds > most && seconds !== Infinity) {
      throw new Error(`${file.name} lasts ${clock(seconds)}; this page takes at most ${clock(most)}. ${tool}`);
    }
    let buffer;
    try {
      buffer = await new OfflineAudioContext(1, 1, rate).decodeAudioData(await file.arrayBuffer());
    } catch (error) {
      if (error.name === "NotReadableError" || error.name === "NotFoundError") {
        throw new Error(`${file.name} cannot be read. It may have been moved or changed; choose it again.`);
      }
      if (error.name === "NotSupportedError") {
        throw new Error(`This browser cannot decode sound at ${rate} Hz, the rate of the model. Use asjax serve.`);
      }
      throw new Error(`${file.name} cannot be decoded by this browser. Choose an audio file, such as wav, mp3, flac or ogg.`);
    }
    const wave = mono(buffer), found = wave.length / rate, notes = [], missing = await cutOff(file);
    if (missing) notes.push(`${missing.toLocaleString("en")} bytes are missing at the end of the file.`);
    else if (seconds !== Infinity && found < 0.98 * seconds - 0.2) {
      notes.push(`The file seems to last ${seconds.toFixed(2)} s, and ${found.toFixed(2)} s of it could be decoded.`);
    }
    return { wave, notes };
  }

  // Bytes that a WAV file should have and has not, by its header; 0 for other files.
  async function cutOff(file) {
    const head = new DataView(await file.slice(0, 8).arrayBuffer());
    if (head.byteLength < 8 || head.getUint32(0) !== 0x52494646) return 0; // "RIFF"
    const size = head.getUint32(4, true);
    return size === 0xffffffff ? 0 : Math.max(0, size + 8 - file.size);
  }

  function mono(buffer) {
    const wave = new Float32Array(buffer.length), channels = buffer.numberOfChannels;
    for (let c = 0; c < channels; c++) {
      const data = buffer.getChannelData(c);
      for (let i = 0; i < wave.length; i++) {
        const x = data[i];
        if (Number.isFinite(x)) wave[i] += Math.max(-LIMIT, Math.min(LIMIT, x)) / channels;
      }
    }
    return wave;
  }

  // Largest absolute value in each of `count` equal parts, relative to the largest of all.
  function peaks(wave, count = 2400) {
    const out = new Float32Array(Math.min(count, wave.length));
    let top = 1e-3;
    for (let k = 0; k < out.length; k++) {
      const end = Math.floor(((k + 1) * wave.length) / out.length);
      for (let i = Math.floor((k * wave.length) / out.length); i < end; i++) {
        out[k] = Math.max(out[k], Math.abs(wave[i]));
      }
      top = Math.max(top, out[k]);
    }
    return out.map((x) => x / top);
  }

  // A mono wave as a WAV file of 32-bit floats.
  function wav(wave, rate) {
    const view = new DataView(new ArrayBuffer(44));
    const text = (at, word) => [...word].forEach((c, i) => view.setUint8(at + i, c.charCodeAt(0)));
    const size = 4 * wave.length;
    text(0, "RIFF"), text(8, "WAVEfmt "), text(36, "data");
    [[4, 36 + size], [16, 16], [24, rate], [28, 4 * rate], [40, size]].forEach(([at, n]) => view.setUint32(at, n, true));
    [[20, 3], [22, 1], [32, 4], [34, 32]].forEach(([at, n]) => view.setUint16(at, n, true));
    return new Blob([view, wave], { type: "audio/wav" });
  }

  async function resampled(wave, from, to) {
    if (from === to || !wave.length) return wave;
    const context = new OfflineAudioContext(1, Math.max(1, Math.round((wave.length * to) / from)), to);
    const buffer = context.createBuffer(1, wave.length, from), source = context.createBufferSource();
    buffer.copyToChannel(wave, 0);
    source.buffer = buffer;
    source.connect(context.destination);
    source.start();
    return (await context.startRendering()).getChannelData(0);
  }

  // The microphone: `blocks` of its wave at `rate` (that of the device, if the browser cannot
  // convert), until `stop`. It keeps at most `most_s` seconds.
  class Microphone {
    async start(rate, most_s, onEnd) {
      if (!navigator.mediaDevices || !window.AudioWorkletNode) {
        throw new Error("The microphone needs https or localhost. Open the page from there.");
      }
      const plain = { echoCancellation: false, noiseSuppression: false, autoGainControl: false };
      try {
        this.stream = await navigator.mediaDevices.getUserMedia({ audio: plain });
      } catch (error) {
        throw new Error(_whyNot(error));
      }
      try {
        try {
          await this.connect(new AudioContext({ sampleRate: rate }));
        } catch {
          await this.close(); // Firefox connects a microphone only at the rate of the device
          await this.connect(new AudioContext());
        }
      } catch (error) {
        this.stop();
        throw new Error(`The microphone cannot be used: ${error.message}`);
      }
      this.rate = this.context.sampleRate;
      this.wave = new Float32Array(Math.round(most_s * this.rate));
      this.filled = 0;
      this.stream.getAudioTracks()[0].onended = () => onEnd("The microphone was unplugged or taken away.");
      this.tap.port.onmessage = ({ data }) => {
        const room = this.wave.length - this.filled;
        this.wave.set(data.subarray(0, room), this.filled);
        this.filled += Math.min(room, data.length);
        if (room <= data.length) onEnd(`The microphone stops after ${most_s / 60} minutes, as much as this page keeps.`);
      };
      return this;
    }

    async connect(context) {
      this.context = context;
      await context.audioWorklet.addModule("tap.js");
      this.source = context.createMediaStreamSource(this.stream);
      this.tap = new AudioWorkletNode(context, "tap", { numberOfOutputs: 0 });
      this.source.connect(this.tap);
      await context.resume();
    }

    get seconds() {
      return this.filled / this.rate;
    }

    // The last seconds, at a rate; fewer at the beginning.
    last(seconds, rate) {
      const from = Math.max(0, this.filled - Math.round(seconds * this.rate));
      return resampled(this.wave.slice(from, this.filled), this.rate, rate);
    }

    async close() {
      if (this.context) await this.context.close().catch(() => {});
    }

    stop() {
      if (this.tap) this.tap.port.onmessage = null;
      this.stream.getTracks().forEach((track) => ((track.onended = null), track.stop()));
      this.close();
    }
  }

  function _whyNot(error) {
    if (error.name === "NotAllowedError" || error.name === "SecurityError") {
      return "The microphone is not allowed. Allow it for this page in the browser's address bar, then press the button again.";
    }
    if (error.name === "NotFoundError") return "There is no microphone. Connect one, or choose a recording.";
    if (error.name === "NotReadableError") return "The microphone is in use by another program. Close it there and press the button again.";
    return `The microphone cannot be used: ${error.message}`;
  }

  return { clock, decode, peaks, wav, Microphone };
})();
