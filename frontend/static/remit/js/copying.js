// Copy buttons: <button data-copy="text">. Says aloud what happened.
import { toast } from "./toasts.js";

document.addEventListener("click", async (event) => {
  const button = event.target.closest("[data-copy]");
  if (!button) return;
  event.preventDefault();
  try {
    await navigator.clipboard.writeText(button.dataset.copy);
    button.dataset.copied = "";
    const label = button.getAttribute("aria-label");
    button.setAttribute("aria-label", "Copied");
    setTimeout(() => {
      delete button.dataset.copied;
      button.setAttribute("aria-label", label);
    }, 1600);
  } catch {
    toast("The browser did not allow copying. Select the text and copy it by hand.", "ask");
  }
});
