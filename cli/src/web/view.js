// The web view: what this agent thinks of its cluster, and what happens. Nothing but this agent is asked.

import { Api, Refused, decoded } from "/api.js";
import { byId, text } from "/dom.js";
import { Events } from "/events.js";
import { Links } from "/links.js";
import { Members } from "/members.js";
import { Node } from "/node.js";
import { Services } from "/services.js";
import { theme } from "/theme.js";

// The list is asked for this often, and soon after an event, but never more often than the pause allows. One request is
// under way at a time.
const REFRESH_MS = 5000;
const SOON_MS = 300;
const PAUSE_MS = 1000;
// Questions that this agent passes on to all members are asked this often, and in a large cluster seldom.
const FEW = 100;
const ASKED_MS = 30000;
const MANY_ASKED_MS = 300000;
const RETRY_MS = [500, 1000, 2000, 5000];

const api = new Api();
const members = new Members(byId("members"));
const links = new Links(byId("map"), byId("matrix"), byId("map-note"));
const services = new Services(byId("services"));
const node = new Node(api, byId("node"), byId("node-title"));
const events = new Events(byId("events"), byId("pause"), byId("keys-too"));

let timer = null;
let due = Infinity;
let refreshedAt = -Infinity;
let following = null;
let busy = false;
let again = false;
let askedAt = -Infinity;
let behind = new Map();

function status(words, ok) {
  text(byId("status"), words);
  byId("status").dataset.ok = String(ok);
}

// Events never put off what is due: under a flood of them the list goes on.
function soon(ms) {
  const at = performance.now() + ms;
  if (at < due) {
    due = at;
    clearTimeout(timer);
    timer = setTimeout(refresh, ms);
  }
}

async function refresh() {
  due = Infinity;
  if (busy) {
    again = true;
    return;
  }
  busy = true;
  again = false;
  refreshedAt = performance.now();
  try {
    const [list, info] = await Promise.all([api.get("/v1/members"), api.get("/v1/info")]);
    const begun = performance.now();
    members.show(list, behind);
    head(info);
    performance.clearMeasures("update");
    performance.measure("update", { start: begun, end: performance.now() });
    services.show(await api.get("/v1/services"));
    node.refresh(list);
    status("connected", true);
    links.states(list);
    const interval = list.length > FEW ? MANY_ASKED_MS : ASKED_MS;
    if (performance.now() - askedAt > interval) {
      askedAt = performance.now();
      askAll(list);
    }
  } catch (error) {
    if (error instanceof Refused && error.status === 401) {
      return ask(error.message);
    }
    status(`no answer: ${error.message}`, false);
  } finally {
    busy = false;
  }
  soon(again ? PAUSE_MS : REFRESH_MS);
}

// The answers of all members arrive when they do; the page goes on meanwhile.
async function askAll(list) {
  try {
    const rows = await api.get("/v1/behind");
    behind = new Map(rows.filter((row) => row.behind !== null).map((row) => [row.node, row.behind]));
    links.show(await api.get("/v1/reachability"), list);
  } catch (error) {
    links.failed(error.message);
  }
}

function head(info) {
  text(byId("cluster"), info.cluster);
  document.title = `${info.cluster} at ${info.node} · gossipmonger`;
  text(byId("agent"), `seen by ${info.node} in ${info.datacenter}, version ${info.program}`);
  const words = info.certificate_problem ?? info.certificate_warning;
  byId("warning").hidden = !words;
  text(byId("warning"), words ?? "");
}

// One stream at a time: a page that is opened again with another token leaves the old one.
async function follow() {
  following?.abort();
  const own = new AbortController();
  following = own;
  for (let failed = 0; ; failed += 1) {
    try {
      await api.stream("/v1/events", own.signal, (event) => {
        failed = 0;
        events.add(event);
        soon(Math.max(SOON_MS, refreshedAt + PAUSE_MS - performance.now()));
      });
    } catch (error) {
      if (own.signal.aborted) {
        return;
      }
      if (error instanceof Refused && [401, 403].includes(error.status)) {
        events.note(`no events: ${error.message}`);
        return;
      }
    }
    status("the stream of events broke; connecting again", false);
    await new Promise((done) => setTimeout(done, RETRY_MS[Math.min(failed, RETRY_MS.length - 1)]));
  }
}

function ask(words) {
  byId("main").hidden = true;
  byId("login").hidden = false;
  text(byId("login-error"), api.token ? words : "");
  text(byId("status"), "not signed in");
  byId("token").focus();
}

function route() {
  const name = location.hash.startsWith("#/node/") ? decoded(location.hash.slice(7)) : null;
  byId("cluster-view").hidden = name !== null;
  byId("node-view").hidden = name === null;
  node.open(name);
}

async function open() {
  try {
    await api.get("/v1/info");
  } catch (error) {
    if (error instanceof Refused) {
      return ask(error.message);
    }
  }
  byId("login").hidden = true;
  byId("main").hidden = false;
  route();
  soon(0);
  follow();
}

byId("login").addEventListener("submit", (event) => {
  event.preventDefault();
  api.keep(byId("token").value.trim());
  byId("token").value = "";
  open();
});
addEventListener("hashchange", () => (api.takeToken() ? open() : route()));
theme(byId("theme"));
members.filter(byId("find"), byId("state"), byId("datacenter"), byId("shown"), byId("counts"));
api.takeToken();
open();
