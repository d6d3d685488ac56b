// What htmx does when a request does not go well: named errors become toasts, sign-outs lead to sign-in, silence is said.
import { toast } from "./toasts.js";

const SIGN_IN = "/accounts/login/";

export function signIn() {
  location.assign(`${SIGN_IN}?next=${encodeURIComponent(location.pathname + location.search)}`);
}

document.addEventListener("htmx:beforeSwap", (event) => {
  const { xhr } = event.detail;
  // Signed out meanwhile: the redirect was followed, and what came back is the sign-in page.
  if (new URL(xhr.responseURL || location.href, location.href).pathname.startsWith(SIGN_IN)) {
    event.detail.shouldSwap = false;
    signIn();
    return;
  }
  // Our error pages for htmx say where they belong; other error bodies (a proxy's page) are never put into the page.
  if (xhr.status >= 400 && xhr.getResponseHeader("HX-Retarget")) event.detail.shouldSwap = true;
});

document.addEventListener("htmx:responseError", (event) => {
  const { xhr, requestConfig } = event.detail;
  if (xhr.getResponseHeader("HX-Retarget") || isRefresh(requestConfig)) return;
  if (xhr.status === 401) signIn();
  else toast(`Not done: the server answered ${xhr.status}. Reload the page and look before you try again.`, "deny");
});

for (const name of ["htmx:sendError", "htmx:timeout"]) {
  document.addEventListener(name, (event) => {
    if (isRefresh(event.detail.requestConfig)) return;
    toast("Not sent: Remit cannot be reached. Nothing was changed; try again in a moment.", "deny");
  });
}

// Parts that refresh themselves fail quietly: the strip of live.js says that the page is old.
function isRefresh(config) {
  return config?.elt?.matches("[data-live-part]") && config.verb === "get";
}

// Plain posts that must not go twice, or take seconds (asking a server for its tools): pressed once, and seen to be under way.
document.addEventListener("submit", (event) => {
  if (!event.target.matches("form[data-busy]")) return;
  if (event.target.classList.contains("htmx-request")) event.preventDefault();
  event.target.classList.add("htmx-request");
});
window.addEventListener("pageshow", (event) => {
  if (event.persisted) document.querySelectorAll("form[data-busy]").forEach((form) => form.classList.remove("htmx-request"));
});
