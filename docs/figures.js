// Draws the figures of a notebook in the colours of the page, and again when these change.
const colours = () => {
  const style = getComputedStyle(document.body);
  const text = style.getPropertyValue("--md-default-fg-color");
  const grid = style.getPropertyValue("--md-default-fg-color--lightest");
  const axis = { gridcolor: grid, zerolinecolor: grid, color: text };
  return { paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", font: { color: text }, xaxis: axis, yaxis: axis };
};
const draw = () => {
  for (const script of document.querySelectorAll("script[data-for]")) {
    const { data: traces, layout } = JSON.parse(script.textContent);
    const { xaxis, yaxis, ...others } = colours();
    const data = traces.map((one) => (one.error_y ? { ...one, error_y: { ...one.error_y, color: others.font.color } } : one));
    const merged = {
      ...layout, ...others, template: undefined, autosize: true, width: undefined,
      ...(innerWidth < 700 && { title: undefined, margin: { l: 50, r: 10, t: 10 }, legend: { orientation: "h", y: -0.25 } }),
      xaxis: { ...layout.xaxis, ...xaxis }, yaxis: { ...layout.yaxis, ...yaxis },
    };
    Plotly.react(script.dataset.for, data, merged, { responsive: true, displayModeBar: false });
  }
};
draw();
new MutationObserver(draw).observe(document.body, { attributeFilter: ["data-md-color-scheme"] });
