// The command palette: filters the pages it was rendered with; htmx adds what the server finds.
import { open } from "./dialogs.js";

const dialog = document.getElementById("palette");
const input = document.getElementById("palette-input");
let awaited = ""; // what Enter was pressed on before the server had found anything

export function openPalette() {
  if (!dialog) return;
  open("palette");
  input.select();
  filter();
}

function options() {
  return [...dialog.querySelectorAll('[role="option"]')].filter((option) => !option.hidden);
}

function choose(option) {
  for (const other of dialog.querySelectorAll('[aria-selected="true"]')) other.removeAttribute("aria-selected");
  if (!option) {
    input.removeAttribute("aria-activedescendant");
    return;
  }
  option.id ||= `palette-option-${crypto.randomUUID()}`;
  option.setAttribute("aria-selected", "true");
  option.scrollIntoView({ block: "nearest" });
  input.setAttribute("aria-activedescendant", option.id);
}

function filter() {
  const words = input.value.trim().toLowerCase().split(/\s+/);
  for (const option of dialog.querySelectorAll("[data-command]")) {
    const text = option.textContent.toLowerCase();
    option.hidden = !words.every((word) => text.includes(word));
  }
  const left = options();
  dialog.querySelector(".none").hidden = left.length > 0;
  choose(left[0]);
}

function move(step) {
  const all = options();
  const at = all.findIndex((option) => option.getAttribute("aria-selected") === "true");
  choose(all[(at + step + all.length) % all.length]);
}

if (dialog) {
  input.addEventListener("input", () => {
    awaited = "";
    filter();
  });
  input.addEventListener("keydown", (event) => {
    if (event.key === "ArrowDown" || event.key === "ArrowUp") {
      event.preventDefault();
      move(event.key === "ArrowDown" ? 1 : -1);
    } else if (event.key === "Enter") {
      event.preventDefault();
      const chosen = dialog.querySelector('[aria-selected="true"]');
      if (chosen) chosen.click();
      else awaited = input.value;
    }
  });
  dialog.addEventListener("htmx:afterSettle", (event) => {
    filter();
    const answered = new URL(event.detail.xhr.responseURL, location.href).searchParams.get("q");
    if (!awaited || awaited !== input.value || awaited !== answered) return;
    awaited = "";
    options()[0]?.click();
  });
  document.addEventListener("click", (event) => {
    if (event.target.closest('[data-opens="palette"]')) openPalette();
  });
}
