// The model as a map: a row per layer, a cell per head and MLP, each a switch.

import { inUnit, scaleOf } from "./scales.js";

const MANY_ROWS = 16; // stacks of more layers stand beside each other

const make = (tag, attributes = {}, ...children) => {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
};

export class ModelMap {
  // onSwitch(addresses, off), onChoose(address)
  constructor(box, rows, { onSwitch, onChoose, single }) {
    Object.assign(this, { box, onSwitch, onChoose, single });
    this.cells = new Map(); // address -> button
    this.places = new Map(); // address -> [stack, row, column]
    this.grids = new Map(); // stack -> rows of addresses
    this.anchor = null;
    this.painting = null;
    this.#build(rows);
    this.#listen();
  }

  #build(rows) {
    const stacks = make("div", { class: rows.length > MANY_ROWS ? "stacks beside" : "stacks" });
    for (const stack of new Set(rows.map((row) => row.stack))) {
      const own = rows.filter((row) => row.stack === stack);
      const group = make("div", { role: "group", "aria-label": stack });
      const many = new Set(rows.map((row) => row.stack)).size > 1;
      if (many) group.append(make("p", { class: "stack-title" }, stack));
      const roles = new Set(own.map((row) => row.parts.map((part) => part.role).join()));
      group.append(this.#headings(own, roles.size === 1));
      own.forEach((row, at) => group.append(this.#row(row, at, roles.size > 1)));
      stacks.append(group);
    }
    this.box.replaceChildren(stacks);
    const [first] = this.cells.values();
    first.tabIndex = 0;
  }

  // alike: whether every layer has the same sublayers; if not, each row names its own
  #headings(rows, alike) {
    const widest = rows.reduce((a, b) => (b.parts.length > a.parts.length ? b : a));
    const line = make("div", { class: "row", "aria-hidden": "true" }, make("span", { class: "heading", style: "width:30px" }, "layer"));
    const names = { mlp: "MLP" };
    for (const part of widest.parts) {
      const most = Math.max(...rows.map((row) => row.parts.find((one) => one.role === part.role)?.cells.length ?? 0));
      const width = part.role === "mlp" ? "calc(2 * var(--cell))" : `calc(${most} * (var(--cell) + var(--gap)) - var(--gap))`;
      line.append(make("span", { class: "heading", style: `width:${width}` }, names[part.role] ?? (alike ? `${part.role} heads` : "heads")));
    }
    return line;
  }

  #row(row, at, named) {
    const label = `${row.stack} layer ${row.layer}`;
    const layer = make("button", { type: "button", class: "layer", "aria-label": `switch ${label}` }, String(row.layer));
    const line = make("div", { class: "row", role: "group", "aria-label": label }, layer);
    const addresses = row.parts.flatMap((part) => part.cells);
    layer.addEventListener("click", () => this.onSwitch(addresses, !addresses.every((one) => this.#isOff(one))));
    layer.disabled = Boolean(this.single);
    for (const part of row.parts) {
      const group = make("div", { class: "part" });
      for (const address of part.cells) {
        const cell = make("button", { type: "button", class: `cell ${part.role === "mlp" ? "mlp" : ""}`, role: "switch", tabindex: "-1" });
        cell.dataset.address = address;
        group.append(cell);
        this.cells.set(address, cell);
        this.places.set(address, [row.stack, at, addresses.indexOf(address)]);
      }
      line.append(group);
    }
    const attention = row.parts.filter((part) => part.role !== "mlp").map((part) => part.role);
    if (named) line.append(make("span", { class: "heading role", "aria-hidden": "true" }, attention.join(", ")));
    const grid = this.grids.get(row.stack) ?? [];
    grid.push(addresses);
    this.grids.set(row.stack, grid);
    return line;
  }

  #isOff(address) {
    return this.cells.get(address).getAttribute("aria-checked") === "false";
  }

  #listen() {
    const addressOf = (event) => event.target.closest?.(".cell")?.dataset.address;
    this.box.addEventListener("pointerdown", (event) => {
      const address = addressOf(event);
      this.touched = event.pointerType === "touch";
      if (!address || event.button !== 0 || this.touched) return; // a finger may be about to scroll
      event.target.releasePointerCapture?.(event.pointerId);
      if (event.shiftKey && this.anchor && !this.single) {
        this.onSwitch(this.#rectangle(this.anchor, address), this.#isOff(this.anchor));
      } else {
        this.painting = !this.#isOff(address);
        this.anchor = address;
        this.onSwitch([address], this.painting);
      }
      this.onChoose(address);
      this.#enter(address);
    });
    this.box.addEventListener("pointerover", (event) => {
      const address = addressOf(event);
      if (this.painting === null || this.single || !address || !(event.buttons & 1)) return;
      if (this.#isOff(address) !== this.painting) this.onSwitch([address], this.painting);
    });
    window.addEventListener("pointerup", () => (this.painting = null));
    // a mouse is handled above; this is for fingers, the keyboard and assistive technology
    this.box.addEventListener("click", (event) => {
      const address = addressOf(event);
      if (address && (event.detail === 0 || this.touched)) this.#switchOne(address);
    });
    this.box.addEventListener("keydown", (event) => this.#key(event, addressOf(event)));
  }

  #switchOne(address) {
    this.anchor = address;
    this.onSwitch([address], !this.#isOff(address));
    this.onChoose(address);
  }

  #key(event, address) {
    const next = address && this.#next(event.key, address);
    if (!next) return;
    event.preventDefault();
    if (event.shiftKey && next !== address && !this.single) this.onSwitch([next], this.#isOff(address));
    this.#enter(next);
  }

  // left and right go through all cells in order, up and down through the layers of all stacks
  #next(key, address) {
    const order = [...this.cells.keys()];
    const step = { ArrowLeft: -1, ArrowRight: 1, Home: -order.length, End: order.length }[key];
    if (step) return order[Math.min(order.length - 1, Math.max(0, order.indexOf(address) + step))];
    const down = { ArrowUp: -1, ArrowDown: 1 }[key];
    if (!down) return null;
    const [stack, row, column] = this.places.get(address);
    const lines = [...this.grids.values()].flat();
    const line = lines[lines.indexOf(this.grids.get(stack)[row]) + down];
    return line ? line[Math.min(line.length - 1, column)] : address;
  }

  #enter(address) {
    for (const cell of this.cells.values()) cell.tabIndex = -1;
    const cell = this.cells.get(address);
    cell.tabIndex = 0;
    cell.focus();
  }

  #rectangle(from, to) {
    const [[stack, top, left], [other, bottom, right]] = [this.places.get(from), this.places.get(to)];
    if (stack !== other) return [to];
    const inside = (value, one, two) => value >= Math.min(one, two) && value <= Math.max(one, two);
    return this.grids.get(stack).flatMap((line, row) =>
      inside(row, top, bottom) ? line.filter((_, column) => inside(column, left, right)) : [],
    );
  }

  // colours by score; values: address -> number or null
  colour(score, values, colours) {
    const scale = scaleOf(Object.values(values), score.diverging, colours);
    for (const [address, cell] of this.cells) {
      const value = values[address];
      const colour = scale.colour(value);
      cell.style.background = colour ?? "";
      cell.classList.toggle("unknown", colour === null);
      cell.dataset.value = inUnit(value, score.unit);
      this.#label(cell, score.name);
    }
    return scale;
  }

  show(off, focus, score) {
    const chosen = new Set(off);
    for (const [address, cell] of this.cells) {
      cell.setAttribute("aria-checked", String(!chosen.has(address)));
      cell.classList.toggle("chosen", address === focus);
      this.#label(cell, score);
    }
  }

  #label(cell, score) {
    const text = `${cell.dataset.address}, ${score.replaceAll("_", " ")} ${cell.dataset.value ?? "n/a"}`;
    cell.setAttribute("aria-label", text);
    cell.title = text;
  }
}
