// A picture as large as its frame, to move about in and to come nearer: from its IIIF service tile by tile, or else from
// its one file. Only what is in sight is asked for, at the size in which it is seen.

import { watchKeys, watchPointers } from "./moving.js";
import { say } from "./swap.js";

const MOST = 160; // tiles in sight at once
const KEPT = 200; // tiles in the page
const DEEPEST = 4; // pixels of the screen for one of the picture
const SETTLED = 120; // milliseconds without a move, after which tiles are asked for

class View {
  constructor(stage, first) {
    this.stage = stage;
    this.sheet = stage.querySelector(".sheet");
    this.source = null;
    this.tiles = new Map();
    this.full = { width: first.naturalWidth || first.width, height: first.naturalHeight || first.height };
    this.zoom = 1;
    this.middle = { x: 0.5, y: this.high / 2 };
    this.waiting = 0;
  }

  // The height of the picture, where its width is 1.
  get high() {
    return this.full.height / this.full.width;
  }

  get width() {
    return this.stage.clientWidth;
  }

  get height() {
    return this.stage.clientHeight;
  }

  // Pixels of the screen for the whole width of the picture.
  get scale() {
    return Math.min(this.width, this.height / this.high) * this.zoom;
  }

  // The picture is known by now: how large it is, and how it comes in tiles.
  know(source) {
    this.source = source.base ? source : null;
    if (source.width) this.full = { width: source.width, height: source.height };
    this.whole();
  }

  move(x, y) {
    this.middle.x = Math.min(1, Math.max(0, x));
    this.middle.y = Math.min(this.high, Math.max(0, y));
    this.draw();
  }

  scaleBy(factor, left = this.width / 2, top = this.height / 2) {
    const before = this.scale;
    const deepest = Math.max(2, (DEEPEST * this.full.width) / (before / this.zoom));
    this.zoom = Math.min(deepest, Math.max(1, this.zoom * factor));
    const away = 1 / before - 1 / this.scale;
    this.move(this.middle.x + (left - this.width / 2) * away, this.middle.y + (top - this.height / 2) * away);
  }

  whole() {
    this.zoom = 1;
    this.move(0.5, this.high / 2);
  }

  draw() {
    const { scale, sheet } = this;
    const left = this.width / 2 - this.middle.x * scale;
    const top = this.height / 2 - this.middle.y * scale;
    sheet.style.width = `${this.full.width}px`;
    sheet.style.height = `${this.full.height}px`;
    sheet.style.transform = `translate(${left}px, ${top}px) scale(${scale / this.full.width})`;
    clearTimeout(this.waiting);
    if (this.source) this.waiting = setTimeout(() => this.ask(), SETTLED);
  }

  // How many pixels of the picture one of a tile stands for: as one of the screen does, or more where those tiles would be
  // too many. None at all while even the coarsest are: the file at hand does until somebody comes nearer.
  level() {
    const { width, tile_width, tile_height, factors } = this.source;
    const seen = (width / this.scale) / Math.min(2, window.devicePixelRatio || 1);
    const finest = Math.max(factors[0], ...factors.filter((each) => each <= seen));
    const across = Math.min(1, this.width / this.scale) * width;
    const down = Math.min(this.high, this.height / this.scale) * width;
    const count = (each) => Math.ceil(across / tile_width / each) * Math.ceil(down / tile_height / each);
    return factors.find((each) => each >= finest && count(each) <= MOST);
  }

  // The tiles in sight.
  ask() {
    const { width, height, tile_width, tile_height } = this.source;
    const factor = this.level();
    if (!factor) return;
    const [across, down] = [tile_width * factor, tile_height * factor];
    const half = { x: this.width / 2 / this.scale, y: this.height / 2 / this.scale };
    const from = (middle, by, step) => Math.max(0, Math.floor(((middle - by) * width) / step));
    for (let y = from(this.middle.y, half.y, down); y * down < Math.min(height, (this.middle.y + half.y) * width); y++) {
      for (let x = from(this.middle.x, half.x, across); x * across < Math.min(width, (this.middle.x + half.x) * width); x++) {
        this.put(factor, x * across, y * down, across, down);
      }
    }
    for (const [name, tile] of this.tiles) {
      if (this.tiles.size <= KEPT) break;
      tile.remove();
      this.tiles.delete(name);
    }
  }

  put(factor, left, top, across, down) {
    const { base, width, height, both, quality } = this.source;
    const [wide, high] = [Math.min(across, width - left), Math.min(down, height - top)];
    const name = `${factor} ${left} ${top}`;
    const known = this.tiles.get(name);
    if (known) {
      // The latest are kept longest.
      this.tiles.delete(name);
      this.tiles.set(name, known);
      return;
    }
    const tile = new Image();
    tile.alt = "";
    tile.draggable = false;
    tile.referrerPolicy = "no-referrer";
    Object.assign(tile.style, { left: `${left}px`, top: `${top}px`, width: `${wide}px`, height: `${high}px` });
    tile.style.zIndex = `${1000 - Math.round(100 * Math.log2(factor))}`;
    tile.onerror = () => tile.remove();
    const region = wide === width && high === height ? "full" : `${left},${top},${wide},${high}`;
    const size = `${Math.ceil(wide / factor)},${both ? Math.ceil(high / factor) : ""}`;
    tile.src = `${base}/${region}/${size}/0/${quality}.jpg`;
    this.tiles.set(name, tile);
    this.sheet.append(tile);
  }
}

async function open(dialog, picture) {
  dialog.showModal();
  const stage = dialog.querySelector(".stage");
  stage.focus();
  if (dialog.view) return dialog.view.whole();
  const first = dialog.querySelector(".sheet img");
  first.src = picture.currentSrc || picture.src;
  const view = (dialog.view = new View(stage, picture));
  watchPointers(stage, view);
  watchKeys(stage, dialog, view);
  stage.addEventListener("dblclick", (event) => view.scaleBy(2, event.offsetX, event.offsetY));
  new ResizeObserver(() => view.draw()).observe(stage);
  view.draw();
  try {
    const answer = await fetch(dialog.dataset.source, { headers: { Accept: "application/json" } });
    if (answer.ok) view.know(await answer.json());
  } catch {
    say("Nothing larger can be had now.");
  }
}

export function watchCloser() {
  document.addEventListener("click", (event) => {
    const link = event.target.closest?.("[data-closer]");
    if (!link || event.ctrlKey || event.metaKey || event.shiftKey) return;
    const dialog = document.getElementById("closer");
    if (!dialog?.showModal) return;
    event.preventDefault();
    open(dialog, document.querySelector(".large img"));
  });
}
