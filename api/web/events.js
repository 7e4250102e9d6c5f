// Server-sent events read with fetch, since EventSource can send no key. A follower connects again
// whenever its stream ends and goes on after the last event that it saw.

import { Problem, send } from "./api.js";

const SILENCE_MS_MAX = 35_000; // the service says something every 10 s
const HIDDEN_MS_MAX = 60_000; // browsers share few connections among all tabs of a site
const PAUSE_MS_FIRST = 300;
const PAUSE_MS_MAX = 15_000;

/** Splits a stream of text into events {id, event, data}; data is null where only an id was sent. */
export class EventParser {
  #rest = "";
  #lines = [];

  /** The events that are complete with `text`. */
  push(text) {
    const found = [];
    this.#rest += text;
    // A carriage return at the end may be half of a line's end.
    let match;
    while ((match = /\r\n|\n|\r(?!$)/.exec(this.#rest))) {
      const line = this.#rest.slice(0, match.index);
      this.#rest = this.#rest.slice(match.index + match[0].length);
      if (line !== "") this.#lines.push(line);
      else if (this.#lines.length) found.push(...this.#end());
    }
    return found;
  }

  #end() {
    const event = { id: null, event: "message", data: null };
    for (const line of this.#lines) {
      const colon = line.indexOf(":");
      if (colon === 0) continue;
      const field = colon < 0 ? line : line.slice(0, colon);
      const value = colon < 0 ? "" : line.slice(colon + 1).replace(/^ /, "");
      if (field === "data") event.data = event.data === null ? value : `${event.data}\n${value}`;
      else if (field === "id" && !value.includes("\0")) event.id = value;
      else if (field === "event") event.event = value;
    }
    this.#lines = [];
    return event.id === null && event.data === null ? [] : [event];
  }
}

/**
 * Follows an account until it is stopped.
 *
 * `on.state(state)` hears "connecting", "live", "waiting", "paused" or "ended"; `on.fresh()` that a stream
 * began anew, so that what came before is not in it; `on.order(order)` each decided order;
 * `on.refused(problem)` why a stream was not opened, and returns whether to go on trying.
 */
export class Follower {
  #accountId;
  #on;
  #lastId = null;
  #abort = null;
  #wake = null;
  #isStopped = false;
  #failures = 0;
  #hideTimer = 0;

  constructor(accountId, on) {
    this.#accountId = accountId;
    this.#on = on;
    addEventListener("online", this.retryNow);
    document.addEventListener("visibilitychange", this.#look);
    addEventListener("pageshow", this.#look);
    this.#run();
  }

  /** Connects again at once, if it is waiting to. */
  retryNow = () => this.#wake?.();

  /** Ends it for good. */
  stop() {
    this.#isStopped = true;
    removeEventListener("online", this.retryNow);
    document.removeEventListener("visibilitychange", this.#look);
    removeEventListener("pageshow", this.#look);
    clearTimeout(this.#hideTimer);
    this.#abort?.abort();
    this.#wake?.();
  }

  #look = () => {
    clearTimeout(this.#hideTimer);
    if (document.hidden) this.#hideTimer = setTimeout(() => this.#abort?.abort(), HIDDEN_MS_MAX);
    else this.retryNow();
  };

  async #run() {
    while (!this.#isStopped) {
      let least = 0;
      try {
        await this.#connect();
      } catch (error) {
        this.#failures += 1;
        if (this.#isStopped) return;
        if (error instanceof Problem) {
          if (error.status === 422) this.#lastId = null;
          if (!this.#on.refused(error)) {
            this.#on.state("ended");
            return;
          }
          least = error.retryAfterMs;
        }
      }
      await this.#pause(least);
    }
  }

  async #pause(least) {
    if (this.#isStopped) return;
    const isPaused = document.hidden && this.#abort?.signal.aborted;
    this.#on.state(isPaused ? "paused" : "waiting");
    const most = Math.min(PAUSE_MS_MAX, PAUSE_MS_FIRST * 2 ** Math.min(this.#failures, 10));
    const ms = Math.max(least, most * (0.5 + Math.random() / 2));
    await new Promise((resolve) => {
      this.#wake = resolve;
      if (!isPaused) setTimeout(resolve, ms);
    });
    this.#wake = null;
  }

  async #connect() {
    this.#on.state("connecting");
    const abort = (this.#abort = new AbortController());
    let watch = 0;
    const heard = () => {
      clearTimeout(watch);
      watch = setTimeout(() => abort.abort(), SILENCE_MS_MAX);
    };
    heard();
    try {
      const headers = { Accept: "text/event-stream" };
      const isFresh = this.#lastId === null;
      if (!isFresh) headers["Last-Event-ID"] = this.#lastId;
      const path = `/v1/accounts/${this.#accountId}/events`;
      const answer = await send(path, { headers, signal: abort.signal, cache: "no-store" });
      await this.#read(answer, isFresh, heard);
    } finally {
      clearTimeout(watch);
    }
  }

  async #read(answer, isFresh, heard) {
    const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
    const parser = new EventParser();
    let isFirst = true;
    for (;;) {
      const { value, done } = await reader.read();
      if (done || this.#isStopped) return;
      heard();
      for (const event of parser.push(value)) {
        if (isFirst) {
          // Only now is it known from where the stream tells all.
          isFirst = false;
          this.#failures = 0;
          this.#on.state("live");
          if (isFresh) this.#on.fresh();
        }
        if (event.event === "order" && event.data !== null) this.#on.order(JSON.parse(event.data));
        if (event.id !== null) this.#lastId = event.id;
      }
    }
  }
}
