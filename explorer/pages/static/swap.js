// Forms that change part of a page: their answer is a whole page, of which the same parts take the places of the old
// ones. Where the cursor was, it stays; what has happened is said aloud.

export function say(words) {
  const voice = document.getElementById("voice");
  if (voice) voice.textContent = words;
}

export function parse(html) {
  return new DOMParser().parseFromString(html, "text/html");
}

// Puts the parts of another document in the places of ours. Returns whether all of them were found.
export function replace(selectors, other) {
  const pairs = selectors.split(",").map((each) => [document.querySelector(each), other.querySelector(each)]);
  if (pairs.some(([ours, theirs]) => !ours || !theirs)) return false;
  for (const [ours, theirs] of pairs) {
    if (ours.isEqualNode(theirs)) continue;
    const focused = ours.contains(document.activeElement) ? document.activeElement : null;
    const place = [...ours.querySelectorAll("[data-keys]")].indexOf(focused?.closest("[data-keys]"));
    const opened = [...ours.querySelectorAll("details[open][id]")].map((each) => each.id);
    const fresh = document.adoptNode(theirs);
    ours.replaceWith(fresh);
    for (const id of opened) document.getElementById(id)?.setAttribute("open", "");
    if (focused) refocus(focused, fresh, place);
  }
  document.dispatchEvent(new CustomEvent("swapped"));
  return true;
}

// Where the focus was: on what is called the same, else on what now has the place of it in its list.
function refocus(old, fresh, place) {
  const twin = old.id && document.getElementById(old.id);
  const listed = place >= 0 && [...fresh.querySelectorAll("[data-keys] a")];
  const next = twin || (listed && listed[Math.min(place, listed.length - 1)]) || fresh.querySelector("[data-focus]") || fresh;
  if (next === fresh && !fresh.hasAttribute("tabindex")) fresh.setAttribute("tabindex", "-1");
  next.focus({ preventScroll: true });
}

export async function ask(url, options = {}) {
  const answer = await fetch(url, { headers: { Accept: "text/html" }, ...options });
  return { ok: answer.ok, url: answer.url, page: parse(await answer.text()) };
}

function words(page) {
  const said = page.querySelector("[data-say]") || page.querySelector("main h1");
  return said ? said.textContent.trim().replace(/\s+/g, " ") : "";
}

async function submit(form, submitter) {
  const fields = new FormData(form, submitter);
  const isGet = form.method === "get";
  const url = new URL(submitter?.getAttribute("formaction") || form.action, location.href);
  const options = {};
  if (isGet) {
    for (const [name, value] of [...fields]) if (value === "") fields.delete(name);
    url.search = new URLSearchParams(fields).toString();
  } else {
    options.method = "POST";
    options.body = new URLSearchParams(fields);
  }
  const turn = (form.turn = (form.turn || 0) + 1);
  form.setAttribute("aria-busy", "true");
  try {
    const { ok, url: arrived, page } = await ask(url, options);
    if (turn !== form.turn) return; // a later wish has overtaken this one
    if (!ok) {
      trouble(words(page) || "The server refused.");
      return;
    }
    // Before its parts leave it for this page.
    const said = words(page);
    if (replace(form.dataset.swap, page)) {
      if (arrived) history.replaceState(history.state, "", arrived);
      say(said);
    } else {
      location.assign(arrived);
    }
  } catch {
    trouble("The server cannot be reached: nothing was changed. Try again.");
  } finally {
    form.removeAttribute("aria-busy");
  }
}

export function trouble(message) {
  const place = document.getElementById("trouble");
  if (!place) return;
  place.hidden = false;
  place.querySelector("p").textContent = message;
}

export function watchForms() {
  document.addEventListener("submit", (event) => {
    const form = event.target;
    if (!form.dataset.swap || event.defaultPrevented) return;
    event.preventDefault();
    document.getElementById("trouble")?.setAttribute("hidden", "");
    submit(form, event.submitter);
  });
  document.addEventListener("input", (event) => {
    const shown = event.target.dataset?.output && document.getElementById(event.target.dataset.output);
    if (shown) shown.textContent = Number(event.target.value) >= 1 ? "any" : Number(event.target.value).toFixed(2);
  });
  document.addEventListener("change", (event) => {
    const form = event.target.form;
    if (form?.dataset.live !== undefined) form.requestSubmit();
    if (event.target.dataset?.all) {
      for (const each of document.querySelectorAll(event.target.dataset.all)) each.checked = event.target.checked;
    }
  });
  document.addEventListener("click", async (event) => {
    const button = event.target.closest("button[data-copy]");
    if (!button) return;
    try {
      await navigator.clipboard.writeText(button.dataset.copy);
      say("Copied");
      const words = button.textContent;
      button.textContent = "Copied";
      setTimeout(() => (button.textContent = words), 2000);
    } catch {
      trouble(`The browser did not let us copy: ${button.dataset.copy}`);
    }
  });
}
