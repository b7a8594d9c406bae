// The connections between datacenters, as the members measure them: a drawing, and the same as a table.

import { make, svg, table, text } from "/dom.js";

// More datacenters than these are a table only.
const DRAWN_MAX = 16;

export class Links {
  constructor(map, matrix, note) {
    Object.assign(this, { map, matrix, note, pairs: new Map(), silent: 0, none: "not asked yet" });
  }

  // `reach`: of /v1/reachability.
  show(reach, members) {
    this.none = "no connection";
    this.pairs = new Map();
    this.silent = reach.filter((row) => row.problem).length;
    for (const row of reach) {
      for (const path of row.paths) {
        const key = [row.datacenter, path.datacenter].sort().join("\n");
        const pair = this.pairs.get(key) ?? { rtt: [], loss: 0 };
        if (path.rtt_ms !== null) {
          pair.rtt.push(path.rtt_ms);
        }
        pair.loss = Math.max(pair.loss, path.loss);
        this.pairs.set(key, pair);
      }
    }
    this.states(members);
  }

  failed(words) {
    text(this.note, `The members were not asked: ${words}`);
  }

  states(members) {
    const places = new Map();
    for (const { datacenter, state } of members) {
      const place = places.get(datacenter) ?? { all: 0, live: 0 };
      place.all += 1;
      place.live += state === "live" ? 1 : 0;
      places.set(datacenter, place);
    }
    const seen = JSON.stringify([[...places], [...this.pairs], this.silent, this.none]);
    if (seen === this.seen) {
      return;
    }
    this.seen = seen;
    this.silentPlaces = new Set([...places].filter(([, place]) => place.live === 0).map(([name]) => name));
    const names = [...places.keys()].sort();
    const rows = this.rows(names);
    text(this.note, this.silent ? `${this.silent} members did not say what they hear.` : "");
    this.map.replaceChildren(names.length > DRAWN_MAX ? "" : this.draw(names, places));
    const heads = [["From", false], ["To", false], ["Round trip, median", true], ["Loss, worst", true], ["Paths", true]];
    this.matrix.replaceChildren(table("Round trips", heads, rows));
  }

  rows(names) {
    const rows = [];
    names.forEach((one, n) => names.slice(n).forEach((other) => {
      const pair = this.pairs.get(`${one}\n${other}`);
      if (one !== other && (this.silentPlaces.has(one) || this.silentPlaces.has(other))) {
        rows.push([one, other, "cut off", "-", "0"]);
      } else if (pair) {
        rows.push([one, other, words(pair), percent(pair.loss), String(pair.rtt.length)]);
      } else if (one !== other) {
        rows.push([one, other, this.none, "-", "0"]);
      }
    }));
    return rows;
  }

  draw(names, places) {
    const [width, height] = [640, names.length === 1 ? 120 : 400];
    const at = names.map((_, n) => {
      const angle = (2 * Math.PI * n) / names.length - Math.PI / 2;
      const radius = names.length === 1 ? 0 : 150;
      return [width / 2 + 1.4 * radius * Math.cos(angle), height / 2 + radius * Math.sin(angle)];
    });
    const edges = [];
    names.forEach((one, n) => names.forEach((other, m) => {
      if (m <= n) {
        return;
      }
      const pair = this.pairs.get(`${one}\n${other}`);
      const cut = this.silentPlaces.has(one) || this.silentPlaces.has(other);
      const kind = !pair || cut ? "none" : pair.loss > 0.02 ? "lossy" : "";
      const [[x1, y1], [x2, y2]] = [at[n], at[m]];
      edges.push(svg("line", { class: `edge ${kind}`, x1, y1, x2, y2 }));
      const label = svg("text", { class: "small", x: (x1 + x2) / 2, y: (y1 + y2) / 2 - 4 });
      label.append(cut ? "cut off" : pair ? words(pair) : this.none);
      edges.push(label);
    }));
    const nodes = names.flatMap((name, n) => {
      const [x, y] = at[n];
      const { all, live } = places.get(name);
      const circle = svg("circle", { class: live < all ? "trouble" : "", cx: x, cy: y, r: 34 });
      const title = svg("text", { x, y: y - 2 });
      title.append(name.length > 10 ? `${name.slice(0, 9)}…` : name);
      const count = svg("text", { class: "small", x, y: y + 14 });
      count.append(`${live}/${all}`);
      return [circle, title, count];
    });
    const described = make("p", { class: "quiet" }, "Circles are datacenters with live and all members.");
    const drawing = svg("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": "Map of datacenters; the table below has the same figures" }, ...edges, ...nodes);
    return make("div", {}, drawing, described);
  }
}

function words({ rtt }) {
  if (rtt.length === 0) {
    return "no round trip yet";
  }
  const sorted = [...rtt].sort((a, b) => a - b);
  const median = sorted[Math.floor(sorted.length / 2)];
  return `${median < 10 ? median.toFixed(2) : median.toFixed(0)} ms`;
}

const percent = (part) => `${(100 * part).toFixed(1)} %`;
