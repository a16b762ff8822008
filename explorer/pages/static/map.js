// The map: tens of thousands of images as small squares of their colour, as pictures when one comes near.
//
// All points are written into one picture, pixel by pixel, whenever the view moves: a canvas that is asked for every
// square by itself takes several times as long. What is near is asked for a few at a time.

import { watchKeys, watchPointers } from "./moving.js";

const NEAREST = 400; // times the whole map
const PICTURES_FROM = 44; // pixels between images, from which on they are pictures
const LARGEST = 180;
const SMALL = 128; // pixels of the copies that are drawn while pictures are no larger
const ASKED_AT_ONCE = 100;
const KEPT = 800; // pictures in memory
const NEAR = 12; // pixels around a pointer

export function read(buffer) {
  const head = new DataView(buffer);
  const magic = String.fromCharCode(...new Uint8Array(buffer, 0, 4));
  if (magic !== "LKMP" || head.getUint32(4, true) !== 1) throw new Error("this is no map that can be read here");
  const count = head.getUint32(8, true);
  const images = new Float64Array(buffer, 16, count);
  const across = new Uint16Array(buffer, 16 + 8 * count, count);
  const down = new Uint16Array(buffer, 16 + 10 * count, count);
  const rgb = new Uint8Array(buffer, 16 + 12 * count, 3 * count);
  const x = Float32Array.from(across, (one) => one / 65535);
  const y = Float32Array.from(down, (one) => one / 65535);
  const colour = new Uint32Array(count);
  for (let i = 0; i < count; i++) {
    colour[i] = (255 << 24) | (rgb[3 * i + 2] << 16) | (rgb[3 * i + 1] << 8) | rgb[3 * i];
  }
  return { count, images, x, y, colour };
}

// Asks for what is shown of images, some at a time and each once.
class Details {
  constructor(address, root, changed) {
    this.address = address;
    this.root = root;
    this.changed = changed;
    this.known = new Map();
    this.wanted = new Set();
    this.pictures = new Map();
    this.asking = false;
  }

  of(image) {
    const known = this.known.get(image);
    if (known === undefined && !this.wanted.has(image)) {
      this.wanted.add(image);
      if (!this.asking) {
        this.asking = true;
        setTimeout(() => this.ask(), 60);
      }
    }
    return known || null;
  }

  keep(item) {
    this.known.set(item.id, item);
  }

  async ask() {
    // The latest first: what was wanted before may be out of sight.
    const some = [...this.wanted].slice(-ASKED_AT_ONCE);
    for (const one of some) this.wanted.delete(one);
    try {
      const address = `${this.address}${this.address.includes("?") ? "&" : "?"}ids=${some.join(",")}`;
      const answer = await fetch(address, { headers: { Accept: "application/json" } });
      const items = answer.ok ? (await answer.json()).items : [];
      // Those that have left the map are not asked for again; after trouble they are.
      if (answer.ok) for (const one of some) this.known.set(one, null);
      for (const item of items) this.keep(item);
    } catch {
      // The next move asks again.
    }
    if (this.wanted.size > 5 * ASKED_AT_ONCE) this.wanted.clear();
    if (this.wanted.size) setTimeout(() => this.ask(), 60);
    else this.asking = false;
    this.changed();
  }

