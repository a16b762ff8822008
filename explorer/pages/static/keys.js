// Keys that press what they are written on (data-key). They can be switched off, and never take keys from a field.

const REMEMBERED = "lookalike-shortcuts";

function isOff() {
  try {
    return localStorage.getItem(REMEMBERED) === "off";
  } catch {
    return false;
  }
}

function show() {
  const box = document.getElementById("shortcuts");
  if (box) box.checked = !isOff();
}

// What a key presses: of what has the focus where that has one (data-keys), else the first of the page.
function find(key) {
  const named = `[data-key="${CSS.escape(key)}"]`;
  const focused = document.activeElement?.closest("[data-keys]");
  if (focused && (key === "ArrowRight" || key === "ArrowLeft")) return null;
  return focused?.querySelector(named) || document.querySelector(named);
}

// Arrows go from image to image where each has keys of its own.
function step(event) {
  const here = document.activeElement?.closest("[data-keys]");
  const next = { ArrowRight: "nextElementSibling", ArrowLeft: "previousElementSibling" }[event.key];
  const there = next && here?.[next]?.querySelector("a");
  there?.focus();
  return Boolean(there);
}

export function watchKeys() {
  show();
  document.addEventListener("swapped", show);
  document.addEventListener("change", (event) => {
    if (event.target.id !== "shortcuts") return;
    try {
      localStorage.setItem(REMEMBERED, event.target.checked ? "on" : "off");
    } catch {
      // A browser that keeps nothing forgets this as well.
    }
  });
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.altKey || event.metaKey || event.repeat || isOff()) return;
    // With Shift, arrows are for the loupe; and a dialog has keys of its own.
    if ((event.shiftKey && event.key.length > 1) || document.querySelector("dialog[open]")) return;
    if (event.target.closest?.("input:not([type=checkbox]), select, textarea, [contenteditable]")) return;
    if (step(event)) return event.preventDefault();
    const pressed = find(event.key);
    if (!pressed) return;
    event.preventDefault();
    if (pressed.matches("input")) pressed.focus();
    else pressed.click();
  });
}
