// The list of keys, and the switch for keys that are single characters (speech input and tremor trigger them).

const NAME = "trivium:single-keys";

export function setUpHelp() {
  const dialog = document.getElementById("help");
  const button = document.getElementById("help-open");
  const box = document.getElementById("single-keys");
  try {
    box.checked = localStorage.getItem(NAME) !== "off";
  } catch {
    // on, then
  }
  box.addEventListener("change", () => {
    try {
      localStorage.setItem(NAME, box.checked ? "on" : "off");
    } catch {
      // for this page only, then
    }
  });
  button.hidden = false;
  button.addEventListener("click", () => dialog.showModal());
  return { open: () => dialog.showModal(), singleKeys: () => box.checked };
}