  // What to draw of an image at so many pixels, once it is there: a copy of about that size costs a fraction to draw.
  picture(image, pixels) {
    const loaded = this.pictures.get(image);
    if (loaded) {
      this.pictures.delete(image);
      this.pictures.set(image, loaded);
      return loaded.small && pixels <= SMALL ? loaded.small : loaded.whole;
    }
    const item = this.of(image);
    if (!item) return null;
    const picture = new Image();
    picture.referrerPolicy = "no-referrer";
    picture.decoding = "async";
    const ours = `${this.root}/thumbnails/${item.key.split("/").map(encodeURIComponent).join("/")}`;
    const small = item.thumbnail.small;
    const kept = { whole: null, small: null };
    picture.onload = async () => {
      const shrink = Math.min(1, SMALL / Math.max(picture.naturalWidth, picture.naturalHeight));
      const resizeWidth = Math.max(1, Math.round(picture.naturalWidth * shrink));
      // A drawing without a size of its own cannot be copied so, and is drawn as it is.
      const copy = createImageBitmap(picture, { resizeWidth, resizeQuality: "medium" });
      kept.small = await copy.catch(() => null);
      kept.whole = picture;
      this.changed();
    };
    picture.onerror = () => {
      picture.onerror = null;
      picture.src = ours;
    };
    picture.src = small || ours;
    this.pictures.set(image, kept);
    if (this.pictures.size > KEPT) this.pictures.delete(this.pictures.keys().next().value);
    return null;
  }
}

export class Chart {
  constructor(canvas, points, details) {
    this.canvas = canvas;
    this.context = canvas.getContext("2d", { alpha: true });
    this.points = points;
    this.details = details;
    this.spacing = 1 / Math.sqrt(Math.max(1, points.count));
    this.middle = { x: 0.5, y: 0.5 };
    this.zoom = 1;
    this.marked = -1;
    this.dirty = false;
    this.frames = null; // milliseconds of each drawing, where somebody measures
    this.onmove = () => {};
    this.resize();
  }

  resize() {
    const box = this.canvas.getBoundingClientRect();
    this.ratio = Math.min(2, window.devicePixelRatio || 1);
    this.width = Math.max(1, Math.round(box.width));
    this.height = Math.max(1, Math.round(box.height));
    this.canvas.width = Math.round(this.width * this.ratio);
    this.canvas.height = Math.round(this.height * this.ratio);
    this.image = this.context.createImageData(this.canvas.width, this.canvas.height);
    this.pixels = new Uint32Array(this.image.data.buffer);
    this.changed();
  }

  // Room for the pictures at its edge, which stick out by half of their size.
  get margin() {
    const side = this.spacing * Math.min(this.width, this.height);
    return Math.max(24, Math.min(LARGEST, side));
  }

  // Pixels for the whole side of the map.
  get scale() {
    return (Math.min(this.width, this.height) - this.margin) * this.zoom;
  }

  toMap(left, top) {
    return {
      x: this.middle.x + (left - this.width / 2) / this.scale,
      y: this.middle.y + (top - this.height / 2) / this.scale,
    };
  }

  toView(index) {
    return {
      left: (this.points.x[index] - this.middle.x) * this.scale + this.width / 2,
      top: (this.points.y[index] - this.middle.y) * this.scale + this.height / 2,
    };
  }

  move(x, y) {
    this.middle.x = Math.min(1, Math.max(0, x));
    this.middle.y = Math.min(1, Math.max(0, y));
    this.changed();
  }

  // Comes nearer by a factor; the place at (left, top) stays where it is.
  scaleBy(factor, left = this.width / 2, top = this.height / 2) {
    const before = this.toMap(left, top);
    this.zoom = Math.min(NEAREST, Math.max(1, this.zoom * factor));
    const after = this.toMap(left, top);
    this.move(this.middle.x + before.x - after.x, this.middle.y + before.y - after.y);
  }

  whole() {
    this.zoom = 1;
    this.move(0.5, 0.5);
  }

  changed() {
    if (this.dirty) return;
    this.dirty = true;
    requestAnimationFrame(() => this.draw());
  }

  // The image nearest to a place of the view, within so many pixels; -1 where there is none.
  nearest(left, top, within = Infinity) {
    const at = this.toMap(left, top);
    const { count, x, y } = this.points;
    let best = -1;
    let least = (within / this.scale) ** 2;
    for (let i = 0; i < count; i++) {
      const away = (x[i] - at.x) ** 2 + (y[i] - at.y) ** 2;
      if (away < least) {
        least = away;
        best = i;
      }
    }
    return best;
  }

  get side() {
    return Math.min(LARGEST, this.spacing * this.scale);
  }

