// Moves about in what is larger than its frame: by mouse, wheel, fingers, keys and buttons, the same for the map and for a
// picture seen closer.
//
// A chart has `middle`, `scale`, `width` and `height`, and the methods `move(x, y)`, `scaleBy(factor, left, top)` and
// `whole()`; its x and y are in units of which `scale` says how many pixels one has.

const STEP = 0.15; // of the view, for an arrow key

export function watchPointers(canvas, chart, open = () => {}, point = () => {}) {
  const held = new Map();
  let moved = 0;

  canvas.addEventListener("pointerdown", (event) => {
    if (event.button !== 0) return;
    canvas.setPointerCapture(event.pointerId);
    held.set(event.pointerId, { left: event.offsetX, top: event.offsetY });
    if (held.size === 1) moved = 0;
    canvas.classList.add("held");
  });
  canvas.addEventListener("pointermove", (event) => {
    const before = held.get(event.pointerId);
    const now = { left: event.offsetX, top: event.offsetY };
    if (!before) {
      point(now.left, now.top, event.pointerType);
      return;
    }
    const others = [...held.entries()].filter(([id]) => id !== event.pointerId);
    if (others.length) {
      // Two fingers: what is between them stays between them.
      const other = others[0][1];
      const apart = (one) => Math.hypot(one.left - other.left, one.top - other.top) || 1;
      const between = { left: (now.left + other.left) / 2, top: (now.top + other.top) / 2 };
      chart.scaleBy(apart(now) / apart(before), between.left, between.top);
    }
    const share = others.length ? 2 : 1;
    const across = now.left - before.left;
    const down = now.top - before.top;
    moved += Math.abs(across) + Math.abs(down);
    chart.move(chart.middle.x - across / chart.scale / share, chart.middle.y - down / chart.scale / share);
    held.set(event.pointerId, now);
  });
  const release = (event) => {
    const was = held.delete(event.pointerId);
    if (!held.size) canvas.classList.remove("held");
    if (was && event.type === "pointerup" && !held.size && moved < 6) open(event.offsetX, event.offsetY, event);
  };
  canvas.addEventListener("pointerup", release);
  canvas.addEventListener("pointercancel", release);
  canvas.addEventListener("pointerleave", () => point(-1, -1, ""));
  canvas.addEventListener(
    "wheel",
    (event) => {
      event.preventDefault();
      const lines = event.deltaMode === 1 ? 16 : event.deltaMode === 2 ? 400 : 1;
      const delta = Math.max(-300, Math.min(300, event.deltaY * lines));
      chart.scaleBy(Math.exp(-delta * (event.ctrlKey ? 0.01 : 0.002)), event.offsetX, event.offsetY);
    },
    { passive: false },
  );
}

function moves(chart) {
  const by = (across, down) => () =>
    chart.move(
      chart.middle.x + (across * STEP * chart.width) / chart.scale,
      chart.middle.y + (down * STEP * chart.height) / chart.scale,
    );
  return {
    in: () => chart.scaleBy(1.5),
    out: () => chart.scaleBy(1 / 1.5),
    whole: () => chart.whole(),
    ArrowLeft: by(-1, 0),
    ArrowRight: by(1, 0),
    ArrowUp: by(0, -1),
    ArrowDown: by(0, 1),
  };
}

const KEYS = { "+": "in", "=": "in", "-": "out", _: "out", 0: "whole", Home: "whole" };

// Keys while the canvas has the focus, and the buttons (data-move) of the frame around it.
export function watchKeys(canvas, frame, chart, open = null) {
  const known = moves(chart);
  canvas.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const move = known[KEYS[event.key] || event.key];
    if (move) move();
    else if (event.key === "Enter" && open) open();
    else return;
    event.preventDefault();
    event.stopPropagation();
  });
  for (const button of frame.querySelectorAll("[data-move]")) {
    button.addEventListener("click", known[button.dataset.move]);
  }
}
