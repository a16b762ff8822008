// A picture that its host does not give in one size is asked for in another (data-next, addresses by spaces), and at
// last shown by its colours. Where nothing comes at all its place stays plain: no page shows a broken picture.

const PLAIN = "data:image/svg+xml,%3Csvg xmlns='http://www.w3.org/2000/svg'/%3E";

function next(image) {
  const left = (image.dataset.next || "").split(" ").filter(Boolean);
  const address = left.shift();
  image.dataset.next = left.join(" ");
  if (address) image.src = address;
  else if (image.src !== PLAIN) {
    image.src = PLAIN;
    image.classList.add("missing");
  }
}

export function watchPictures() {
  document.addEventListener("error", (event) => event.target.matches?.("img[data-next]") && next(event.target), true);
  // Those that failed before this module came.
  const late = () => {
    for (const image of document.querySelectorAll("img[data-next]")) {
      if (image.complete && image.naturalWidth === 0 && image.getAttribute("src")) next(image);
    }
  };
  late();
  document.addEventListener("swapped", late);
}
