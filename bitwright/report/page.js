// The page reads well without this; it adds what a mark says when pointed at or tapped, and sorting by a click on a heading.
const tip = document.getElementById("tip");

function show(event) {
  const mark = event.target.closest("[data-tip]");
  tip.hidden = !mark;
  if (!mark) return;
  tip.textContent = mark.dataset.tip;
  const at = mark.getBoundingClientRect(), own = tip.getBoundingClientRect();
  const left = at.left + at.width / 2 - own.width / 2;
  const below = at.bottom + 8;
  tip.style.left = Math.max(8, Math.min(left, innerWidth - own.width - 8)) + "px";
  tip.style.top = (below + own.height < innerHeight ? below : Math.max(8, at.top - own.height - 8)) + "px";
}
for (const kind of ["mouseover", "focusin", "click"]) document.addEventListener(kind, show);
document.addEventListener("scroll", () => { tip.hidden = true; }, true);

for (const table of document.querySelectorAll(".sortable")) {
  const headings = [...table.tHead.rows[0].cells];
  headings.forEach((heading, column) => heading.addEventListener("click", () => {
    const down = heading.ariaSort !== "descending" && (column > 0 || heading.ariaSort === "ascending");
    for (const other of headings) other.removeAttribute("aria-sort");
    heading.setAttribute("aria-sort", down ? "descending" : "ascending");
    const by = (row) => Number(row.cells[column].dataset.by) * (down ? -1 : 1);
    table.tBodies[0].append(...[...table.tBodies[0].rows].sort((one, other) => by(one) - by(other)));
  }));
}
