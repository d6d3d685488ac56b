// Native dialogs and menus: data-opens="id" shows one, data-closes closes the one it is in, menus close when left. A fold
// that is opened to type in takes the focus to its data-first field.
document.addEventListener("toggle", (event) => event.target.open && event.target.querySelector?.("[data-first]")?.focus(), true);

document.addEventListener("click", (event) => {
  const opener = event.target.closest("[data-opens]");
  if (opener) {
    open(opener.dataset.opens);
    opener.closest("details.menu")?.removeAttribute("open");
    return;
  }
  if (event.target.closest("[data-closes]")) {
    event.target.closest("dialog")?.close();
    return;
  }
  // A click on the backdrop lands on the dialog itself, outside its box.
  if (event.target instanceof HTMLDialogElement && !isInside(event, event.target)) event.target.close();
  for (const menu of document.querySelectorAll("details.menu[open]")) {
    if (!menu.contains(event.target)) menu.open = false;
  }
});

document.addEventListener("keydown", (event) => {
  if (event.key !== "Escape") return;
  for (const menu of document.querySelectorAll("details.menu[open]")) {
    menu.open = false;
    menu.querySelector("summary").focus();
  }
});

export function open(id) {
  const dialog = document.getElementById(id);
  if (!dialog || dialog.matches(":modal")) return;
  dialog.removeAttribute("open");
  dialog.showModal();
}

export function openDialog() {
  return document.querySelector("dialog:modal");
}

function isInside(event, dialog) {
  const box = dialog.getBoundingClientRect();
  return event.clientX >= box.left && event.clientX <= box.right && event.clientY >= box.top && event.clientY <= box.bottom;
}
