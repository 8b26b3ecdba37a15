"use strict";

// The table of scans: sorting by column, search by name.
(() => {
  const table = document.getElementById("scans");
  const body = table.tBodies[0];
  const rows = Array.from(body.rows);
  const names = new Intl.Collator("en", { numeric: true });

  function compare(a, b, column, sign) {
    const [x, y] = [a, b].map((row) => row.cells[column].dataset.value);
    if (x === "" || y === "") return (x === "") - (y === ""); // missing values stay last
    return sign * (column === 0 ? names.compare(x, y) : x - y);
  }

  function sort(header) {
    // The first click sorts numbers from the largest, names from A.
    const first = header.cellIndex === 0 ? "ascending" : "descending";
    const other = first === "ascending" ? "descending" : "ascending";
    const order = header.ariaSort === first ? other : first;
    for (const each of table.tHead.rows[0].cells) each.ariaSort = "none";
    header.ariaSort = order;
    const sign = order === "ascending" ? 1 : -1;
    rows.sort((a, b) => compare(a, b, header.cellIndex, sign));
    body.append(...rows);
  }

  for (const header of table.tHead.rows[0].cells) {
    header.querySelector("button").addEventListener("click", () => sort(header));
  }

  const find = document.getElementById("find");
  find.form.addEventListener("submit", (event) => event.preventDefault());
  find.addEventListener("input", () => {
    const text = find.value.trim().toLowerCase();
    for (const row of rows) {
      row.hidden = !row.cells[0].dataset.value.toLowerCase().includes(text);
    }
    const left = rows.filter((row) => !row.hidden).length;
    document.getElementById("count").textContent = `${left} of ${rows.length} scans`;
  });
})();
