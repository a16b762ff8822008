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
    if (event.target.closest?.("input, select, textarea, [contenteditable]")) return;
    const pressed = document.querySelector(`[data-key="${CSS.escape(event.key)}"]`);
    if (!pressed) return;
    event.preventDefault();
    if (pressed.matches("input")) pressed.focus();
    else pressed.click();
  });
}
