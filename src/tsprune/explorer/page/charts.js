// The figures, drawn by plotly in the page's colours.

const CONFIG = { displaylogo: false, displayModeBar: false, scrollZoom: false };

const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
const faded = (hex, alpha) => `rgba(${[1, 3, 5].map((at) => parseInt(hex.slice(at, at + 2), 16)).join(",")},${alpha})`;
const range = (count, start = 0) => Array.from({ length: count }, (_, i) => start + i);

function layout(more) {
  const [ink, rule] = [css("--ink"), css("--rule")];
  const axis = { gridcolor: rule, zerolinecolor: rule, linecolor: rule, automargin: true, tickfont: { size: 11 } };
  const base = {
    paper_bgcolor: "rgba(0,0,0,0)",
    plot_bgcolor: "rgba(0,0,0,0)",
    font: { color: ink, size: 12, family: "system-ui, sans-serif" },
    margin: { l: 46, r: 12, t: 26, b: 38 },
    legend: { orientation: "h", x: 0, y: 1.02, yanchor: "bottom", font: { size: 12 } },
    hoverlabel: { font: { size: 12 } },
  };
  for (const name of ["xaxis", "yaxis"]) {
    const title = more[name].title && { ...more[name].title, font: { size: 12 }, standoff: 6 };
    more[name] = { ...axis, ...more[name], title };
  }
  return { ...base, ...more };
}

function band(x, low, high, colour, name) {
  return {
    x: [...x, ...x.toReversed()], y: [...high, ...low.toReversed()], fill: "toself", mode: "lines",
    line: { width: 0 }, fillcolor: faded(colour, 0.18), name, legendgroup: name, hoverinfo: "skip", showlegend: false,
  };
}

export class Charts {
  // boxes: of the figures, which follow their widths
  constructor(colours, boxes) {
    this.colours = colours;
    const observer = new ResizeObserver((entries) => {
      for (const { target } of entries) if (target.data && target.clientWidth) Plotly.Plots.resize(target);
    });
    for (const box of boxes) observer.observe(box);
  }

  // the colours of the page, light or dark
  get before() {
    return this.colours.before[Number(matchMedia("(prefers-color-scheme: dark)").matches)];
  }

  get after() {
    return this.colours.after[Number(matchMedia("(prefers-color-scheme: dark)").matches)];
  }

  // series: context, target, horizon, clean; after: null if nothing is off; shown: horizons of history, 0 for all;
  // off: number of components
  forecast(box, series, after, { shown, off }) {
    const context = shown ? series.context.slice(-shown * series.horizon) : series.context;
    const ink = css("--ink");
    const traces = [];
    const add = (found, colour, name) => {
      const [low, median, high] = found.quantiles;
      const x = range(median.length, 1);
      traces.push(band(x, low, high, colour, name));
      traces.push({ x, y: median, name, legendgroup: name, mode: "lines", line: { color: colour, width: 2.5 } });
    };
    traces.push({ x: range(context.length, 1 - context.length), y: context, name: "history", mode: "lines", line: { color: ink, width: 1.3 } });
    if (series.target) {
      traces.push({ x: range(series.horizon, 1), y: series.target, name: "true future", mode: "lines", line: { color: ink, width: 1.3, dash: "dot" } });
    }
    add(series.clean, this.before, "whole model");
    if (after) add(after, this.after, `without ${off} component${off === 1 ? "" : "s"}`);
    return Plotly.react(box, traces, layout({
      xaxis: { title: { text: "steps after the end of the history" } },
      yaxis: { title: { text: "value" } },
      hovermode: "x unified",
      shapes: [{ type: "line", x0: 0.5, x1: 0.5, y0: 0, y1: 1, yref: "paper", line: { color: css("--soft"), width: 1, dash: "dot" } }],
    }), CONFIG);
  }

