// A list that grows at its end ([data-follows] says how many it has): who reads at the end stays there, who reads elsewhere is
// told how many are new. And what appears once something else has left the screen ([data-shows-without="its id"]).
const seen = new Map(); // list id → how many there were when its end was last on screen

export function isAtEnd(list) {
  const { bottom } = list.getBoundingClientRect();
  return bottom > 0 && bottom <= innerHeight + 8;
}

export function toEnd(list) {
  list.lastElementChild?.scrollIntoView({ block: "end" });
  look();
}

function look() {
  for (const list of document.querySelectorAll("[data-follows]")) {
    const count = Number(list.dataset.follows);
    if (isAtEnd(list) || !seen.has(list.id)) seen.set(list.id, count);
    const button = document.querySelector(`[data-fresh="${CSS.escape(list.id)}"]`);
    if (!button) continue;
    const fresh = count - seen.get(list.id);
    button.parentElement.hidden = fresh <= 0;
    const words = button.querySelector("span");
    if (fresh > 0 && words.textContent !== `${fresh} new`) words.textContent = `${fresh} new`;
  }
  for (const element of document.querySelectorAll("[data-shows-without]")) {
    const other = document.getElementById(element.dataset.showsWithout);
    element.hidden = !other || other.getBoundingClientRect().bottom > 48;
  }
}

document.addEventListener("click", (event) => {
  const button = event.target.closest("[data-fresh]");
  const list = button && document.getElementById(button.dataset.fresh);
  if (list) toEnd(list);
});
document.addEventListener("scroll", look, { passive: true });
document.addEventListener("htmx:afterSettle", look);
window.addEventListener("resize", look);
look();
