// The ranking page's script: joins the form, the board, keys, undo, the draft and sending. Without it the form works
// as it stands.

import { Board } from "./board.js";
import { setUpCompare } from "./compare.js";
import { Draft } from "./draft.js";
import { RankingForm } from "./form.js";
import { setUpHelp } from "./help.js";
import { History } from "./history.js";
import { better, describe, worse } from "./order.js";
import { Sender } from "./submit.js";

const element = (id) => document.getElementById(id);
const form = element("ranking");
const page = new RankingForm(form);
const { answers, labels } = page;
const draft = new Draft(form.dataset.assignment);
const help = setUpHelp();
setUpCompare(answers);

// ---- what is shown and said ------------------------------------------------------------------------------------------

const say = (sentence) => (element("announce").textContent = sentence);
const tell = (sentence) => (element("outcome").textContent = sentence);

const board = new Board(
  element("rows"),
  answers.map(({ label, text, handle }) => ({ label, handle, excerpt: text.trim().slice(0, 80) || "empty" })),
  { move: (index, ranks) => move(index, ranks), open: (index) => page.focus(index) },
);
const history = new History(page.choices);

function draw() {
  const ranks = page.ranks;
  for (const [index, { card, state }] of answers.entries()) {
    state.textContent = describe(ranks, labels, index);
    card.classList.toggle("ranked", ranks[index] > 0);
  }
  board.show(ranks);
  element("undo").disabled = !history.canUndo;
  element("redo").disabled = !history.canRedo;
}

// ---- changes ---------------------------------------------------------------------------------------------------------

const keep = () => draft.write({ choices: page.choices, texts: page.texts, seconds: clock.seconds });

function settle() {
  history.record(page.choices);
  draw();
  keep();
}

function move(index, ranks) {
  const before = page.ranks;
  page.ranks = ranks;
  settle();
  const others = ranks.some((rank, at) => at !== index && rank !== before[at]);
  say(`Answer ${labels[index]}: ${describe(ranks, labels, index)}${others ? ". Other ranks moved too" : ""}`);
}

function travel(choices, word) {
  if (!choices) return say(`Nothing to ${word}`);
  const before = page.ranks;
  page.choices = choices;
  draw();
  keep();
  const changed = labels.flatMap((label, index) =>
    before[index] === choices.ranks[index] ? [] : [`Answer ${label}: ${describe(choices.ranks, labels, index)}`],
  );
  say(`${word === "undo" ? "Undone" : "Done again"}. ${changed.join(". ")}`);
}

const undo = () => travel(history.undo(), "undo");
const redo = () => travel(history.redo(), "redo");
element("undo").addEventListener("click", undo);
element("redo").addEventListener("click", redo);

form.addEventListener("change", ({ target }) => {
  const index = answers.findIndex(({ radios }) => radios.includes(target));
  if (index >= 0) return move(index, page.ranks);
  if (target.name === "all_bad") say(target.checked ? "Marked: all are bad" : "Not all are bad");
  if (target.name === "edited_from") fillBetterAnswer();
  return settle();
});
form.addEventListener("input", ({ target }) => {
  if (target.type !== "radio" && target.type !== "checkbox") keep();
});

let filled = "";
function fillBetterAnswer() {
  const { edited, edited_from: from } = form.elements;
  if (edited.value && edited.value !== filled) return; // somebody's own words stay
  filled = answers.find(({ place }) => String(place) === from.value)?.text ?? "";
  edited.value = filled;
}

// ---- keys ------------------------------------------------------------------------------------------------------------

const isWriting = (target) => target.matches("textarea, select, input:not([type=radio], [type=checkbox])");

/** The ranks after a key on an answer, or null if the key means nothing here. */
function ranksAfter(key, index) {
  const ranks = page.ranks;
  if (key === "ArrowUp") return better(ranks, index);
  if (key === "ArrowDown") return worse(ranks, index);
  if (key === "0" || key === "Backspace" || key === "Delete") return ranks.with(index, 0);
  if (/^[1-9]$/.test(key)) return Number(key) <= answers.length ? ranks.with(index, Number(key)) : ranks;
  return null;
}