  draw() {
    this.dirty = false;
    const since = performance.now();
    this.marked = this.nearest(this.width / 2, this.height / 2);
    this.drawSquares();
    if (this.side >= PICTURES_FROM) this.drawPictures();
    if (document.activeElement === this.canvas && this.marked >= 0) this.drawMark();
    this.onmove();
    this.frames?.push(performance.now() - since);
  }

  drawSquares() {
    const { count, x, y, colour } = this.points;
    const { width, height } = this.canvas;
    const pixels = this.pixels;
    pixels.fill(0);
    const scale = this.scale * this.ratio;
    const size = Math.max(2, Math.round(Math.min(this.side * 0.6, 40) * this.ratio));
    const offX = width / 2 - this.middle.x * scale - size / 2;
    const offY = height / 2 - this.middle.y * scale - size / 2;
    for (let i = 0; i < count; i++) {
      let left = Math.round(x[i] * scale + offX);
      let top = Math.round(y[i] * scale + offY);
      const right = Math.min(width, left + size);
      const bottom = Math.min(height, top + size);
      if (right <= 0 || bottom <= 0 || left >= width || top >= height) continue;
      left = Math.max(0, left);
      top = Math.max(0, top);
      const one = colour[i];
      // Rows are so short that to call `fill` takes longer.
      for (let row = top; row < bottom; row++) {
        const end = row * width + right;
        for (let at = row * width + left; at < end; at++) pixels[at] = one;
      }
    }
    this.context.setTransform(1, 0, 0, 1, 0, 0);
    this.context.putImageData(this.image, 0, 0);
  }

  drawPictures() {
    const { count, x, y } = this.points;
    const context = this.context;
    const scale = this.scale;
    const side = this.side * 0.92;
    context.setTransform(this.ratio, 0, 0, this.ratio, 0, 0);
    context.imageSmoothingQuality = "low";
    for (let i = 0; i < count; i++) {
      const left = (x[i] - this.middle.x) * scale + this.width / 2;
      const top = (y[i] - this.middle.y) * scale + this.height / 2;
      if (left < -side || top < -side || left > this.width + side || top > this.height + side) continue;
      const picture = this.details.picture(this.points.images[i], side * this.ratio);
      if (!picture) continue;
      const width = picture.naturalWidth || picture.width;
      const height = picture.naturalHeight || picture.height;
      const shrink = side / Math.max(width, height);
      const wide = width * shrink;
      const high = height * shrink;
      context.drawImage(picture, left - wide / 2, top - high / 2, wide, high);
    }
  }

  drawMark() {
    const { left, top } = this.toView(this.marked);
    const side = Math.max(12, this.side);
    const context = this.context;
    context.setTransform(this.ratio, 0, 0, this.ratio, 0, 0);
    context.lineWidth = 5;
    context.strokeStyle = "#ffffff";
    context.strokeRect(left - side / 2 - 2, top - side / 2 - 2, side + 4, side + 4);
    context.lineWidth = 2;
    context.strokeStyle = "#000000";
    context.strokeRect(left - side / 2 - 2, top - side / 2 - 2, side + 4, side + 4);
  }
}

// In words, for those who do not see the canvas: what lies in the middle, a moment after the last move.
function watchWords(chart, details, frame, list) {
  let waiting = 0;
  let said = "";

  async function say() {
    const half = { x: chart.width / 2 / chart.scale, y: chart.height / 2 / chart.scale };
    const { x, y } = chart.middle;
    const within = (value) => Math.min(1, Math.max(0, value)).toFixed(5);
    const box = `left=${within(x - half.x)}&right=${within(x + half.x)}&top=${within(y - half.y)}&bottom=${within(y + half.y)}`;
    if (box === said) return;
    said = box;
    const region = frame.dataset.region;
    const answer = await fetch(`${region}${region.includes("?") ? "&" : "?"}${box}&limit=12`, {
      headers: { Accept: "application/json" },
    });
    if (!answer.ok || box !== said) return;
    const { items } = await answer.json();
    for (const item of items) details.keep(item);
    list.replaceChildren(
      ...items.map((item) => {
        const link = document.createElement("a");
        link.href = pageOf(frame.dataset.root, item.key);
        link.textContent = item.title || item.key;
        const entry = document.createElement("li");
        entry.append(link);
        return entry;
      }),
    );
    const voice = document.getElementById("voice");
    if (voice && document.activeElement === chart.canvas && items.length) {
      voice.textContent = `In the middle: ${items[0].title || items[0].key}`;
    }
  }

  chart.onmove = () => {
    clearTimeout(waiting);
    waiting = setTimeout(() => say().catch(() => {}), 250);
  };
}

