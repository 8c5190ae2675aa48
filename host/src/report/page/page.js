// Draws the charts of the page from its data: every curve over the chosen axis, smoothed if that is wanted, with the values under
// the pointer; a run can be hidden, and colours follow the theme.
"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const root = document.documentElement;
  // Distinguishable with any colour vision (Okabe and Ito 2008), lighter on a dark page; the last one is that of the text.
  const COLOURS = {
    light: ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#8c6d31", null],
    dark: ["#4aa8e8", "#ff8c42", "#2cc79b", "#e6a0c8", "#9ad4f5", "#f2c14e", "#c2a46b", null],
  };
  const DASHES = [[], [8, 4], [2, 3], [8, 4, 2, 4]];
  const state = { axis: "step", smooth: 0, hidden: new Set() };
  const plots = [];

  const theme = (name) => {
    root.dataset.theme = name;
    document.getElementById("theme").textContent = name === "dark" ? "light" : "dark";
  };
  theme(window.matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light");

  const style = (name) => getComputedStyle(root).getPropertyValue(name).trim();
  const colour = (index) => {
    const colours = COLOURS[root.dataset.theme];
    return colours[index % colours.length] || style("--text");
  };

  // The value of the axis at a step of a run, between the points that the page holds.
  function place(run, step) {
    if (state.axis === "step") return step;
    const { steps, flops } = data.runs[run];
    const values = data.runs[run][state.axis === "seconds" ? "seconds" : "tokens"];
    const factor = state.axis === "flops" ? flops : 1;
    let low = 0, high = steps.length - 1;
    if (high < 0 || !factor) return null;
    if (step < steps[0]) return 0;
    if (step >= steps[high]) return values[high] === null ? null : factor * values[high];
    while (high - low > 1) {
      const middle = (low + high) >> 1;
      if (steps[middle] <= step) low = middle; else high = middle;
    }
    if (values[low] === null || values[high] === null) return null;
    const share = (step - steps[low]) / (steps[high] - steps[low]);
    return factor * (values[low] + share * (values[high] - values[low]));
  }

  // The exponential moving average, corrected at its beginning; a gap stays a gap. A value may be the mean of several steps.
  function smoothed(values, counts) {
    let sum = 0, weight = 0;
    return values.map((value, at) => {
      if (value === null) return null;
      const past = Math.pow(state.smooth, counts ? counts[at] : 1);
      sum = past * sum + (1 - past) * value;
      weight = past * weight + (1 - past);
      return sum / weight;
    });
  }

  // Points in the order of the axis, each place once: the last value counts.
  // An evaluation is a measurement of its own and is not smoothed.
  function column(line) {
    const points = new Map();
    let steps = line.x, values = line.y;
    if (state.smooth > 0 && !line.held_out) {
      const by = (part) => line.means.map((mean) => mean[part]);
      if (line.means.length) [steps, values] = [by(0), smoothed(by(1), by(2))];
      else values = smoothed(values);
    }
    steps.forEach((step, at) => {
      const x = place(line.run, step);
      if (x !== null) points.set(x, values[at]);
    });
    const xs = [...points.keys()].sort((a, b) => a - b);
    return [xs, xs.map((x) => points.get(x))];
  }

  const short = (value) => {
    if (value === null || value === undefined) return "-";
    const size = Math.abs(value);
    if (size !== 0 && (size < 1e-3 || size >= 1e6)) return value.toExponential(2);
    return String(Number(value.toPrecision(5)));
  };

  // Room for the longest label of the vertical axis: a character of its font has about 7 pixels.
  const labelWidth = (plot, values) => {
    const longest = Math.max(0, ...(values || []).map((text) => text.length));
    return Math.max(62, 20 + 7 * longest);
  };

  // Runs of the same name, such as the stages of one pipeline, are shown and hidden together.
  const labels = [...new Set(data.runs.map((run) => run.label))];
  const labelOf = (line) => data.runs[line.run].label;

  function name(line, alone) {
    const parts = [alone ? "" : labelOf(line), line.label, line.held_out ? "held out" : ""];
    return parts.filter((part) => part).join(", ") || "training";
  }

  function draw(figure) {
    const chart = data.charts[Number(figure.dataset.chart)];
    const target = figure.lastElementChild;
    const lines = chart.lines.filter((line) => !state.hidden.has(labelOf(line)));
    const runs = new Set(chart.lines.map((line) => line.run));
    const kinds = [...new Set(chart.lines.map((line) => line.label + (line.held_out ? "|" : "")))];
    const alone = runs.size === 1;
    target.replaceChildren();
    if (!lines.length) return null;
    const columns = lines.map(column);
    const joined = columns.length > 1 ? uPlot.join(columns, columns.map((own) => own.map(() => 1))) : columns[0];
    const band = (plot) => {
      if (!chart.healthy) return;
      const [low, high] = chart.healthy;
      const context = plot.ctx;
      const clamp = (y) => Math.min(plot.bbox.top + plot.bbox.height, Math.max(plot.bbox.top, y));
      const top = high === null ? plot.bbox.top : clamp(plot.valToPos(high, "y", true));
      const bottom = low === null ? plot.bbox.top + plot.bbox.height : clamp(plot.valToPos(low, "y", true));
      context.save();
      context.fillStyle = style("--band");
      context.fillRect(plot.bbox.left, top, plot.bbox.width, bottom - top);
      context.restore();
    };
    const axis = { stroke: style("--text"), grid: { stroke: style("--line"), width: 1 }, ticks: { stroke: style("--line") } };
    const number = (plot, values) => values.map(short);
    const series = lines.map((line, at) => {
      const kind = kinds.indexOf(line.label + (line.held_out ? "|" : ""));
      const few = columns[at][0].length < 40;
      return {
        label: name(line, alone),
        stroke: colour(alone ? kind : labels.indexOf(labelOf(line))),
        dash: alone ? DASHES[line.held_out ? 1 : 0] : DASHES[kind % DASHES.length],
        width: 1.5,
        spanGaps: false,
        points: { show: few, size: 5 },
        value: (plot, value) => short(value),
      };
    });
    const most = 100;
    const options = {
      // Its values follow the pointer; with more lines that would be slow.
      legend: { show: lines.length <= most },
      width: Math.max(200, target.clientWidth),
      height: 230,
      series: [{ label: state.axis, value: (plot, value) => short(value) }, ...series],
      scales: { x: { time: false } },
      axes: [{ ...axis, values: number, size: 34 }, { ...axis, values: number, size: labelWidth }],
      cursor: { sync: { key: "x" } },
      hooks: { drawClear: [band] },
    };
    const plot = new uPlot(options, joined, target);
    if (lines.length > most) {
      const note = document.createElement("p");
      note.className = "many";
      note.textContent = `${lines.length} curves: the legend is left out above ${most}; hide runs at the top of the page to tell them apart.`;
      target.append(note);
    }
    return plot;
  }

  // Charts are drawn when they come into view, so that a page with many opens at once.
  const visible = new IntersectionObserver((entries) => {
    for (const entry of entries) {
      if (!entry.isIntersecting) continue;
      visible.unobserve(entry.target);
      plots.push({ figure: entry.target, plot: draw(entry.target) });
    }
  }, { rootMargin: "400px" });
  document.querySelectorAll("[data-chart]").forEach((figure) => visible.observe(figure));

  // The coloured squares beside the names of runs.
  const chips = [];

  function redraw() {
    chips.forEach((chip, index) => { chip.style.background = colour(index); });
    for (const one of plots) {
      if (one.plot) one.plot.destroy();
      one.plot = draw(one.figure);
    }
  }

  document.getElementById("axis").addEventListener("change", (event) => { state.axis = event.target.value; redraw(); });
  document.getElementById("smooth").addEventListener("input", (event) => { state.smooth = Number(event.target.value); redraw(); });
  document.getElementById("theme").addEventListener("click", () => {
    theme(root.dataset.theme === "dark" ? "light" : "dark");
    redraw();
  });
  if (labels.length > 1) {
    const toggles = document.getElementById("toggles");
    labels.forEach((text, index) => {
      const label = document.createElement("label");
      const box = document.createElement("input");
      const chip = document.createElement("i");
      box.type = "checkbox";
      box.checked = true;
      chips.push(chip);
      label.append(box, chip, text);
      toggles.append(label);
      box.addEventListener("change", () => {
        if (box.checked) state.hidden.delete(text); else state.hidden.add(text);
        redraw();
      });
    });
  }
  redraw();
  let width = window.innerWidth;
  window.addEventListener("resize", () => {
    if (window.innerWidth === width) return;
    width = window.innerWidth;
    redraw();
  });
})();
