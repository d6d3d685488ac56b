// A link to another form for the same thing takes along what was typed: <a href="?…" data-takes-along="id of the form">.
const isTouched = (field) =>
  field.matches("select") ? [...field.options].some((option) => option.selected !== option.defaultSelected) : field.value !== field.defaultValue;

document.addEventListener("click", (event) => {
  const link = event.target.closest("a[data-takes-along]");
  const form = link && document.getElementById(link.dataset.takesAlong);
  if (!form) return;
  link.dataset.plain ??= link.href;
  const address = new URL(link.dataset.plain);
  for (const field of form.querySelectorAll("input:not([type=hidden]), select, textarea")) {
    if (field.name && isTouched(field)) address.searchParams.set(field.name, field.value);
  }
  link.href = address;
});
