// The dialog that shows the words two answers differ in.

import { difference, words } from "./difference.js";

const element = (id) => document.getElementById(id);

export function setUpCompare(answers) {
  const dialog = element("compare");
  const [left, right] = [element("compare-left"), element("compare-right")];
  const find = (select) => answers.find((answer) => answer.place === Number(select.value));

  const fill = (place, parts, side, tag) => {
    place.replaceChildren(
      ...parts
        .filter((part) => part.kind === "same" || part.kind === side)
        .map((part) => {
          if (part.kind === "same") return document.createTextNode(part.text);
          return Object.assign(document.createElement(tag), { textContent: part.text });
        }),
    );
  };
  const show = () => {
    const [a, b] = [find(left), find(right)];
    const parts = difference(a.text, b.text);
    fill(element("compare-a"), parts, "left", "del");
    fill(element("compare-b"), parts, "right", "ins");
    element("side-left").textContent = `Answer ${a.label}`;
    element("side-right").textContent = `Answer ${b.label}`;
    const count = (kind) => parts.filter((part) => part.kind === kind).reduce((sum, part) => sum + words(part.text), 0);
    element("compare-summary").textContent =
      a.text === b.text
        ? "The two are the same, letter by letter."
        : `${count("left")} words only in ${a.label}, ${count("right")} only in ${b.label}, ${count("same")} in both.`;
  };
  left.addEventListener("change", show);
  right.addEventListener("change", show);
  const button = element("compare-open");
  button.hidden = false;
  button.addEventListener("click", () => {
    show();
    dialog.showModal();
  });
}
