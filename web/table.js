/* Several results in a table: sorted by a press on a column's head, filtered by verdict. */
(() => {
  "use strict";
  const body = () => document.querySelector(".many tbody");

  function sort(head) {
    const key = head.dataset.sort;
    const down = head.getAttribute("aria-sort") === "ascending";
    for (const other of document.querySelectorAll(".many th")) other.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", down ? "descending" : "ascending");
    const rows = [...body().rows];
    const value = (row) => row.dataset[key];
    const compare = head.dataset.number
      ? (one, other) => Number(value(one)) - Number(value(other))
      : (one, other) => value(one).localeCompare(value(other), document.documentElement.lang, { numeric: true });
    rows.sort((one, other) => (down ? -1 : 1) * compare(one, other));
    body().append(...rows);
  }

  function filter(wanted) {
    for (const row of body().rows) row.hidden = Boolean(wanted) && row.dataset.group !== wanted;
  }

  document.addEventListener("click", (event) => {
    const head = event.target.closest("th[data-sort]");
    if (head) sort(head);
  });
  document.addEventListener("change", (event) => {
    if (event.target.id === "table-filter") filter(event.target.value);
  });
})();
