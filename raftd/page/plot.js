// Plots of the last minutes, as inline SVG.

import { makeSvg, set } from "./elements.js";
import { clock, measure } from "./words.js";

const SPANS = [60, 120, 300]; // Points: one, two and five minutes of seconds.
const MARGIN = { left: 52, right: 10, top: 10, bottom: 24 };

export function niceCeiling(value) {
  if (value <= 1) return 1;
  const power = 10 ** Math.floor(Math.log10(value));
  return [1, 2, 5, 10].map((factor) => factor * power).find((nice) => nice >= value);
}

function timeWords(secondsAgo) {
  if (!secondsAgo) return "now";
  return secondsAgo < 60 || secondsAgo % 60 ? `−${secondsAgo} s` : `−${secondsAgo / 60} min`;
}

/** Round values for an axis from 0 to at least `top`, four of them or so. */
function axisOf(top, least) {
  const most = Math.max(top, least);
  const power = 10 ** Math.floor(Math.log10(most / 3));
  const step = [1, 2, 5, 10].map((factor) => factor * power).find((nice) => most / nice <= 4);
  const ticks = [];
  for (let tick = 0; tick < most + step; tick += step) ticks.push(Number(tick.toPrecision(6)));
  return ticks;
}

/** A plot of columns of numbers over the last minutes; drawn anew with each event. */
export class Plot {
  constructor(element, { unit, least, pointsMax }) {
    this.element = element;
    this.unit = unit;
    this.least = least;
    this.pointsMax = pointsMax;
    this.pointsShown = pointsMax;
    this.series = [];
    this.lastMs = 0;
    this.intervalMs = 1000;
    this.pointed = null; // How many points before the newest one; null: nobody points.
    new ResizeObserver(() => this.draw()).observe(element);
    element.addEventListener("pointermove", (event) => this.point(event.clientX));
    element.addEventListener("pointerleave", () => this.pointAt(null));
    element.addEventListener("blur", () => this.pointAt(null));
    element.addEventListener("keydown", (event) => this.step(event));
  }

  show(series, { intervalMs, lastMs, label }) {
    Object.assign(this, { series, intervalMs, lastMs });
    const points = Math.max(...series.map((each) => each.values.length));
    // A server that has just started has little to show: that gets the whole width.
    this.pointsShown = SPANS.find((span) => span >= points) ?? this.pointsMax;
    set(this.element, "aria-label", label);
    this.draw();
  }

  point(clientX) {
    const box = this.element.getBoundingClientRect();
    const inner = box.width - MARGIN.left - MARGIN.right;
    const from = (box.right - MARGIN.right - clientX) / inner;
    this.pointAt(Math.round(Math.max(0, Math.min(1, from)) * (this.pointsShown - 1)));
  }

  step(event) {
    const by = { ArrowLeft: 1, ArrowRight: -1, PageUp: 30, PageDown: -30 }[event.key];
    if (by === undefined) return;
    event.preventDefault();
    this.pointAt(Math.max(0, Math.min(this.pointsShown - 1, (this.pointed ?? 0) + by)));
  }

  pointAt(back) {
    this.pointed = back;
    this.draw();
  }

  draw() {
    const width = this.element.clientWidth;
    const height = this.element.clientHeight;
    if (width < 50 || height < 50) return;
    const svg = makeSvg("svg", { width, height, viewBox: `0 0 ${width} ${height}`, "aria-hidden": "true" });
    const values = this.series.flatMap((each) => each.values).filter((value) => value !== null);
    const ticks = axisOf(Math.max(0, ...values), this.least);
    const top = ticks[ticks.length - 1];
    const scale = {
      x: (back) => width - MARGIN.right - (back / (this.pointsShown - 1)) * (width - MARGIN.left - MARGIN.right),
      y: (value) => height - MARGIN.bottom - (value / top) * (height - MARGIN.top - MARGIN.bottom),
    };
    this.drawAxes(svg, scale, ticks, width, height);
    for (const each of this.series) this.drawSeries(svg, scale, each);
    if (this.pointed !== null) this.drawPointed(svg, scale, width, height);
    this.element.replaceChildren(svg);
  }

  drawAxes(svg, scale, ticks, width, height) {
    for (const tick of ticks) {
      const y = scale.y(tick);
      svg.append(makeSvg("line", { class: tick ? "grid" : "base", x1: MARGIN.left, x2: width - MARGIN.right, y1: y, y2: y }));
      svg.append(makeSvg("text", { class: "tick", x: MARGIN.left - 8, y: y + 4, "text-anchor": "end" }, measure(tick)));
    }
    const seconds = Math.round((this.pointsShown * this.intervalMs) / 1000);
    const step = seconds > 120 ? 60 : seconds > 60 ? 30 : 15;
    const every = width < 420 && seconds / step > 3 ? 2 : 1;
    for (let at = 0; at * step <= seconds; at += 1) {
      const x = scale.x(Math.min(this.pointsShown - 1, (at * step * 1000) / this.intervalMs));
      svg.append(makeSvg("line", { class: "base", x1: x, x2: x, y1: height - MARGIN.bottom, y2: height - MARGIN.bottom + 4 }));
      if (at % every) continue;
      const anchor = at ? (at * step === seconds ? "start" : "middle") : "end";
      svg.append(makeSvg("text", { class: "tick", x, y: height - 6, "text-anchor": anchor }, timeWords(at * step)));
    }
  }

  drawSeries(svg, scale, { values, name, area }) {
    let line = "";
    let fill = "";
    let start = null;
    values.forEach((value, at) => {
      const back = values.length - 1 - at;
      if (value === null || back >= this.pointsShown) {
        start = null;
        return;
      }
      const [x, y] = [scale.x(back).toFixed(1), scale.y(value).toFixed(1)];
      // A single point is a line of no length, which round caps make a dot.
      line += start === null ? `M${x} ${y}h0` : `L${x} ${y}`;
      if (area) {
        const base = scale.y(0).toFixed(1);
        fill += start === null ? `M${x} ${base}L${x} ${y}` : `L${x} ${y}`;
        const next = values[at + 1];
        if (next === undefined || next === null) fill += `L${x} ${base}Z`;
      }
      start = start ?? at;
    });
    if (fill) svg.append(makeSvg("path", { class: `area area-${name}`, d: fill }));
    svg.append(makeSvg("path", { class: `series series-${name}`, d: line }));
  }

  drawPointed(svg, scale, width, height) {
    const x = scale.x(this.pointed);
    svg.append(makeSvg("line", { class: "pointer", x1: x, x2: x, y1: MARGIN.top, y2: height - MARGIN.bottom }));
    const words = this.series.map(({ values, name }) => {
      const value = values[values.length - 1 - this.pointed];
      return `${this.series.length > 1 ? `${name} ` : ""}${measure(value ?? null)}`;
    });
    const when = this.lastMs ? clock.format(this.lastMs - this.pointed * this.intervalMs) : "";
    const left = x > width / 2;
    svg.append(makeSvg(
      "text", { class: "pointed", x: x + (left ? -8 : 8), y: MARGIN.top + 12, "text-anchor": left ? "end" : "start" },
      `${when}  ${words.join("  ")} ${this.unit}`,
    ));
  }
}
