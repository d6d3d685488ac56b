// Refreshing a part of the page without disturbing who reads it: focus, scroll, selection and open details stay.
import { isAtEnd, toEnd } from "./following.js";

// A part asks again after three times as long as its last answer took: an open page never keeps a server busy, and backs
// off from one that is.
const APART = { times: 3, leastMs: 120, mostMs: 2000 };
const due = new Map(); // part id or element → timer
const asked = new Map(); // part id or element → when it was last asked for
const took = new Map(); // part id or element → milliseconds until its last answer
const onTheWay = new Set(); // part id or element whose answer has not come yet
const askAgain = new Set(); // those that changed meanwhile: the answer on its way may show what was before
const lastBody = new WeakMap(); // element → what the server sent for it
const kept = new WeakMap(); // request → what to put back after the swap

export function parts(matches = () => true) {
  return [...document.querySelectorAll("[data-live-part]")].filter(matches);
}

// The first hint is followed at once; those that come within a moment after it share one request.
export function refresh(part) {
  const key = part.id || part;
  if (due.has(key)) return;
  const apart = Math.min(APART.mostMs, Math.max(APART.leastMs, APART.times * (took.get(key) ?? 0)));
  const since = performance.now() - (asked.get(key) ?? -apart);
  // Chance spreads what many open pages ask for after the same hint.
  const wait = since >= apart ? Math.random() * 30 : apart - since + (Math.random() * apart) / 4;
  due.set(key, setTimeout(() => {
    due.delete(key);
    if (onTheWay.has(key)) return askAgain.add(key);
    asked.set(key, performance.now());
    const current = part.isConnected ? part : part.id && document.getElementById(part.id);
    if (current) isInUse(current) ? later(current) : window.htmx?.trigger(current, "live");
  }, wait));
}

// Someone types, has marked text, decides in a dialog or menu in there, or has just pressed a button: their turn first.
function isInUse(part) {
  const field = document.activeElement;
  if (part.contains(field) && field.matches("input:not([type=checkbox], [type=radio]), textarea, select, [contenteditable]")) return true;
  if (part.querySelector("dialog[open], details.menu[open], form:is([data-changed], [data-busy].htmx-request)")) return true;
  const selection = getSelection();
  return Boolean(selection && !selection.isCollapsed && selection.containsNode(part, true));
}

function later(part) {
  const key = part.id || part;
  due.set(key, setTimeout(() => {
    due.delete(key);
    if (part.isConnected) refresh(part);
  }, 2000));
}

function pathOf(element, root) {
  if (element.id) return `#${CSS.escape(element.id)}`;
  const steps = [];
  for (let at = element; at && at !== root; at = at.parentElement) {
    if (at.id) return [`#${CSS.escape(at.id)}`, ...steps].join(" > ");
    steps.unshift(`${at.localName}:nth-of-type(${[...at.parentElement.children].filter((other) => other.localName === at.localName).indexOf(at) + 1})`);
  }
  return steps.length ? `:scope > ${steps.join(" > ")}` : "";
}

function remember(part) {
  const list = part.querySelector("[data-follows]");
  const inside = part.contains(document.activeElement) && document.activeElement !== part ? document.activeElement : null;
  return {
    id: part.id,
    bottom: part.getBoundingClientRect().bottom,
    height: part.offsetHeight,
    follows: Boolean(list && isAtEnd(list)),
    focus: inside && [pathOf(inside, part), inside.textContent.trim()],
    details: [...part.querySelectorAll("details")].map((item) => [pathOf(item, part), item.open]),
    checked: [...part.querySelectorAll("input:is([type=checkbox], [type=radio])")].map((item) => [pathOf(item, part), item.checked]),
    scrolled: [part, ...part.querySelectorAll("*")].filter((item) => item.scrollTop || item.scrollLeft).map((item) => [pathOf(item, part), item.scrollTop, item.scrollLeft, item.scrollHeight - item.clientHeight - item.scrollTop < 4]),
    current: part.querySelector('[data-row][aria-current="true"]')?.id,
  };
}

function restore(part, was) {
  const find = (path) => (path === "" ? part : path.startsWith("#") ? document.querySelector(path) : part.querySelector(path));
  for (const [path, open] of was.details) {
    const item = find(path);
    if (item) item.open = open;
  }
  for (const [path, checked] of was.checked) {
    const item = find(path);
    if (item && path.startsWith("#")) item.checked = checked;
  }
  for (const [path, top, left, atEnd] of was.scrolled) {
    find(path)?.scrollTo(left, atEnd && part.hasAttribute("data-follow") ? Number.MAX_SAFE_INTEGER : top);
  }
  const current = was.current && document.getElementById(was.current);
  if (current) {
    for (const other of part.querySelectorAll('[data-row][aria-current="true"]')) other.removeAttribute("aria-current");
    current.setAttribute("aria-current", "true");
  }
  // The same thing must still be there; a neighbour that moved into its place must not inherit the focus.
  const [path, words] = was.focus ?? [];
  const target = path && find(path);
  if (target && target.textContent.trim() === words) target.focus({ preventScroll: true });
  if (was.bottom < 0) window.scrollBy(0, part.offsetHeight - was.height);
  const list = part.querySelector("[data-follows]");
  if (was.follows && list && !isAtEnd(list)) toEnd(list);
}

const isOwnRefresh = (event) => event.detail.elt?.matches?.("[data-live-part]") && event.detail.requestConfig?.verb === "get";

// htmx would queue a second request at the element that the first one's answer replaces, and so lose it.
document.addEventListener("htmx:beforeSend", (event) => {
  if (!isOwnRefresh(event)) return;
  const part = event.detail.elt;
  const key = part.id || part;
  onTheWay.add(key);
  event.detail.xhr.addEventListener("loadend", () => {
    onTheWay.delete(key);
    if (askAgain.delete(key)) refresh(part);
  });
});

document.addEventListener("htmx:beforeSwap", (event) => {
  const part = event.detail.target;
  const since = isOwnRefresh(event) && asked.get(part.id || part);
  if (since) took.set(part.id || part, performance.now() - since);
  if (!isOwnRefresh(event) || !part.matches("[data-live-part]") || !event.detail.shouldSwap) return;
  const body = event.detail.xhr.responseText;
  if (lastBody.get(part) === body || isInUse(part)) {
    event.detail.shouldSwap = false;
    if (lastBody.get(part) !== body) later(part);
    return;
  }
  kept.set(event.detail.xhr, [body, remember(part)]);
});

document.addEventListener("htmx:afterSwap", (event) => {
  const [body, was] = kept.get(event.detail.xhr) ?? [];
  const part = was && (document.getElementById(was.id) ?? event.detail.elt);
  if (!part) return;
  kept.delete(event.detail.xhr);
  lastBody.set(part, body);
  restore(part, was);
});

document.addEventListener("input", (event) => {
  const form = event.target.closest("[data-live-part] form");
  if (form) form.dataset.changed = "";
});
