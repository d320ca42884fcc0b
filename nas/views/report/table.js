// The table of all trials: sorted by a click on a column's name, filtered by a text, saved as CSV.
const trials = document.getElementById("trials");
const table = trials.querySelector("table");
const body = table.tBodies[0];
const heads = [...table.tHead.rows[0].cells];

const valueOf = (cell) => cell.querySelector("data")?.value ?? cell.textContent;

function sortBy(column, descending) {
  const known = (cell) => cell.textContent !== "–";
  const key = (row) => {
    const value = valueOf(row.cells[column]);
    return value !== "" && !isNaN(value) ? Number(value) : value;
  };
  const rows = [...body.rows].map((row) => [known(row.cells[column]), key(row), row]);
  rows.sort(([knownA, a], [knownB, b]) => {
    if (!knownA || !knownB) return knownB - knownA; // what is not known comes last either way
    // A digest of digits alone is a number among texts.
    const order = typeof a === typeof b && typeof a === "number" ? a - b : String(a).localeCompare(String(b));
    return descending ? -order : order;
  });
  body.append(...rows.map(([, , row]) => row));
  heads.forEach((head, index) => {
    if (index === column) head.setAttribute("aria-sort", descending ? "descending" : "ascending");
    else head.removeAttribute("aria-sort");
  });
}

heads.forEach((head, column) => {
  const button = document.createElement("button");
  button.type = "button";
  button.append(...head.childNodes);
  button.onclick = () => sortBy(column, head.getAttribute("aria-sort") === "ascending");
  head.append(button);
});

const filter = document.getElementById("filter");
const shown = document.getElementById("shown");
filter.oninput = () => {
  const words = filter.value.toLowerCase().split(/\s+/);
  let count = 0;
  for (const row of body.rows) {
    const text = row.textContent.toLowerCase();
    row.hidden = !words.every((word) => text.includes(word));
    count += !row.hidden;
  }
  shown.value = filter.value.trim() ? `${count} of ${body.rows.length}` : "";
};

document.getElementById("csv").onclick = () => {
  // A cell that begins like a formula would run as one in a spreadsheet.
  const quoted = (text) => `"${(/^[=+@\t\r-]/.test(text) && isNaN(text) ? "'" + text : text).replaceAll('"', '""')}"`;
  const lines = [heads, ...[...body.rows].filter((row) => !row.hidden).map((row) => [...row.cells])];
  const text = lines.map((cells) => cells.map((cell) => quoted(valueOf(cell))).join(",")).join("\r\n") + "\r\n";
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([text], { type: "text/csv" }));
  link.download = "trials.csv";
  link.click();
  URL.revokeObjectURL(link.href);
};
