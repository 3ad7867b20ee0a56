// Sending the form without leaving the page: one request at a time, retried with the same idempotency key, so that an
// answer that was lost on its way is not stored twice.

const WAITS = [800, 2500, 6000]; // milliseconds before the second, third and fourth try
const PATIENCE = 20_000; // milliseconds until a request counts as lost
const KEPT = "Your ranking is kept on this device; submit it again in a moment.";

const pause = (milliseconds) => new Promise((resolve) => setTimeout(resolve, milliseconds));

const freshKey = () =>
  Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");

export class Sender {
  #unsure = null; // what was sent without an answer: it may be stored
  #busy = false;

  /** @param {HTMLFormElement} form @param {(sentence: string) => void} say what is going on */
  constructor(form, say) {
    this.form = form;
    this.say = say;
  }

  /** Sends the values. Returns {ok, error}; null if a request is on its way already. */
  async send(values) {
    if (this.#busy) return null;
    this.#busy = true;
    const buttons = this.form.querySelectorAll("button[type=submit]");
    for (const button of buttons) button.disabled = true;
    this.form.setAttribute("aria-busy", "true");
    const answer = await this.#attempts(values);
    if (answer.ok) return answer; // nothing more is sent until the next page is here
    this.#busy = false;
    for (const button of buttons) button.disabled = false;
    this.form.removeAttribute("aria-busy");
    return answer;
  }

  async #attempts(values) {
    const content = new URLSearchParams(values);
    content.delete("seconds"); // the clock alone makes no new ranking
    content.delete("key");
    // The first one may have arrived. Its key would return it and drop what was changed since: a new key corrects it.
    if (this.#unsure !== null && this.#unsure !== content.toString()) this.form.elements.key.value = freshKey();
    values.set("key", this.form.elements.key.value);
    this.#unsure = content.toString();
    for (let tries = 0; ; tries += 1) {
      const answer = await this.#once(values);
      if (!answer.again) {
        this.#unsure = null;
        return answer;
      }
      if (tries === WAITS.length) return answer;
      this.say("No answer from the server. Trying again…");
      await pause(WAITS[tries]);
    }
  }

  async #once(values) {
    try {
      // Not form.action: that is the button of this name.
      const response = await fetch(this.form.getAttribute("action"), {
        method: "POST",
        body: values,
        headers: { Accept: "application/json" },
        credentials: "same-origin",
        signal: AbortSignal.timeout(PATIENCE),
      });
      const again = response.status >= 500;
      // What is stored under this key says something else: what is sent next corrects it.
      if (response.status === 409) this.form.elements.key.value = freshKey();
      const type = response.headers.get("content-type") ?? "";
      if (type.startsWith("application/json")) return { again, ...(await response.json()) };
      return { again, ok: false, error: `The server refused it (${response.status}). Open your link again. ${KEPT}` };
    } catch {
      // No connection, or no answer in time.
      return { again: true, ok: false, error: `The server cannot be reached. ${KEPT}` };
    }
  }
}
