// Searching with a picture from outside: dropped or pasted on any page, chosen in the form, or by its address. Shows how
// much has been sent, then that the archive is being looked through; the picture itself is drawn beside what was found.

import { parse, say, trouble } from "./swap.js";

let ours = false; // a picture of this page is being dragged
let under = null; // the request under way
let shown = location.pathname; // what this document shows

function path() {
  return document.body.dataset.picture;
}

function limit() {
  return Number(document.body.dataset.most || Infinity);
}

function isForeign(event) {
  const types = [...(event.dataTransfer?.types || [])];
  return !ours && (types.includes("Files") || types.includes("text/uri-list"));
}

function veil(shown) {
  const place = document.getElementById("veil");
  if (place) place.hidden = !shown;
}

export function watchOutside() {
  if (!path()) return;
  document.addEventListener("dragstart", () => (ours = true));
  document.addEventListener("dragend", () => (ours = false));
  document.addEventListener("dragover", (event) => {
    if (!isForeign(event)) return;
    event.preventDefault();
    veil(true);
  });
  document.addEventListener("dragleave", (event) => {
    if (!event.relatedTarget) veil(false);
  });
  document.addEventListener("drop", (event) => {
    if (!isForeign(event)) return;
    event.preventDefault();
    veil(false);
    const file = event.dataTransfer.files[0];
    if (file) return sendFile(file);
    const address = event.dataTransfer.getData("text/uri-list").split(/\r?\n/).find((line) => line && line[0] !== "#");
    if (address) sendAddress(address);
  });
  document.addEventListener("paste", (event) => {
    const file = [...(event.clipboardData?.files || [])].find((each) => each.type.startsWith("image/"));
    if (!file) return;
    event.preventDefault();
    sendFile(file);
  });
  document.addEventListener("change", (event) => {
    if (event.target.id === "picture-file" && event.target.files[0]) sendFile(event.target.files[0]);
  });
  document.addEventListener("submit", (event) => {
    if (event.target.dataset.outside === undefined) return;
    event.preventDefault();
    const fields = new FormData(event.target);
    const file = fields.get("file");
    if (file instanceof File && file.size) sendFile(file);
    else if (fields.get("url")) sendAddress(fields.get("url"));
  });
  // A step back to the page that a picture was dropped on; steps within a page are none.
  addEventListener("popstate", () => location.pathname !== shown && location.reload());
}

function sendFile(file) {
  if (file.size > limit()) {
    trouble(`${file.name} has ${Math.round(file.size / 2 ** 20)} MB; at most ${Math.round(limit() / 2 ** 20)} MB are taken.`);
    return;
  }
  const fields = new FormData();
  fields.append("file", file, file.name || "picture");
  send(fields, file);
}

function sendAddress(address) {
  const fields = new FormData();
  fields.append("url", address);
  send(fields, null);
}

function send(fields, file) {
  under?.abort();
  const encoder = document.querySelector("form[data-outside] [name=encoder]");
  if (encoder?.value) fields.append("encoder", encoder.value);
  const request = (under = new XMLHttpRequest());
  const [box, bar, line] = ["progressing", "progress-bar", "progress-line"].map((id) => document.getElementById(id));
  const tell = (words) => {
    line.textContent = words;
    say(words);
  };
  box.hidden = false;
  bar.removeAttribute("value");
  tell(file ? "Sending the picture…" : "Fetching the picture…");
  document.getElementById("progress-stop").onclick = () => request.abort();
  request.upload.onprogress = (event) => {
    if (!event.lengthComputable) return;
    bar.value = event.loaded / event.total;
    line.textContent = `Sending the picture: ${Math.round((100 * event.loaded) / event.total)} %`;
  };
  request.upload.onload = () => {
    bar.removeAttribute("value");
    if (file) tell("Looking for its kin…");
  };
  request.onloadend = () => {
    if (request !== under) return;
    under = null;
    box.hidden = true;
  };
  request.onerror = () => trouble("The server cannot be reached. Try again.");
  request.onload = () => {
    const page = parse(request.responseText);
    const main = page.querySelector("main");
    if (!main) return trouble("The server did not understand the picture.");
    document.querySelector("main").replaceWith(document.adoptNode(main));
    document.title = page.title;
    if (location.pathname !== path()) history.pushState({}, "", path());
    shown = path();
    document.dispatchEvent(new CustomEvent("swapped"));
    if (file) draw(file);
    const heading = document.querySelector("main h1");
    heading.setAttribute("tabindex", "-1");
    heading.focus();
    say(heading.textContent);
  };
  request.open("POST", `${path()}/search`);
  request.setRequestHeader("Accept", "text/html");
  request.send(fields);
}

async function draw(file) {
  const place = document.getElementById("sent");
  if (!place) return;
  try {
    const picture = await createImageBitmap(file);
    const scale = Math.min(1, 800 / Math.max(picture.width, picture.height));
    const canvas = document.createElement("canvas");
    canvas.width = Math.max(1, Math.round(picture.width * scale));
    canvas.height = Math.max(1, Math.round(picture.height * scale));
    canvas.getContext("2d").drawImage(picture, 0, 0, canvas.width, canvas.height);
    canvas.setAttribute("role", "img");
    canvas.setAttribute("aria-label", `The picture that you sent, ${file.name}`);
    place.prepend(canvas);
  } catch {
    // A format that this browser cannot show; its name stands there anyway.
  }
}