for (const [index, { card }] of answers.entries()) {
  card.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || isWriting(event.target)) return;
    if (event.key === "Enter" && event.target.type === "radio") return event.preventDefault(); // no sending by accident
    const ranks = ranksAfter(event.key, index);
    if (!ranks) return;
    event.preventDefault();
    if (Number(event.key) > answers.length) return say(`Ranks go from 1 to ${answers.length}`);
    move(index, ranks);
  });
}

document.addEventListener("keydown", (event) => {
  if (document.querySelector("dialog[open]")) return;
  const command = event.ctrlKey || event.metaKey;
  const key = event.key.toLowerCase();
  if (command && key === "enter") {
    event.preventDefault();
    form.requestSubmit(element("submit"));
  } else if (command && !isWriting(event.target) && (key === "z" || key === "y")) {
    event.preventDefault();
    if (key === "y" || event.shiftKey) redo();
    else undo();
  } else if (!command && !event.altKey && !isWriting(event.target) && help.singleKeys()) {
    const index = labels.indexOf(event.key.toUpperCase());
    if (event.key !== "?" && index < 0) return;
    event.preventDefault();
    if (event.key === "?") help.open();
    else page.focus(index);
  }
});

// Enter in the reason means the button beside it, not the form's first one.
element("reason").addEventListener("keydown", (event) => {
  if (event.key !== "Enter") return;
  event.preventDefault();
  form.requestSubmit(element("skip"));
});

// ---- time ------------------------------------------------------------------------------------------------------------

// Seconds the page was in view: a tab left open over lunch does not count.
const clock = {
  past: 0,
  since: document.hidden ? null : performance.now(),
  get seconds() {
    return Math.round(this.past + (this.since === null ? 0 : (performance.now() - this.since) / 1000));
  },
  turn() {
    this.past = this.seconds;
    this.since = document.hidden ? null : performance.now();
  },
};
document.addEventListener("visibilitychange", () => clock.turn());

// ---- sending ---------------------------------------------------------------------------------------------------------

const sender = new Sender(form, tell);

function showProblem({ sentence, link, id, focus }) {
  element("problem-text").textContent = sentence.charAt(0).toUpperCase() + sentence.slice(1);
  const anchor = element("problem-link");
  anchor.hidden = !focus;
  if (focus) {
    anchor.textContent = link;
    anchor.href = `#${id}`;
    anchor.onclick = (event) => {
      event.preventDefault();
      focus();
    };
  }
  element("reason").setAttribute("aria-invalid", String(id === "reason"));
  element("problem").hidden = false;
  element("problem").scrollIntoView({ block: "nearest" });
  element("problem").focus();
}

form.addEventListener("submit", async (event) => {
  event.preventDefault();
  const action = event.submitter?.value ?? "submit";
  const problem = page.problem(action);
  if (problem) return showProblem(problem);
  element("problem").hidden = true;
  element("reason").removeAttribute("aria-invalid");
  form.elements.seconds.value = clock.seconds;
  const values = new URLSearchParams(new FormData(form));
  values.set("action", action);
  if (action === "skip") for (const { place } of answers) values.set(`tier-${place}`, ""); // skipped: nothing is ranked
  keep();
  tell("Sending…");
  const answer = await sender.send(values);
  if (!answer) return undefined;
  tell("");
  if (!answer.ok) return showProblem({ sentence: answer.error });
  draft.remove();
  try {
    sessionStorage.setItem("trivium:stored", action === "skip" ? "The last task was skipped." : "Your last ranking is stored.");
  } catch {
    // the next page does not say it then
  }
  return location.assign("/rank");
});

// ---- beginning -------------------------------------------------------------------------------------------------------

const kept = draft.read();
if (kept?.choices?.ranks?.length === answers.length) {
  page.choices = kept.choices;
  page.texts = kept.texts ?? {};
  clock.past = kept.seconds ?? 0;
  history.record(page.choices);
}
element("board").hidden = false;
draw();
try {
  const news = sessionStorage.getItem("trivium:stored");
  sessionStorage.removeItem("trivium:stored");
  tell(kept ? "Your unfinished ranking is back." : (news ?? ""));
} catch {
  // nothing to say
}
document.documentElement.classList.add("scripted");
