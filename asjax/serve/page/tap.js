// An AudioWorklet that hands the microphone's samples to the page, in blocks of about 0.1 s.
class Tap extends AudioWorkletProcessor {
  constructor() {
    super();
    this.size = Math.max(128, Math.round(sampleRate / 10));
    this.block = new Float32Array(this.size);
    this.filled = 0;
  }

  process([input]) {
    if (!input.length) return true;
    for (let i = 0; i < input[0].length; i++) {
      let sum = 0;
      for (const channel of input) sum += channel[i];
      this.block[this.filled++] = sum / input.length;
      if (this.filled === this.size) {
        this.port.postMessage(this.block, [this.block.buffer]);
        this.block = new Float32Array(this.size); // the old one now belongs to the page
        this.filled = 0;
      }
    }
    return true;
  }
}

registerProcessor("tap", Tap);
