// The members by datacenter. A row is made once; an update touches the cells that differ.

import { day, link, make, state, text } from "/dom.js";

const STATES = ["live", "suspect", "unreachable", "dead", "joining", "left"];
const HEADS = [
  ["Node", false], ["State", false], ["Phi", true], ["Version", true], ["Behind", true],
  ["Keys", true], ["Certificate until", false], ["Address", false], ["Tags", false],
];

export class Members {
  constructor(place) {
    this.place = place;
    this.rows = new Map();
    this.groups = new Map();
    this.behind = new Map();
  }

  filter(find, state, datacenter, shown, counts) {
    Object.assign(this, { find, state, datacenter, shown, counts });
    STATES.forEach((name) => state.append(make("option", { value: name }, name)));
    const apply = () => this.apply();
    find.addEventListener("input", apply);
    state.addEventListener("change", apply);
    datacenter.addEventListener("change", apply);
  }

  // `list`: of /v1/members; `behind`: how many versions of this agent each node lacks, by node.
  show(list, behind) {
    this.behind = behind;
    const known = new Set();
    for (const member of list) {
      known.add(member.node);
      this.row(member);
    }
    for (const [name, row] of this.rows) {
      if (!known.has(name)) {
        row.group.remove(name);
        this.rows.delete(name);
      }
    }
    this.apply();
  }

  row(member) {
    const group = this.group(member.datacenter);
    let row = this.rows.get(member.node);
    if (!row || row.group !== group) {
      row?.group.remove(member.node);
      const cells = HEADS.map(([label, number], n) =>
        n === 0
          ? make("th", { scope: "row" }, link(member.node), member.local ? " (this agent)" : "")
          : make("td", { class: number ? "number" : "", "data-label": label }));
      row = { element: make("tr", {}, ...cells), cells, group, now: [] };
      this.rows.set(member.node, row);
      group.insert(row.element, member.node);
    }
    row.member = member;
    const tags = Object.entries(member.tags).map(([name, value]) => `${name}=${value}`).join(" ");
    const now = [
      member.node, member.state, member.phi === null ? "-" : member.phi.toFixed(2), member.version,
      this.behind.get(member.node) ?? "-", member.keys, day(member.not_after), member.address ?? "-", tags,
    ];
    for (let n = 1; n < now.length; n += 1) {
      if (row.now[n] === now[n]) {
        continue;
      }
      if (n === 1) {
        row.cells[n].replaceChildren(state(now[n]));
      } else {
        text(row.cells[n], now[n]);
      }
    }
    row.cells[6].classList.toggle("soon", member.expires_soon);
    row.now = now;
    row.words = `${member.node} ${member.address ?? ""} ${tags}`.toLowerCase();
  }

  group(name) {
    let group = this.groups.get(name);
    if (!group) {
      group = new Group(name);
      this.groups.set(name, group);
      const after = [...this.groups.keys()].sort().find((other) => other > name);
      this.place.insertBefore(group.element, after ? this.groups.get(after).element : null);
      this.datacenter?.append(make("option", { value: name }, name));
    }
    return group;
  }

  apply() {
    const words = this.find.value.trim().toLowerCase();
    const [state, datacenter] = [this.state.value, this.datacenter.value];
    const counts = new Map(STATES.map((name) => [name, 0]));
    let shown = 0;
    this.groups.forEach((group) => { group.live = 0; group.all = 0; group.shown = 0; });
    for (const row of this.rows.values()) {
      const { member, group } = row;
      counts.set(member.state, (counts.get(member.state) ?? 0) + 1);
      group.all += 1;
      group.live += member.state === "live" ? 1 : 0;
      const fits = (!state || member.state === state)
        && (!datacenter || member.datacenter === datacenter)
        && (!words || row.words.includes(words));
      if (row.element.hidden === fits) {
        row.element.hidden = !fits;
      }
      group.shown += fits ? 1 : 0;
      shown += fits ? 1 : 0;
    }
    this.groups.forEach((group) => group.head());
    text(this.shown, `${shown} of ${this.rows.size} members`);
    this.count(counts);
  }

  count(counts) {
    this.tiles ??= new Map();
    for (const [name, number] of counts) {
      if (!this.tiles.has(name)) {
        const tile = { number: make("b"), words: state(name) };
        tile.element = make("li", {}, tile.number, " ", tile.words);
        this.tiles.set(name, tile);
        this.counts.append(tile.element);
      }
      const tile = this.tiles.get(name);
      text(tile.number, number);
      tile.element.hidden = number === 0;
    }
  }
}

// The table of one datacenter; rows stay in order of their names.
class Group {
  constructor(name) {
    this.name = name;
    this.caption = make("caption");
    this.body = make("tbody");
    const heads = HEADS.map(([title, number]) => make("th", { scope: "col", class: number ? "number" : "" }, title));
    const table = make("table", { class: "members" }, this.caption, make("thead", {}, make("tr", {}, ...heads)), this.body);
    this.element = make("section", { class: "place" }, make("div", { class: "table" }, table));
    this.names = [];
    this.elements = new Map();
  }

  insert(element, name) {
    let [low, high] = [0, this.names.length];
    while (low < high) {
      const middle = (low + high) >> 1;
      if (this.names[middle] < name) { low = middle + 1; } else { high = middle; }
    }
    this.body.insertBefore(element, this.elements.get(this.names[low]) ?? null);
    this.names.splice(low, 0, name);
    this.elements.set(name, element);
  }

  remove(name) {
    this.elements.get(name)?.remove();
    this.elements.delete(name);
    this.names = this.names.filter((other) => other !== name);
  }

  head() {
    text(this.caption, `${this.name}: ${this.live} of ${this.all} live`);
    this.element.hidden = this.shown === 0;
  }
}
