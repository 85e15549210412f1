// The state of a page: what is off, the series and the view; its history, and its form as a link.

const HISTORY = 200;
const DRAWN_DIGITS = 4;

export class State {
  // known: addresses of the model's cells; modes, scores: names; first: the series to begin with
  constructor({ known, modes, scores, first, focus }) {
    Object.assign(this, { known: new Set(known), modes, scores });
    this.now = { series: first, off: [], mode: modes[0] };
    this.view = { score: scores[0], focus };
    this.past = [];
    this.future = [];
  }

  // a change that can be undone
  change(part) {
    this.past = [...this.past.slice(1 - HISTORY), this.now];
    this.future = [];
    this.now = { ...this.now, ...part };
  }

  undo() {
    return this.#move(this.past, this.future);
  }

  redo() {
    return this.#move(this.future, this.past);
  }

  #move(from, to) {
    if (!from.length) return false;
    to.push(this.now);
    this.now = from.pop();
    return true;
  }

  isOff(address) {
    return this.now.off.includes(address);
  }

  // some cells switched off or on, in the order of the model
  switched(addresses, off) {
    const chosen = new Set(this.now.off);
    for (const address of addresses) off ? chosen.add(address) : chosen.delete(address);
    return [...this.known].filter((address) => chosen.has(address));
  }

  toLink() {
    const { series, off, mode } = this.now;
    const link = new URLSearchParams();
    if (series.values) {
      link.set("drawn", series.values.map((value) => Number(value.toPrecision(DRAWN_DIGITS))).join("_"));
    } else {
      link.set("series", series.configuration);
      link.set("window", series.window);
    }
    if (mode !== this.modes[0]) link.set("mode", mode);
    link.set("score", this.view.score);
    if (this.view.focus) link.set("component", this.view.focus);
    if (off.length) link.set("off", off.join("_"));
    return link.toString();
  }

  // takes a link over; parts that this model does not have are left out, and counted
  fromLink(text, catalogue) {
    const link = new URLSearchParams(text);
    const off = (link.get("off") ?? "").split("_").filter(Boolean);
    const there = off.filter((address) => this.known.has(address));
    let lost = off.length - there.length;
    const found = seriesOf(link, catalogue);
    if (found === undefined) lost += 1;
    const mode = this.modes.includes(link.get("mode")) ? link.get("mode") : this.modes[0];
    this.change({ off: this.switchedOnly(there), mode, series: found ?? this.now.series });
    if (this.scores.includes(link.get("score"))) this.view.score = link.get("score");
    if (this.known.has(link.get("component"))) this.view.focus = link.get("component");
    return lost;
  }

  switchedOnly(addresses) {
    const chosen = new Set(addresses);
    return [...this.known].filter((address) => chosen.has(address));
  }
}

// the series of a link: null if it names none, undefined if it names one that is not there
function seriesOf(link, catalogue) {
  if (link.has("drawn")) {
    const values = link.get("drawn").split("_").map(Number);
    return values.every(Number.isFinite) ? { values } : undefined;
  }
  if (!link.has("series")) return null;
  const found = catalogue.find((one) => one.configuration === link.get("series"));
  const window = Number(link.get("window") ?? 0);
  return found?.windows.includes(window) ? { configuration: found.configuration, window } : undefined;
}