  // the series above with what one query looks at, the whole map below; onQuery(row) follows the pointer
  attention(box, series, found, row, onQuery) {
    const keys = found.keys.map((time, at) => time ?? null);
    const centres = keys.map((time) => (time === null ? null : time - (found.span - 1) / 2));
    const timed = centres.map((time, at) => [time, at]).filter(([time]) => time !== null);
    const x = timed.map(([time]) => time);
    const first = Math.min(...x) - found.span / 2;
    const past = series.context.slice(Math.min(0, Math.ceil(first)) - 1 || undefined);
    const queries = found.weights.map((_, at) => at);
    const blue = [[0, faded(this.before, 0)], [0.3, faded(this.before, 0.4)], [1, this.before]];
    const label = (at) => (found.queries[at] === null ? `position ${at}` : `step ${found.queries[at]}`);
    const traces = [
      { x, y: timed.map(([, at]) => found.weights[row][at]), type: "bar", width: found.span * 0.92, yaxis: "y2", marker: { color: faded(this.after, 0.55) }, hovertemplate: "step %{x}: %{y:.1%}<extra></extra>", name: "attention" },
      { x: range(past.length, 1 - past.length), y: past, mode: "lines", line: { color: css("--ink"), width: 1.3 }, name: "series", hoverinfo: "none" },
      { x, y: queries, z: found.weights.map((line) => timed.map(([, at]) => line[at])), type: "heatmap", colorscale: blue, zmin: 0, showscale: false, yaxis: "y3", customdata: queries.map((at) => timed.map(() => label(at))), hovertemplate: "query %{customdata}<br>key step %{x}: %{z:.1%}<extra></extra>" },
    ];
    const done = Plotly.react(box, traces, {
      ...layout({
        xaxis: { title: { text: "key: steps after the end of the history" }, anchor: "y3" },
        yaxis: { title: { text: "series" }, domain: [0.58, 1] },
        showlegend: false,
        hovermode: "x",
        hoverdistance: -1,
      }),
      yaxis2: { overlaying: "y", side: "right", showgrid: false, rangemode: "tozero", tickformat: ".0%", color: css("--soft"), automargin: true },
      yaxis3: { domain: [0, 0.52], autorange: "reversed", title: { text: "query", font: { size: 12 } }, showgrid: false, tickformat: "d", automargin: true, zeroline: false },
      margin: { l: 46, r: 46, t: 10, b: 38 },
      shapes: [{ type: "rect", xref: "paper", yref: "y3", x0: 0, x1: 1, y0: row - 0.5, y1: row + 0.5, line: { color: this.after, width: 1.5 } }],
    }, CONFIG);
    if (!box.dataset.listening) {
      box.dataset.listening = "yes";
      box.on("plotly_hover", (event) => {
        const map = event.points.find((one) => one.data.type === "heatmap");
        box.followed(map ? map.y : box.nearest(event.xvals?.[0] ?? event.points[0].x));
      });
    }
    box.followed = onQuery;
    // over the series, the query at that time, if queries have times
    box.nearest = (time) => {
      const far = found.queries.map((one) => (one === null ? Infinity : Math.abs(one - time)));
      return Math.min(...far) < Infinity ? far.indexOf(Math.min(...far)) : row;
    };
    return done;
  }

  lag(box, found, period) {
    const longest = Math.max(...found.lags, 0);
    const shapes = [];
    // as in period_share: two positions must not be longer than the period
    for (let at = period; period >= 2 * found.span && at <= longest && shapes.length < 12; at += period) {
      shapes.push({ type: "line", x0: at, x1: at, y0: 0, y1: 1, yref: "paper", line: { color: css("--soft"), width: 1, dash: "dot" } });
    }
    return Plotly.react(box, [
      { x: found.lags, y: found.mass, type: "bar", name: "this head", marker: { color: this.before }, width: found.lag_width },
      { x: found.lags, y: found.uniform, mode: "lines", name: "even attention", line: { color: css("--soft"), width: 1.5 } },
    ], layout({
      xaxis: { title: { text: "lag (steps; dotted: multiples of the period)" } },
      yaxis: { tickformat: ".0%", rangemode: "tozero" },
      shapes,
    }), CONFIG);
  }

  writes(box, found) {
    const timed = found.times.some((time) => time !== null);
    // registers and other marks have no time; they would take the axis' range
    const shown = found.times.map((_, at) => at).filter((at) => !timed || found.times[at] !== null);
    return Plotly.react(box, [{
      x: shown.map((at) => found.times[at] ?? `position ${at}`), y: shown.map((at) => found.strength[at]), type: "bar",
      marker: { color: shown.map((at) => (found.direction[at] < 0 ? this.after : this.before)) },
      customdata: shown.map((at) => found.direction[at]),
      hovertemplate: "step %{x}<br>%{y:.1%} of the stream, cosine %{customdata:.2f}<extra></extra>",
    }], layout({
      xaxis: { title: { text: "step (blue: along the stream, orange: against it)" } },
      yaxis: { tickformat: ".1%", rangemode: "tozero" },
      showlegend: false,
    }), CONFIG);
  }
}
