// The last events, newest first.

import { clock, make } from "/dom.js";

const SHOWN_MAX = 200;
const KEYS = ["updated", "deleted"];

export class Events {
  constructor(list, pause, keysToo) {
    Object.assign(this, { list, pause, keysToo });
  }

  add(event) {
    const { event: kind, ...rest } = event;
    if (kind === "watching") {
      return this.note("connected to the stream of events");
    }
    if (this.pause.checked || (KEYS.includes(kind) && !this.keysToo.checked)) {
      return;
    }
    const peer = rest.peer ?? rest.datacenter ?? "";
    delete rest.peer;
    delete rest.datacenter;
    const words = rest.sentence ?? Object.entries(rest)
      .filter(([, value]) => value !== null)
      .map(([name, value]) => `${name} ${typeof value === "object" ? JSON.stringify(value) : value}`)
      .join(", ");
    this.note(`${kind.replaceAll("_", " ")} ${peer} ${words.slice(0, 500)}`);
  }

  note(words) {
    const now = new Date();
    const time = make("time", { datetime: now.toISOString() }, clock(now));
    this.list.prepend(make("li", {}, time, words));
    while (this.list.children.length > SHOWN_MAX) {
      this.list.lastElementChild.remove();
    }
  }
}
