// The board: a row for each rank, a chip for each answer, and dragging with mouse, pen or finger. It shows ranks and
// reports moves; the radio buttons of the form hold them.

import { insertBefore } from "./order.js";

const DRAG_STARTS = 5; // pixels; less is a click
const EDGE = 0.28; // share of a taken row at its top and bottom that means "between the rows"
const SCROLL_ZONE = 56; // pixels from the window's edge where dragging scrolls
const calm = matchMedia("(prefers-reduced-motion: reduce)");

const make = (name, className, text = "") => Object.assign(document.createElement(name), { className, textContent: text });

export class Board {
  /**
   * @param {HTMLElement} list where the rows go
   * @param {{label: string, excerpt: string, handle: HTMLElement}[]} answers in the order shown
   * @param {{move: (index: number, ranks: number[]) => void, open: (index: number) => void}} actions
   */
  constructor(list, answers, actions) {
    this.actions = actions;
    this.ranks = answers.map(() => 0);
    this.rows = [...answers.map((_, at) => this.#row(at + 1, answers.length)), this.#row(0, answers.length)];
    list.classList.toggle("many", answers.length > 6);
    list.append(...this.rows.map((row) => row.element));
    this.chips = answers.map((answer, index) => this.#chip(answer, index));
    for (const [index, answer] of answers.entries()) this.#draggable(answer.handle, index);
    this.show(this.ranks);
  }

  #row(rank, count) {
    const element = make("li", rank ? "row" : "row unranked");
    element.dataset.rank = rank;
    const name = make("span", "row-name", rank ? `${rank}` : "Unranked");
    if (rank === 1) name.append(make("small", "", "best"));
    if (rank === count && count > 1) name.append(make("small", "", "last"));
    const chips = make("div", "chips");
    element.append(name, chips);
    return { element, chips };
  }

  #chip(answer, index) {
    const chip = make("button", "chip");
    chip.type = "button";
    chip.tabIndex = -1; // the answers themselves are the way of the keyboard; this only saves tab stops
    chip.dataset.label = answer.label;
    const excerpt = make("span", "excerpt", answer.excerpt);
    excerpt.dir = "auto";
    chip.append(make("span", "letter", answer.label), excerpt);
    chip.addEventListener("click", () => this.actions.open(index));
    this.#draggable(chip, index);
    return chip;
  }

  show(ranks) {
    const before = this.chips.map((chip) => chip.getBoundingClientRect());
    this.ranks = ranks;
    for (const [index, chip] of this.chips.entries()) {
      const row = this.rows[(ranks[index] || this.rows.length) - 1].chips;
      if (chip.parentElement !== row) row.append(chip);
    }
    for (const { chips } of this.rows) {
      const sorted = [...chips.children].sort((a, b) => (a.dataset.label < b.dataset.label ? -1 : 1));
      if (sorted.some((chip, at) => chip !== chips.children[at])) chips.append(...sorted);
      chips.parentElement.classList.toggle("taken", sorted.length > 0);
    }
    if (calm.matches) return;
    for (const [index, chip] of this.chips.entries()) {
      const now = chip.getBoundingClientRect();
      const [x, y] = [before[index].left - now.left, before[index].top - now.top];
      if (before[index].width && (x || y))
        chip.animate([{ transform: `translate(${x}px, ${y}px)` }, { transform: "none" }], { duration: 160, easing: "ease-out" });
    }
  }

  // ---- dragging ------------------------------------------------------------------------------------------------------

  #draggable(handle, index) {
    let drag = null;
    handle.classList.add("draggable");
    handle.addEventListener("pointerdown", (event) => {
      if (event.button !== 0 || !event.isPrimary) return;
      drag = { id: event.pointerId, x: event.clientX, y: event.clientY, ghost: null };
      handle.setPointerCapture(event.pointerId);
    });
    handle.addEventListener("pointermove", (event) => {
      if (event.pointerId !== drag?.id) return;
      if (!drag.ghost && Math.hypot(event.clientX - drag.x, event.clientY - drag.y) < DRAG_STARTS) return;
      drag.ghost ??= this.#lift(index, drag);
      [drag.x, drag.y] = [event.clientX, event.clientY];
      this.#hover(drag, index);
    });
    const end = (dropped) => {
      if (!drag) return;
      const { ghost, target, frame } = drag;
      drag = null;
      if (!ghost) return;
      cancelAnimationFrame(frame);
      ghost.remove();
      this.chips[index].classList.remove("lifted");
      document.documentElement.classList.remove("dragging");
      this.#mark(null);
      // The click that follows a drag is no click.
      const swallow = (click) => click.stopPropagation();
      addEventListener("click", swallow, { capture: true, once: true });
      setTimeout(() => removeEventListener("click", swallow, { capture: true }));
      if (dropped && target) this.actions.move(index, this.#ranksAt(target, index));
    };
    handle.addEventListener("pointerup", () => end(true));
    handle.addEventListener("pointercancel", () => end(false));
    handle.addEventListener("lostpointercapture", () => end(false));
    addEventListener("keydown", (event) => {
      if (event.key !== "Escape" || !drag) return;
      event.preventDefault();
      end(false);
    });
  }

  #lift(index, drag) {
    const ghost = make("div", "ghost letter", this.chips[index].dataset.label);
    ghost.setAttribute("aria-hidden", "true");
    document.body.append(ghost);
    this.chips[index].classList.add("lifted");
    document.documentElement.classList.add("dragging");
    const scroll = () => {
      const speed = drag.y < SCROLL_ZONE ? drag.y - SCROLL_ZONE : Math.max(0, drag.y - innerHeight + SCROLL_ZONE);
      if (speed) {
        scrollBy({ top: speed / 3, behavior: "instant" });
        this.#hover(drag, index);
      }
      drag.frame = requestAnimationFrame(scroll);
    };
    drag.frame = requestAnimationFrame(scroll);
    return ghost;
  }

  #hover(drag, index) {
    drag.ghost.style.transform = `translate(${drag.x}px, ${drag.y}px)`;
    const row = document.elementFromPoint(drag.x, drag.y)?.closest(".row");
    drag.target = row ? { rank: Number(row.dataset.rank), side: this.#side(row, drag.y, index) } : null;
    this.#mark(row, drag.target?.side);
  }

  /** Whether a point is between rows: only a row that others hold has an edge to drop on. */
  #side(row, y, index) {
    const rank = Number(row.dataset.rank);
    if (!rank || !this.ranks.some((other, at) => at !== index && other === rank)) return "";
    const box = row.getBoundingClientRect();
    const share = (y - box.top) / box.height;
    if (share < EDGE) return "above";
    return share > 1 - EDGE ? "below" : "";
  }

  #ranksAt({ rank, side }, index) {
    if (!side) return this.ranks.with(index, rank);
    return insertBefore(this.ranks, index, side === "above" ? rank : rank + 1);
  }

  #mark(row, side = "") {
    for (const { element } of this.rows) {
      element.classList.toggle("over", element === row && !side);
      element.classList.toggle("over-above", element === row && side === "above");
      element.classList.toggle("over-below", element === row && side === "below");
    }
  }
}
