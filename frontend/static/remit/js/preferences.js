// Theme, collapsed rail, single-key shortcuts: kept in cookies, so that the server renders the page right the first time.
const YEAR = 31536000;
const root = document.documentElement;

function remember(name, value) {
  const secure = location.protocol === "https:" ? "; secure" : "";
  document.cookie = `remit_${name}=${value}; path=/; max-age=${value ? YEAR : 0}; samesite=lax${secure}`;
}

function apply(name, value) {
  if (value) root.dataset[name] = value;
  else delete root.dataset[name];
  remember(name, value);
}

function setTheme(theme) {
  apply("theme", theme);
  for (const button of document.querySelectorAll("[data-set-theme]")) {
    button.setAttribute("aria-pressed", String(button.dataset.setTheme === theme));
  }
}

export function shortcutsAllowed() {
  return root.dataset.shortcuts !== "off";
}

document.addEventListener("click", (event) => {
  const chosen = event.target.closest("[data-set-theme]");
  if (chosen) setTheme(chosen.dataset.setTheme);
  if (event.target.closest("[data-cycle-theme]")) {
    const order = ["", "light", "dark"];
    setTheme(order[(order.indexOf(root.dataset.theme ?? "") + 1) % order.length]);
  }
  const rail = event.target.closest("[data-toggle-rail]");
  if (rail) {
    apply("rail", root.dataset.rail === "narrow" ? "" : "narrow");
    rail.setAttribute("aria-pressed", String(root.dataset.rail === "narrow"));
  }
});

document.addEventListener("change", (event) => {
  if (event.target.matches("[data-shortcuts-switch]")) apply("shortcuts", event.target.checked ? "" : "off");
});
