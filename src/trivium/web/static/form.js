// The form as data: ranks by radio button, the rest by name. It is the only place the page's choices are kept.

export class RankingForm {
  /** @param {HTMLFormElement} form */
  constructor(form) {
    this.form = form;
    this.answers = [...form.querySelectorAll(".answer")].map((card) => ({
      card,
      place: Number(card.dataset.place),
      label: card.dataset.label,
      text: card.querySelector("div.text")?.textContent ?? "",
      radios: [...card.querySelectorAll("input[type=radio]")],
      state: card.querySelector(".state"),
      handle: card.querySelector(".letter"),
    }));
    this.labels = this.answers.map((answer) => answer.label);
  }

  get ranks() {
    return this.answers.map(({ radios }) => Number(radios.find((radio) => radio.checked)?.value || 0));
  }

  set ranks(ranks) {
    for (const [index, { radios, card }] of this.answers.entries()) {
      const radio = radios.find((one) => one.value === (ranks[index] ? String(ranks[index]) : ""));
      if (!radio || radio.checked) continue;
      radio.checked = true;
      // The chosen button is the group's one tab stop, so the focus goes with it.
      if (card.contains(document.activeElement) && document.activeElement.type === "radio") radio.focus({ preventScroll: true });
    }
  }

  /** What undo goes back over; text fields have the browser's own undo. */
  get choices() {
    const { all_bad: allBad, strength } = this.form.elements;
    return { ranks: this.ranks, allBad: allBad.checked, strength: strength.value };
  }

  set choices({ ranks, allBad, strength }) {
    this.ranks = ranks;
    this.form.elements.all_bad.checked = allBad;
    this.form.elements.strength.value = strength;
  }

  get texts() {
    const names = ["note", "edited", "edited_from", "flag", "reason"];
    return Object.fromEntries(names.map((name) => [name, this.form.elements[name].value]));
  }

  set texts(texts) {
    for (const [name, text] of Object.entries(texts)) {
      const field = this.form.elements[name];
      if (!field) continue;
      field.value = text;
      const fold = field.closest("details");
      if (fold && text) fold.open = true;
    }
  }

  focus(index) {
    const { card, radios } = this.answers[index];
    (radios.find((radio) => radio.checked) ?? radios[0]).focus({ preventScroll: true });
    const box = card.getBoundingClientRect();
    if (box.top < 64 || box.top > innerHeight - 160) card.scrollIntoView({ block: "start" });
  }

  /** What is missing before it can be sent: {sentence, link, focus}, or null. */
  problem(action) {
    const { reason, edited, all_bad: allBad } = this.form.elements;
    if (action === "skip") {
      if (reason.value.trim()) return null;
      return { sentence: "Say in a few words why it cannot be ranked.", link: "Go to the reason", id: "reason", focus: () => reason.focus() };
    }
    const ranks = this.ranks;
    const isNew = edited.value.trim() && !this.answers.some((answer) => answer.text === edited.value);
    if (ranks.filter(Boolean).length >= 2 || allBad.checked || isNew) return null;
    const index = Math.max(0, ranks.indexOf(0));
    return {
      sentence: "Rank at least two answers, mark all as bad, write a better answer, or skip the task.",
      link: `Go to answer ${this.labels[index]}`,
      id: this.answers[index].card.id,
      focus: () => this.focus(index),
    };
  }
}