export function pageOf(root, key) {
  const parts = key.split("/");
  const plain = !parts.some((part) => ["", ".", "..", "similar", "classes"].includes(part));
  return plain ? `${root}/images/${parts.map(encodeURIComponent).join("/")}` : `${root}/image?key=${encodeURIComponent(key)}`;
}

async function start() {
  const frame = document.getElementById("map");
  if (!frame) return;
  frame.hidden = false;
  const canvas = document.getElementById("map-canvas");
  const hint = document.getElementById("map-hint");
  const wait = document.getElementById("map-wait");
  let points;
  try {
    const answer = await fetch(frame.dataset.points);
    if (!answer.ok) throw new Error(`the map does not come: ${answer.status}`);
    points = read(await answer.arrayBuffer());
  } catch (error) {
    wait.textContent = `${error.message}. The squares below show it as well.`;
    return;
  }
  wait.hidden = true;

  const details = new Details(frame.dataset.images, frame.dataset.root, () => chart.changed());
  const chart = new Chart(canvas, points, details);
  let over = -1;

  const go = async (index, away) => {
    const image = points.images[index];
    for (let tries = 0; tries < 50 && !details.of(image); tries++) {
      await new Promise((done) => setTimeout(done, 50));
    }
    const item = details.of(image);
    if (!item) return;
    const address = pageOf(frame.dataset.root, item.key);
    if (away) window.open(address, "_blank", "noopener");
    else window.location.assign(address);
  };
  const under = (left, top) => chart.nearest(left, top, Math.max(NEAR, chart.side / 2));
  const open = (left, top, event) => {
    const index = under(left, top);
    if (index >= 0) go(index, event.ctrlKey || event.metaKey);
  };
  const point = (left, top, kind) => {
    const index = left < 0 || kind === "touch" ? -1 : under(left, top);
    canvas.classList.toggle("over", index >= 0);
    over = index;
    if (index < 0) {
      hint.hidden = true;
      return;
    }
    const item = details.of(points.images[index]);
    hint.textContent = item ? item.title || item.key : "…";
    hint.hidden = !item;
    const beyond = left > chart.width / 2;
    hint.style.left = beyond ? "" : `${left + 14}px`;
    hint.style.right = beyond ? `${chart.width - left + 14}px` : "";
    hint.style.top = `${Math.min(top + 14, chart.height - 40)}px`;
    if (!item) setTimeout(() => over === index && point(left, top, kind), 120);
  };

  watchWords(chart, details, frame, document.getElementById("map-list"));
  watchPointers(canvas, chart, open, point);
  watchKeys(canvas, frame, chart, () => chart.marked >= 0 && go(chart.marked, false));
  for (const kind of ["focus", "blur"]) canvas.addEventListener(kind, () => chart.changed());
  new ResizeObserver(() => chart.resize()).observe(canvas);
  if (frame.dataset.square !== undefined) {
    const side = Number(frame.dataset.side);
    const number = Number(frame.dataset.square);
    chart.scaleBy(side * 0.8);
    chart.move(((number % side) + 0.5) / side, (Math.floor(number / side) + 0.5) / side);
  }
  // For those who measure or test.
  canvas.chart = chart;
}

start();
