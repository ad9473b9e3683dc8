"use strict";
// Charts and sortable tables of a vitexp page; everything it shows stands in the page itself.
const COLORS = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#7a7a7a", "#8c564b"];
const SVG = "http://www.w3.org/2000/svg";
const W = 520, H = 300, LEFT = 58, RIGHT = 14, TOP = 28, BOTTOM = 40;

function element(name, attributes, text) {
  const node = document.createElementNS(SVG, name);
  for (const key in attributes) node.setAttribute(key, attributes[key]);
  if (text !== undefined) node.textContent = text;
  return node;
}

function short(value) {
  if (value === 0) return "0";
  const size = Math.abs(value);
  if (size >= 1e5 || size < 1e-3) return value.toExponential(1);
  return String(Number(value.toPrecision(4)));
}

function ticks(low, high, count) {
  if (!(high > low)) return [low];
  const raw = (high - low) / count, power = Math.pow(10, Math.floor(Math.log10(raw)));
  const step = [1, 2, 5, 10].map((m) => m * power).find((s) => s >= raw);
  const found = [];
  for (let v = Math.ceil(low / step) * step; v <= high + step * 1e-9; v += step) found.push(Number(v.toPrecision(12)));
  return found;
}

function scales(chart) {
  const xs = chart.series.flatMap((s) => s.x), ys = chart.series.flatMap((s) => s.y);
  const log = Boolean(chart.log) && xs.every((v) => v > 0);
  const fx = log ? Math.log10 : (v) => v;
  let x0 = Math.min(...xs.map(fx)), x1 = Math.max(...xs.map(fx)), y0 = Math.min(...ys), y1 = Math.max(...ys);
  if (x0 === x1) { x0 -= 0.5; x1 += 0.5; }
  const room = (y1 - y0 || Math.abs(y1) || 1) * 0.06;
  y0 -= room; y1 += room;
  return {
    x: (v) => LEFT + (fx(v) - x0) / (x1 - x0) * (W - LEFT - RIGHT),
    y: (v) => H - BOTTOM - (v - y0) / (y1 - y0) * (H - TOP - BOTTOM),
    xTicks: log ? [...new Set(xs)].sort((a, b) => a - b) : ticks(x0, x1, 6), yTicks: ticks(y0, y1, 5),
  };
}

function axes(svg, chart, scale) {
  svg.append(element("text", { x: LEFT, y: 16, class: "title" }, chart.title));
  for (const v of scale.yTicks) {
    svg.append(element("line", { x1: LEFT, x2: W - RIGHT, y1: scale.y(v), y2: scale.y(v), class: "axis" }));
    svg.append(element("text", { x: LEFT - 6, y: scale.y(v) + 4, "text-anchor": "end" }, short(v)));
  }
  let free = -Infinity;
  for (const v of scale.xTicks) {
    const label = chart.names ? chart.names[v] ?? "" : short(v), half = label.length * 3.2;
    const at = Math.min(scale.x(v), W - half);
    if (at - half < free) continue;
    free = at + half + 6;
    svg.append(element("text", { x: at, y: H - BOTTOM + 16, "text-anchor": "middle" }, label));
  }
  svg.append(element("text", { x: (LEFT + W) / 2, y: H - 6, "text-anchor": "middle" }, chart.xlabel));
}

function draw(holder, chart, tip) {
  const svg = element("svg", { viewBox: `0 0 ${W} ${H}`, role: "img", "aria-label": chart.title });
  const scale = scales(chart);
  axes(svg, chart, scale);
  chart.series.forEach((s, i) => {
    const color = COLORS[i % COLORS.length], points = s.x.map((v, k) => `${scale.x(v)},${scale.y(s.y[k])}`).join(" ");
    if (!s.dots) {
      svg.append(element("polyline", { points, fill: "none", stroke: color, "stroke-width": 1.8,
        "stroke-opacity": s.faint ? 0.35 : 1 }));
    }
    if (s.dots || s.x.length <= 40) {
      s.x.forEach((v, k) => svg.append(element("circle", { cx: scale.x(v), cy: scale.y(s.y[k]), r: 3, fill: color })));
    }
  });
  const cursor = element("line", { y1: TOP, y2: H - BOTTOM, class: "axis", visibility: "hidden" });
  svg.append(cursor);
  svg.addEventListener("pointermove", (event) => hover(event, svg, chart, scale, cursor, tip));
  svg.addEventListener("pointerleave", () => { tip.style.display = "none"; cursor.setAttribute("visibility", "hidden"); });
  holder.append(svg, legend(chart));
}

function hover(event, svg, chart, scale, cursor, tip) {
  const box = svg.getBoundingClientRect(), at = (event.clientX - box.left) / box.width * W;
  const lines = [];
  let where = null;
  chart.series.forEach((s) => {
    if (!s.x.length) return;
    let best = 0;
    s.x.forEach((v, k) => { if (Math.abs(scale.x(v) - at) < Math.abs(scale.x(s.x[best]) - at)) best = k; });
    if (where === null || Math.abs(scale.x(s.x[best]) - at) < Math.abs(scale.x(where) - at)) where = s.x[best];
    lines.push(`${s.name}: ${short(s.y[best])}`);
  });
  if (where === null) return;
  cursor.setAttribute("x1", scale.x(where));
  cursor.setAttribute("x2", scale.x(where));
  cursor.setAttribute("visibility", "visible");
  tip.replaceChildren();
  const label = chart.names ? chart.names[where] ?? "" : short(where);
  for (const line of [`${chart.xlabel} ${label}`, ...lines.slice(0, 12)]) {
    const row = document.createElement("div");
    row.textContent = line;
    tip.append(row);
  }
  tip.style.display = "block";
  tip.style.left = `${Math.min(event.clientX + 14, window.innerWidth - tip.offsetWidth - 8)}px`;
  tip.style.top = `${Math.min(event.clientY + 14, window.innerHeight - tip.offsetHeight - 8)}px`;
}

function legend(chart) {
  const box = document.createElement("div");
  box.className = "legend";
  chart.series.slice(0, 16).forEach((s, i) => {
    const entry = document.createElement("span"), key = document.createElement("i");
    key.style.background = COLORS[i % COLORS.length];
    entry.append(key, s.name);
    box.append(entry);
  });
  return box;
}

function sortable(table) {
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => head.addEventListener("click", () => {
    const down = head.getAttribute("aria-sort") === "ascending";
    heads.forEach((other) => other.removeAttribute("aria-sort"));
    head.setAttribute("aria-sort", down ? "descending" : "ascending");
    const rows = [...table.tBodies[0].rows], value = (row) => row.cells[column].dataset.value ?? row.cells[column].textContent;
    rows.sort((a, b) => {
      const x = value(a), y = value(b), order = x !== "" && y !== "" && !isNaN(x) && !isNaN(y) ? x - y : x.localeCompare(y);
      return down ? -order : order;
    });
    table.tBodies[0].append(...rows);
  }));
}

document.addEventListener("DOMContentLoaded", () => {
  const tip = document.createElement("div");
  tip.className = "tip";
  document.body.append(tip);
  document.querySelectorAll("table.sortable").forEach(sortable);
  const data = document.getElementById("charts");
  const charts = data ? JSON.parse(data.textContent) : [];
  document.querySelectorAll("[data-chart]").forEach((holder) => draw(holder, charts[Number(holder.dataset.chart)], tip));
});
