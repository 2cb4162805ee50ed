// Figures: curves with bands, dots, and the small curves of trials. Numbers come from the server; names are text.

const COLOURS = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#8C6D1F", "#56B4E9", "#777777"];
const DASHES = ["solid", "dash", "dot", "dashdot", "longdash", "longdashdot", "solid"];
const OPTIONS = {
  responsive: true, displaylogo: false, plotlyServerURL: "",
  modeBarButtons: [["toImage", "zoom2d", "pan2d", "resetScale2d"]],
};
const SVG = "http://www.w3.org/2000/svg";

/** Text as Plotly shows it: it reads some tags, of which a name has none. */
const text = value => String(value).replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;");

const ink = name => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

function layout(xTitle, yTitle) {
  const axis = {gridcolor: ink("--grid"), linecolor: ink("--soft"), tickcolor: ink("--soft"), zeroline: false, ticks: "outside", automargin: true};
  return {
    template: {}, height: 320, showlegend: true, hovermode: "x unified", uirevision: "kept",
    font: {family: "system-ui, sans-serif", size: 13, color: ink("--ink")},
    hoverlabel: {bgcolor: ink("--paper"), font: {color: ink("--ink")}},
    paper_bgcolor: ink("--paper"), plot_bgcolor: ink("--paper"),
    margin: {l: 60, r: 12, t: 44, b: 48},
    legend: {orientation: "h", x: 0, y: 1.02, yanchor: "bottom", font: {size: 12}},
    xaxis: {...axis, rangemode: "tozero", title: {text: text(xTitle), standoff: 8}},
    yaxis: {...axis, title: {text: text(yTitle), standoff: 6}},
  };
}

/** Draw the lines of `plot` into `place`, or draw them anew. */
export function drawCurves(place, plot) {
  const traces = [];
  plot.lines.forEach((line, number) => {
    const colour = COLOURS[number % COLOURS.length];
    const common = {x: line.x, mode: "lines", hoverinfo: "skip", showlegend: false, line: {width: 0, shape: "hv"}};
    if (line.low.length) {
      traces.push({...common, y: line.high}, {...common, y: line.low, fill: "tonexty", fillcolor: `${colour}26`});
    }
    traces.push({
      x: line.x, y: line.y, name: text(line.name), mode: line.x.length > 1 ? "lines" : "markers", hovertemplate: "%{y:.4g}",
      line: {color: colour, dash: DASHES[number % DASHES.length], width: 2.2, shape: "hv"},
    });
  });
  plot.marks.forEach((marks, number) => traces.push({
    x: marks.map(mark => mark[0]), y: marks.map(mark => mark[1]), name: "prompt adopted", mode: "markers",
    marker: {symbol: "star", size: 9, color: ink("--paper"), line: {color: ink("--ink"), width: 1.4}},
    showlegend: number === 0, hoverinfo: "skip",
  }));
  const found = layout(plot.x_title, plot.y_title);
  if (plot.level !== null) {
    const line = {color: ink("--ink"), dash: "dash", width: 1.4};
    found.shapes = [{type: "line", xref: "paper", x0: 0, x1: 1, y0: plot.level, y1: plot.level, line}];
    found.annotations = [{xref: "paper", x: 1, xanchor: "right", y: plot.level, yanchor: "bottom", text: "manual prompt", showarrow: false}];
  }
  Plotly.react(place, traces, found, OPTIONS);
}

/** Draw cost beside accuracy: one mark a run. `axis`: queries, usd or seconds. */
export function drawDots(place, costs, axis, title) {
  const traces = costs.dots.map((dot, number) => ({
    x: [dot[axis]], y: [dot.metric], name: text(dot.name), mode: "markers", hovertemplate: "%{x:,.4g} → %{y:.4g}",
    marker: {size: 12, color: COLOURS[number % COLOURS.length]},
  }));
  Plotly.react(place, traces, {...layout(title, costs.y_title), hovermode: "closest"}, OPTIONS);
}

/** Return the small curve of a trial; `said` is what a screen reader says of it. */
export function spark(points, said) {
  const [width, height] = [110, 26];
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
  svg.setAttribute("class", "spark");
  svg.setAttribute("role", "img");
  svg.setAttribute("aria-label", said);
  if (points.length > 1) {
    const xs = points.map(point => point[0]), ys = points.map(point => point[1]);
    const [left, right, low, high] = [Math.min(...xs), Math.max(...xs), Math.min(...ys), Math.max(...ys)];
    const at = ([x, y]) => {
      const along = right > left ? (x - left) / (right - left) : 0, up = high > low ? (y - low) / (high - low) : 0.5;
      return `${(1 + along * (width - 2)).toFixed(1)},${(height - 2 - up * (height - 4)).toFixed(1)}`;
    };
    const line = document.createElementNS(SVG, "polyline");
    line.setAttribute("points", points.map(at).join(" "));
    svg.append(line);
  }
  return svg;
}
