// Parts of a page that come later (data-load), and parts that keep themselves up to date (data-refresh, in seconds)
// while somebody looks.

import { ask, replace, say } from "./swap.js";

const started = new WeakSet();

function watchLoads() {
  for (const place of document.querySelectorAll("[data-load]")) {
    if (started.has(place)) continue;
    started.add(place);
    const watcher = new IntersectionObserver(
      (seen) => {
        if (!seen.some((each) => each.isIntersecting)) return;
        watcher.disconnect();
        load(place);
      },
      { rootMargin: "200px" },
    );
    watcher.observe(place);
  }
}

async function load(place) {
  place.setAttribute("aria-busy", "true");
  place.querySelector("p")?.replaceChildren("Asking the network…");
  try {
    const { page } = await ask(place.dataset.load);
    replace(`#${place.id}`, page);
  } catch {
    place.textContent = "The server cannot be reached.";
  }
}

async function refresh(place) {
  const every = Number(place.dataset.refresh) * 1000;
  const again = () => {
    const now = document.getElementById(place.id);
    if (now?.dataset.refresh) setTimeout(() => refresh(now), every);
  };
  if (document.hidden) {
    document.addEventListener("visibilitychange", () => refresh(document.getElementById(place.id) || place), {
      once: true,
    });
    return;
  }
  try {
    const { ok, page } = await ask(place.dataset.source);
    if (ok) replace(`#${place.id}`, page);
    if (ok && place.dataset.titled !== undefined) document.title = page.title;
    wait(!ok);
  } catch {
    wait(true);
  }
  again();
}

let isAway = false;
function wait(away) {
  if (away !== isAway) say(away ? "The server cannot be reached; trying again." : "The server is back.");
  isAway = away;
  const note = document.getElementById("away");
  if (note) note.hidden = !away;
}

export function watchFragments() {
  watchLoads();
  document.addEventListener("swapped", watchLoads);
  for (const place of document.querySelectorAll("[data-refresh]")) {
    setTimeout(() => refresh(place), Number(place.dataset.refresh) * 1000);
  }
  // The page of a database that is away tries again by itself.
  const retry = document.querySelector("[data-reload]");
  if (retry) {
    const tick = async () => {
      try {
        const answer = await fetch(location.href, { headers: { Accept: "text/html" } });
        if (answer.status !== 503) return location.reload();
      } catch {
        // The server itself is away: go on trying.
      }
      setTimeout(tick, Number(retry.dataset.reload) * 1000);
    };
    setTimeout(tick, Number(retry.dataset.reload) * 1000);
  }
}
