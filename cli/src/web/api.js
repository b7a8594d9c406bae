// Requests to the agent. The token is in the fragment of the address, which no server sees, and then in this tab alone.

export class Refused extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

// A part of an address that somebody may have written by hand.
export function decoded(part) {
  try {
    return decodeURIComponent(part);
  } catch {
    return part;
  }
}

const KEPT = "gossipmonger-token";
const TIMEOUT_MS = 30000;
const EVENT_CHARS_MAX = 8 << 20;

export class Api {
  constructor() {
    this.token = sessionStorage.getItem(KEPT);
  }

  keep(token) {
    this.token = token;
    sessionStorage.setItem(KEPT, token);
  }

  // Takes the token out of the address, so that it is neither seen nor kept in the history.
  takeToken() {
    const found = /^#token=(.+)$/.exec(location.hash);
    if (found) {
      this.keep(decoded(found[1]));
      history.replaceState(null, "", location.pathname);
    }
    return found !== null;
  }

  async ask(path, signal) {
    const headers = this.token ? { Authorization: `Bearer ${this.token}` } : {};
    const answer = await fetch(path, { headers, signal, cache: "no-store", redirect: "error" });
    if (!answer.ok) {
      const failure = await answer.json().catch(() => ({}));
      throw new Refused(answer.status, failure.error?.message ?? `status ${answer.status}`);
    }
    return answer;
  }

  async get(path) {
    return (await this.ask(path, AbortSignal.timeout(TIMEOUT_MS))).json();
  }

  // Passes on the events of a stream until it ends.
  async stream(path, signal, take) {
    const answer = await this.ask(path, signal);
    const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
    let begun = "";
    for (;;) {
      const { done, value } = await reader.read();
      if (done) {
        return;
      }
      begun += value;
      if (begun.length > EVENT_CHARS_MAX) {
        throw new Error("an event is too long");
      }
      const parts = begun.split("\n\n");
      begun = parts.pop();
      for (const part of parts) {
        if (part.startsWith("data: ")) {
          take(JSON.parse(part.slice(6)));
        }
      }
    }
  }
}
