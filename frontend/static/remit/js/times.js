// Keeps relative times current, with the same steps as the server (templatetags/amounts.py).
const STEPS = [[86400, "d"], [3600, "h"], [60, "min"], [1, "s"]];

export function relative(moment, now) {
  const seconds = Math.round((moment - now) / 1000);
  const size = Math.abs(seconds);
  if (size < 5) return "now";
  if (seconds < 0) {
    const [length, unit] = STEPS.find(([step]) => size >= step);
    return `${Math.floor(size / length)} ${unit} ago`;
  }
  const at = STEPS.findIndex(([step], index) => about(size, index) >= step);
  const [length, unit] = STEPS[at];
  const [finer, finerUnit] = STEPS[at + 1] ?? STEPS[at];
  const rest = about(size, at) < 2 * length && finer < length ? (about(size, at) - length) / finer : 0;
  return rest ? `in 1 ${unit} ${rest} ${finerUnit}` : `in ${nearest(size, length)} ${unit}`;
}

const nearest = (size, length) => Math.floor((2 * size + length) / (2 * length));

// To the unit below the one at `index`.
function about(size, index) {
  const [finer] = STEPS[index + 1] ?? STEPS[index];
  return nearest(size, finer) * finer;
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
