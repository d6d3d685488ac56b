// Keeps relative times current, with the same steps as the server (templatetags/amounts.py).
const STEPS = [[86400, "d"], [3600, "h"], [60, "min"], [1, "s"]];

export function relative(moment, now) {
  const seconds = Math.round((moment - now) / 1000);
  const size = Math.abs(seconds);
  if (size < 5) return "now";
  const [length, unit] = STEPS.find(([step]) => size >= step);
  const count = Math.floor(size / length);
  return seconds > 0 ? `in ${count} ${unit}` : `${count} ${unit} ago`;
}

function tick() {
  if (document.hidden) return;
  const now = Date.now();
  for (const element of document.querySelectorAll("time[data-relative]")) {
    const words = relative(Date.parse(element.dateTime), now);
    // Writing the same text again would throw away a selection in it.
    if (!words.includes("undefined") && element.textContent !== words) element.textContent = words;
  }
}

setInterval(tick, 5000);
document.addEventListener("visibilitychange", tick);
tick();
