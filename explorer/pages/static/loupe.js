// A loupe over two pictures in step: both are enlarged around the same place, so that the eye can go to and fro between
// them. It stays on from pair to pair.

const MOST = 8;
const STEP = 0.12; // of what is seen, for an arrow key
const PLAIN = { zoom: 1, x: 0.5, y: 0.5 };

let at = { ...PLAIN };

const pair = () => document.querySelector(".pair");

function show() {
  const shown = pair();
  if (!shown) return;
  const isOn = at.zoom > 1;
  shown.classList.toggle("closer", isOn);
  document.querySelector("[data-loupe]")?.setAttribute("aria-pressed", String(isOn));
  for (const picture of shown.querySelectorAll(".frame img")) {
    picture.style.transformOrigin = `${100 * at.x}% ${100 * at.y}%`;
    picture.style.transform = isOn ? `scale(${at.zoom})` : "";
    if (isOn) sharpen(picture);
  }
}

// A larger picture takes the place of the one that was large enough for the frame, once it is there.
function sharpen(picture) {
  const address = picture.dataset.sharper;
  if (!address) return;
  delete picture.dataset.sharper;
  const larger = new Image();
  larger.referrerPolicy = "no-referrer";
  larger.onload = () => (picture.src = address);
  larger.src = address;
}

function look(zoom, x = at.x, y = at.y) {
  const within = (one) => Math.min(1, Math.max(0, one));
  at = { zoom: Math.min(MOST, Math.max(1, zoom)), x: within(x), y: within(y) };
  show();
}

function place(frame, event) {
  const box = frame.getBoundingClientRect();
  return [(event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height];
}

const MOVES = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

function press(event) {
  if (!pair() || event.ctrlKey || event.altKey || event.metaKey) return;
  if (event.target.closest?.("input, select, textarea")) return;
  const move = event.shiftKey && at.zoom > 1 && MOVES[event.key];
  if (move) look(at.zoom, at.x + (move[0] * STEP * 2) / at.zoom, at.y + (move[1] * STEP * 2) / at.zoom);
  else if (event.key === "Escape" && at.zoom > 1) look(1);
  else return;
  event.preventDefault();
  event.stopImmediatePropagation();
}

export function watchLoupe() {
  document.addEventListener("click", (event) => {
    const frame = event.target.closest?.(".pair .frame");
    if (frame) look(at.zoom > 1 ? 1 : 3, ...place(frame, event));
    const button = event.target.closest?.("[data-loupe]");
    if (button) look(at.zoom > 1 ? 1 : 3, 0.5, 0.5);
    const nearer = event.target.closest?.("[data-nearer]");
    if (nearer) look(at.zoom * Number(nearer.dataset.nearer));
  });
  document.addEventListener("pointermove", (event) => {
    const frame = at.zoom > 1 && event.target.closest?.(".pair .frame");
    if (frame) look(at.zoom, ...place(frame, event));
  });
  document.addEventListener(
    "wheel",
    (event) => {
      const frame = at.zoom > 1 && event.target.closest?.(".pair .frame");
      if (!frame) return;
      event.preventDefault();
      // The wheel brings nearer; it never switches the loupe off under the hand.
      look(Math.max(1.25, at.zoom * Math.exp(-event.deltaY * 0.002)), ...place(frame, event));
    },
    { passive: false },
  );
  // Before the keys of the page: with Shift, arrows move the loupe and decide nothing.
  document.addEventListener("keydown", press, true);
  document.addEventListener("swapped", show);
}
