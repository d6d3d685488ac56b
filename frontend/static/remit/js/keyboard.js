// The keyboard map. Rows: [data-row] inside [data-rows]. Keys of buttons and links: data-key="a". Never while typing.
import { openDialog, open } from "./dialogs.js";
import { openPalette } from "./palette.js";
import { shortcutsAllowed } from "./preferences.js";

function isTyping(target) {
  return target.isContentEditable || target.closest?.("input:not([type=checkbox], [type=radio], [type=button]), textarea, select") != null;
}

function rows() {
  return [...document.querySelectorAll("[data-rows] [data-row]")].filter((row) => row.checkVisibility());
}

function currentRow() {
  return document.activeElement?.closest("[data-row]") ?? document.querySelector('[data-rows] [data-row][aria-current="true"]');
}

function moveTo(row) {
  for (const other of document.querySelectorAll('[data-rows] [data-row][aria-current="true"]')) other.removeAttribute("aria-current");
  row.setAttribute("aria-current", "true");
  const link = row.querySelector("[data-row-link]") ?? row.querySelector("a[href]") ?? row;
  if (link === row) row.tabIndex = -1;
  link.focus({ preventScroll: true });
  row.scrollIntoView({ block: "nearest" });
}

function step(by) {
  const all = rows();
  if (!all.length) return false;
  const at = all.indexOf(currentRow());
  moveTo(all[at < 0 ? (by > 0 ? 0 : all.length - 1) : Math.min(Math.max(at + by, 0), all.length - 1)]);
  return true;
}

function select() {
  const box = currentRow()?.querySelector('input[type="checkbox"]');
  box?.click();
  return Boolean(box);
}

// The row under the cursor answers first; without one, the page's own button does. Never another row's.
function press(key) {
  const wanted = `[data-key~="${CSS.escape(key)}"]`; // several keys may be named, apart by spaces
  const row = currentRow();
  const outside = [...document.querySelectorAll(wanted)].filter((element) => !element.closest("[data-row]"));
  const target = [...(row?.querySelectorAll(wanted) ?? []), ...outside].find((element) => element.checkVisibility() && !element.disabled);
  target?.click();
  return Boolean(target);
}

// The list names only what does something on this page as it is now.
function works(help) {
  switch (help) {
    case "rows": return rows().length > 0;
    case "select": return rows().some((row) => row.querySelector('input[type="checkbox"]'));
    default: return [...document.querySelectorAll(`[data-key~="${CSS.escape(help)}"]`)].some((element) => element.checkVisibility());
  }
}

function listWhatWorks() {
  for (const term of document.querySelectorAll("#keyboard [data-help]")) {
    term.hidden = !works(term.dataset.help);
    term.nextElementSibling.hidden = term.hidden;
  }
}

function act(key) {
  switch (key) {
    case "j": return step(1);
    case "k": return step(-1);
    case "x": return select();
    case "/": openPalette(); return true;
    case "?": listWhatWorks(); open("keyboard"); return true;
    default: return /^[a-z]$/.test(key) && press(key);
  }
}

document.addEventListener("click", (event) => {
  if (event.target.closest('[data-opens="keyboard"]')) listWhatWorks();
});

document.addEventListener("keydown", (event) => {
  if (event.defaultPrevented || event.isComposing || event.altKey) return;
  if ((event.ctrlKey || event.metaKey) && !event.shiftKey && event.key.toLowerCase() === "k") {
    event.preventDefault();
    openPalette();
    return;
  }
  if (event.ctrlKey || event.metaKey || event.repeat && !"jk".includes(event.key)) return;
  if (!shortcutsAllowed() || isTyping(event.target) || openDialog()) return;
  if (act(event.key)) event.preventDefault();
});
