// Toasts: from Django's messages (already in the page), from the HX-Trigger header {"toast": {"text", "tone"}}, from modules.
const list = document.getElementById("toasts");
const template = document.getElementById("toast-template");
const STAYS_MS = 8000;
const UNDO_STAYS_MS = 30000;

export function toast(text, tone = "neutral") {
  if (!list || !template) return;
  const element = template.content.firstElementChild.cloneNode(true);
  element.classList.remove("neutral");
  element.classList.add(tone);
  if (tone === "deny") element.setAttribute("role", "alert");
  element.querySelector("p").textContent = text;
  list.append(element);
}

// Good news leaves by itself, unless someone is reading it; what needs a reader stays until dismissed.
function watch(element) {
  if (!element.matches(".toast.allow, .toast.neutral")) return;
  const leave = () => (element.matches(":hover, :focus-within") ? setTimeout(leave, 2000) : element.remove());
  setTimeout(leave, element.querySelector("form") ? UNDO_STAYS_MS : STAYS_MS);
}

if (list) {
  list.querySelectorAll(".toast").forEach(watch);
  new MutationObserver((changes) => {
    for (const change of changes) change.addedNodes.forEach((node) => node instanceof Element && watch(node));
  }).observe(list, { childList: true });
}

document.addEventListener("click", (event) => event.target.closest("[data-dismiss]")?.closest(".toast")?.remove());
document.addEventListener("toast", (event) => toast(event.detail.text ?? event.detail.value, event.detail.tone));
