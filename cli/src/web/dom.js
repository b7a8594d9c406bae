// Elements without markup: text stays text, whatever a member calls itself.

export const byId = (id) => document.getElementById(id);

export function text(element, words) {
  const now = String(words);
  if (element.textContent !== now) {
    element.textContent = now;
  }
}

export function make(name, attributes = {}, ...children) {
  const element = document.createElement(name);
  for (const [attribute, value] of Object.entries(attributes)) {
    element.setAttribute(attribute, value);
  }
  element.append(...children);
  return element;
}

export function svg(name, attributes = {}, ...children) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [attribute, value] of Object.entries(attributes)) {
    element.setAttribute(attribute, value);
  }
  element.append(...children);
  return element;
}

// A table: heads are [title, is a number].
export function table(title, heads, rows, kind = "cards") {
  const head = heads.map(([name, number]) => make("th", { scope: "col", class: number ? "number" : "" }, name));
  const body = rows.map((cells) =>
    make("tr", {}, ...cells.map((cell, n) => {
      const attributes = { class: heads[n][1] ? "number" : "", "data-label": heads[n][0] };
      return n === 0 ? make("th", { scope: "row" }, cell) : make("td", attributes, cell);
    })),
  );
  const caption = make("caption", {}, title);
  return make("div", { class: "table" },
    make("table", { class: kind }, caption, make("thead", {}, make("tr", {}, ...head)), make("tbody", {}, ...body)));
}

export function state(name) {
  return make("span", { class: `mark ${/^[a-z]+$/.test(name) ? name : ""}` }, name);
}

export const link = (name) => make("a", { href: `#/node/${encodeURIComponent(name)}` }, name);

export const day = (date) => (date ? date.slice(0, 10) : "-");

export const clock = (date) => date.toTimeString().slice(0, 8);
