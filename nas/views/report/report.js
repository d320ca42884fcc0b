const figures = JSON.parse(document.getElementById("figures").textContent);
const config = {
  responsive: true,
  displaylogo: false,
  // Named one by one: plotly's own choice has a button that sends the chart to its makers' server.
  modeBarButtons: [["toImage", "zoom2d", "pan2d", "resetScale2d"]],
};

function draw(id) {
  const { data, layout } = figures[id];
  Plotly.newPlot(id, data, layout, { ...config, toImageButtonOptions: { format: "svg", filename: id } });
}

for (const id of Object.keys(figures)) {
  const folded = document.getElementById(id).closest("details:not([open])");
  if (folded) folded.addEventListener("toggle", () => draw(id), { once: true }); // hidden, it would have no size
  else draw(id);
}
