// The dialog in which a series is drawn with the mouse, or typed.

const STEPS = 128;
const [WIDTH, HEIGHT] = [640, 240];

export class Drawing {
  // onUse(values)
  constructor(dialog, most, onUse) {
    Object.assign(this, { dialog, most, onUse });
    const [canvas, text] = [dialog.querySelector("svg"), dialog.querySelector("textarea")];
    Object.assign(this, { canvas, text, heights: new Array(STEPS).fill(null), last: null });
    canvas.addEventListener("pointerdown", (event) => {
      canvas.setPointerCapture(event.pointerId);
      this.last = null;
      this.#stroke(event);
    });
    canvas.addEventListener("pointermove", (event) => {
      if (event.buttons & 1) this.#stroke(event);
    });
    text.addEventListener("input", () => this.#typed());
    dialog.querySelector("#draw-clear").addEventListener("click", () => this.#set(new Array(STEPS).fill(null)));
    dialog.querySelector("#draw-wave").addEventListener("click", () => this.#set(wave()));
    dialog.querySelector("#draw-use").addEventListener("click", () => this.#use());
  }

  open() {
    this.#problem("");
    this.dialog.showModal();
  }

  #stroke(event) {
    const box = this.canvas.getBoundingClientRect();
    const inside = (share) => Math.min(1, Math.max(0, share));
    const at = Math.round(inside((event.clientX - box.left) / box.width) * (STEPS - 1));
    const height = 100 * (1 - inside((event.clientY - box.top) / box.height));
    const from = this.last ?? [at, height];
    const [first, end] = [Math.min(from[0], at), Math.max(from[0], at)];
    for (let step = first; step <= end; step += 1) {
      const weight = at === from[0] ? 1 : (step - from[0]) / (at - from[0]);
      this.heights[step] = from[1] + weight * (height - from[1]);
    }
    this.last = [at, height];
    this.#set(this.heights);
  }

  #set(heights) {
    this.heights = heights;
    const drawn = heights.map((height, step) => [step, height]).filter(([, height]) => height !== null);
    this.text.value = drawn.map(([, height]) => height.toFixed(1)).join(" ");
    this.#line(drawn.map(([step, height]) => [step / (STEPS - 1), height / 100]));
  }

  #typed() {
    const values = this.#values().filter(Number.isFinite);
    const [low, high] = [Math.min(...values), Math.max(...values)];
    this.heights = new Array(STEPS).fill(null);
    this.#line(values.map((value, at) => [at / Math.max(1, values.length - 1), high > low ? (value - low) / (high - low) : 0.5]));
  }

  #line(points) {
    const places = points.map(([x, y]) => `${(x * WIDTH).toFixed(1)},${((1 - (0.04 + 0.92 * y)) * HEIGHT).toFixed(1)}`);
    this.dialog.querySelector("#stroke").setAttribute("points", places.join(" "));
  }

  #values() {
    return this.text.value.split(/[\s,;]+/).filter(Boolean).map(Number);
  }

  #use() {
    const values = this.#values();
    if (values.some((value) => !Number.isFinite(value))) return this.#problem("These are not all numbers.");
    if (values.length < 8) return this.#problem("Draw or type at least 8 values.");
    if (values.length > this.most) return this.#problem(`At most ${this.most} values.`);
    this.dialog.close();
    return this.onUse(values);
  }

  #problem(text) {
    const line = this.dialog.querySelector("#draw-problem");
    line.textContent = text;
    line.hidden = !text;
  }
}

function wave() {
  return Array.from({ length: STEPS }, (_, step) => 50 + 0.12 * step + 28 * Math.sin((2 * Math.PI * step) / 16));
}
