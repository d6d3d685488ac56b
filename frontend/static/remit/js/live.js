// The live socket: /live says what changed, the page fetches that part through its ordinary view. A slow poll is the net.
import { parts, refresh } from "./parts.js";
import { signIn } from "./requests.js";

const POLL_LOST_MS = 15000;
const POLL_NET_MS = 60000;
const FIRST_RETRY_MS = 1000;
const LONGEST_RETRY_MS = 30000;
// With these the server closes a socket whose session ended (controlplane/live/consumer.py).
const BROKE_RULES = 1008;
const SIGNED_OUT = "signed out";
const MOMENT_MS = 500;
const LEAVING_MS = 10000;

const strip = document.getElementById("live-strip");
const words = strip?.querySelector("[data-live-words]");
let socket = null;
let attempts = 0;
let retryTimer = 0;
let pollTimer = 0;
let asOf = new Date();
let wasLost = false;
let leaving = false;
const asked = new Set();
const refused = new Set();
const granted = new Set();

function topics() {
  return new Set([...document.querySelectorAll("[data-live]")].flatMap((element) => element.dataset.live.split(/\s+/)).filter(Boolean));
}

function subscribe() {
  if (socket?.readyState !== WebSocket.OPEN) return;
  const fresh = [...topics()].filter((topic) => !asked.has(topic) && !refused.has(topic));
  if (!fresh.length) return;
  fresh.forEach((topic) => asked.add(topic));
  socket.send(JSON.stringify({ subscribe: fresh }));
}

function connect() {
  clearTimeout(retryTimer);
  if (socket && socket.readyState <= WebSocket.OPEN) return;
  if (!topics().size) return;
  socket = new WebSocket(`${location.protocol === "https:" ? "wss" : "ws"}://${location.host}/live`);
  socket.addEventListener("open", onOpen);
  socket.addEventListener("message", (event) => onMessage(event.data));
  socket.addEventListener("close", onClose);
}

function onOpen() {
  attempts = 0;
  asked.clear();
  refused.clear();
  subscribe();
  if (wasLost) refreshAll();
  wasLost = false;
  strip && (strip.hidden = true);
  poll(POLL_NET_MS);
}

function onClose(event) {
  // Nothing that is on the screen may be seen any more, and a reconnect would only be refused. Unless this browser itself
  // renewed its session, as with a new password: the answer with the new cookie is on its way, and must not be cut off.
  if (event.code === BROKE_RULES && event.reason === SIGNED_OUT) setTimeout(() => (leaving ? comeBack() : signIn()), MOMENT_MS);
  else comeBack();
}

function comeBack() {
  if (!wasLost) {
    wasLost = true;
    asOf = new Date();
    poll(POLL_LOST_MS);
  }
  attempts += 1;
  const longest = Math.min(FIRST_RETRY_MS * 2 ** (attempts - 1), LONGEST_RETRY_MS);
  const wait = longest / 2 + Math.random() * (longest / 2);
  // One short gap is not worth a word: a deploy or a sleeping laptop mends itself.
  if (attempts > 1) say();
  clearTimeout(retryTimer);
  retryTimer = setTimeout(connect, wait);
}

function say() {
  if (!strip) return;
  strip.hidden = false;
  const text = `Reconnecting, as of ${asOf.toLocaleTimeString([], { hour12: false })}. Refreshed every 15 s meanwhile.`;
  if (words.textContent !== text) words.textContent = text;
}

function onMessage(data) {
  let hint;
  try {
    hint = JSON.parse(data);
  } catch {
    return; // not ours; the poll finds what it may have meant
  }
  if (hint === null || typeof hint !== "object") return;
  if (Array.isArray(hint.subscribed)) hint.subscribed.forEach((topic) => granted.add(topic));
  if (Array.isArray(hint.refused)) {
    // The frame's own topic is lost: the whole page belongs to an organisation that this person is not in any more.
    if (hint.refused.some((topic) => topic.startsWith("warnings:") && granted.has(topic))) return location.replace(location.pathname + location.search);
    // Access ended: let the part say so itself.
    hint.refused.forEach((topic) => refused.add(topic));
    parts((part) => refused.has(topicOf(part))).forEach(refresh);
  }
  if (typeof hint.topic !== "string") return;
  asOf = new Date();
  parts((part) => isMeant(part, hint)).forEach(refresh);
}

function topicOf(part) {
  return part.closest("[data-live]")?.dataset.live ?? "";
}

function isMeant(part, hint) {
  const scope = topicOf(part).split(/\s+/);
  if (scope[0] && !scope.includes(hint.topic)) return false;
  const wanted = part.dataset.livePart.split(/\s+/);
  return wanted.includes("*") || !hint.what || hint.what === "*" || wanted.includes(hint.what);
}

function refreshAll() {
  parts().forEach(refresh);
}

function poll(every) {
  clearInterval(pollTimer);
  pollTimer = setInterval(() => document.hidden || refreshAll(), every);
}

document.addEventListener("htmx:afterSettle", () => {
  subscribe();
  connect();
});
document.addEventListener("htmx:afterRequest", (event) => {
  if (event.detail.successful && wasLost && event.detail.elt?.matches?.("[data-live-part]")) {
    asOf = new Date();
    if (strip && !strip.hidden) say();
  }
});
document.addEventListener("visibilitychange", () => {
  if (document.hidden) return;
  if (wasLost) connect();
  if (topics().size) refreshAll();
});
window.addEventListener("online", connect);
window.addEventListener("beforeunload", () => {
  leaving = true;
  setTimeout(() => (leaving = false), LEAVING_MS); // a download leaves nothing
});
document.addEventListener("click", (event) => {
  if (!event.target.closest("[data-live-now]")) return;
  attempts = 0;
  refreshAll();
  connect();
});
connect();
