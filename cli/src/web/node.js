// The page of one node: what it is, its keys and services, why it is in its state, and its connections.

import { day, make, state, table, text } from "/dom.js";

// Keys that are shown; more are counted.
const KEYS_MAX = 500;

export class Node {
  constructor(api, place, title) {
    Object.assign(this, { api, place, title, name: null });
  }

  open(name) {
    this.name = name;
    this.seen = null;
    this.place.replaceChildren(name === null ? "" : "loading");
    if (name !== null) {
      text(this.title, name);
      this.title.focus({ preventScroll: true });
      scrollTo(0, 0);
      this.load();
    }
  }

  // The list has changed: the page is loaded again if its member has.
  refresh(members) {
    if (this.name === null) {
      return;
    }
    const member = members.find((member) => member.node === this.name);
    const seen = JSON.stringify([member?.state, member?.version, member?.generation, member?.addresses]);
    if (this.seen !== null && seen !== this.seen) {
      this.load();
    }
    this.seen = seen;
  }

  async load() {
    const name = this.name;
    const path = `/v1/members/${encodeURIComponent(name)}`;
    const part = async (path) => {
      try {
        return await this.api.get(path);
      } catch (error) {
        return { problem: error.message };
      }
    };
    const [members, why, keys, offers, rtt] = await Promise.all([
      part("/v1/members"), part(`${path}/why`), part(`${path}/keys`), part("/v1/services"), part(`${path}/rtt`),
    ]);
    if (name !== this.name) {
      return;
    }
    const member = Array.isArray(members) ? members.find((member) => member.node === name) : undefined;
    this.place.replaceChildren(
      ...this.facts(member, why, rtt), ...this.history(why), ...this.keys(keys), ...this.services(offers, name),
    );
  }

  facts(member, why, rtt) {
    const list = make("dl");
    const add = (name, value) => list.append(make("dt", {}, name), make("dd", {}, value));
    if (why.problem && !member) {
      return [make("p", {}, why.problem)];
    }
    add("State", state(member?.state ?? why.state));
    if (member) {
      add("Datacenter", member.datacenter);
      add("Phi", member.phi === null ? "-" : member.phi.toFixed(2));
      add("Addresses", member.addresses.join(", ") || "-");
      add("Generation and version", `${member.generation}, ${member.version}`);
      add("Keys", String(member.keys));
      add("Certificate until", day(member.not_after) + (member.expires_soon ? ", renew it soon" : ""));
      add("Tags", Object.entries(member.tags).map(([name, value]) => `${name}=${value}`).join(" ") || "-");
    }
    if (rtt.path) {
      add("Round trip", rtt.path.rtt_ms === null ? "-" : `${rtt.path.rtt_ms.toFixed(2)} ms, loss ${(100 * rtt.path.loss).toFixed(1)} %`);
    } else if (rtt.call_ms !== undefined && rtt.call_ms !== null) {
      add("Round trip", `${rtt.call_ms.toFixed(2)} ms by a call; this agent has no connection to it`);
    }
    for (const [name, what] of [["Connection closed", why.cut], ["Removed", why.removed], ["Revoked", why.revoked]]) {
      if (what) {
        add(name, `${what.at ?? ""} ${what.reason ?? what.by ?? what.cutoff ?? ""}`);
      }
    }
    return [list];
  }

  history(why) {
    if (!why.changes) {
      return [];
    }
    const rows = [...why.changes].reverse().map((change) => [
      change.at ?? "", change.from, state(change.to), change.sentence ?? "", evidence(change.evidence),
    ]);
    const heads = [["At", false], ["From", false], ["To", false], ["Why", false], ["What this agent had measured", false]];
    const dials = (why.dials ?? []).map((dial) => make("li", {}, dial.sentence));
    const failed = dials.length ? [make("h3", {}, "Attempts to reach it that failed"), make("ul", {}, ...dials)] : [];
    return [table("History", heads, rows), ...failed];
  }

  keys(keys) {
    if (!Array.isArray(keys)) {
      return [];
    }
    if (keys.length === 0) {
      return [make("p", { class: "quiet" }, "It publishes no keys.")];
    }
    const rows = keys.slice(0, KEYS_MAX).map((entry) => {
      const value = entry.value ?? `base64 ${entry.base64}`;
      return [entry.key, make("pre", {}, value.length > 2000 ? `${value.slice(0, 2000)}…` : value)];
    });
    const title = keys.length > KEYS_MAX ? `${keys.length} keys, the first ${KEYS_MAX}` : `${keys.length} keys`;
    return [table(title, [["Key", false], ["Value", false]], rows)];
  }

  services(offers, name) {
    const own = Array.isArray(offers) ? offers.filter((offer) => offer.node === name) : [];
    if (own.length === 0) {
      return [];
    }
    const rows = own.map((offer) => [String(offer.service), String(offer.version), offer.draining ? "drains" : "offered"]);
    return [table(`${own.length} services`, [["Service", false], ["Version", false], ["State", false]], rows)];
  }
}

function evidence(found) {
  if (!found) {
    return "not observed by this agent";
  }
  const words = Object.entries(found).filter(([, value]) => value !== null);
  return words.map(([name, value]) => `${name} ${typeof value === "object" ? JSON.stringify(value) : value}`).join(", ");
}
