// Requests to the server, or to what a static page holds.

export class Refused extends Error {}

// Requests of one path replace each other: an earlier one that is still running is cancelled.
export class Server {
  #running = new Map();

  async ask(path, body) {
    this.#running.get(path)?.abort();
    const controller = new AbortController();
    this.#running.set(path, controller);
    const how = { signal: controller.signal };
    if (body !== undefined) {
      Object.assign(how, { method: "POST", body: JSON.stringify(body) });
      how.headers = { "content-type": "application/json" };
    }
    let answer;
    try {
      answer = await fetch(`api/${path}`, how);
    } catch (error) {
      if (error.name === "AbortError") throw error;
      throw new Refused("The explorer does not answer; it may have been stopped. Start it again and reload.");
    }
    const content = await answer.json();
    if (!answer.ok) throw new Refused(content.error ?? `status ${answer.status}`);
    return content;
  }

  stop(path) {
    this.#running.get(path)?.abort();
  }
}

// Answers that were computed beforehand: every cell alone, by series.
export class Recorded {
  constructor(data) {
    this.data = data;
  }

  async ask(path, body) {
    if (path === "model") return this.data.model;
    const recorded = body.series && this.data.series[`${body.series.configuration}|${body.series.window}`];
    const [cell] = body.off ?? [];
    const found = {
      series: () => recorded.series,
      forecast: () => (cell ? recorded.forecasts[cell] : recorded.series.clean),
      losses: () => this.data.losses[cell ?? ""],
      scores: () => (body.score === "moved" ? recorded.moved : this.data.scores[body.score]),
      component: () => recorded.components[body.component],
      plan: () => this.data.plans[cell],
    }[path]();
    if (!found) throw new Refused("this page does not hold the answer; run tsprune explore");
    return found;
  }

  stop() {}
}

export const isStale = (error) => error.name === "AbortError";
