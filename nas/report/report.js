const figures = JSON.parse(document.getElementById("figures").textContent);
const config = {
  responsive: true,
  displaylogo: false,
  // Named one by one: plotly's own choice has a button that sends the chart to its makers' server.
  modeBarButtons: [["toImage", "zoom2d", "pan2d", "resetScale2d"]],
};
for (const [id, figure] of Object.entries(figures)) {
  Plotly.newPlot(id, figure.data, figure.layout, { ...config, toImageButtonOptions: { format: "svg", filename: id } });
}
