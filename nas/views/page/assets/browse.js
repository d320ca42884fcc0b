// What the page does by itself: tabs, its address, keys. The server is asked for nothing here.
(() => {
  const TABS = ["front", "progress", "choices", "trials", "compare", "failures", "settings"];
  const ADDRESS = [
    "tab", "run", "x", "y", "scale-x", "scale-y", "colour", "pick", "over", "dominated", "candidate", "compare",
  ];
  const DEFAULTS = { tab: "front", run: "0", "scale-x": "auto", "scale-y": "auto" };

  let shifted = false;
  document.addEventListener("mousedown", (event) => { shifted = event.shiftKey; }, true);

  const GAP = 8; // pixels between two labels of one line
  const watched = new WeakSet();
  function watchLabels() {
    const plot = document.querySelector("#scatter .js-plotly-plot");
    if (!plot?.on) return setTimeout(watchLabels, 100);
    if (!watched.has(plot)) plot.on("plotly_afterplot", () => untangle(plot));
    watched.add(plot);
    untangle(plot);
  }

  // Plotly puts a label beside its point, whatever stands there already: move it to the next free place, or leave it out.
  function untangle(plot) {
    const frame = plot.getBoundingClientRect();
    const taken = [...plot.querySelectorAll(".legend, .xtick text, .ytick text, .xtitle, .ytitle")].map((element) =>
      element.getBoundingClientRect());
    for (const label of plot.querySelectorAll(".textpoint text")) {
      label.removeAttribute("dx");
      label.removeAttribute("dy");
      const box = label.getBoundingClientRect();
      // To the other side of its point, and up or down by a few lines.
      const across = { start: [0, -1], end: [0, 1], middle: [0, 0.5, -0.5] }[getComputedStyle(label).textAnchor];
      const moves = [0, 1, -1, 2, -2, 3, -3].flatMap((lines) => across.map((sides) => [
        sides * (box.width + 18), lines * (box.height + 2)]));
      const free = moves.find(([dx, dy]) => {
        const [left, right, top, bottom] = [box.left + dx, box.right + dx, box.top + dy, box.bottom + dy];
        return left >= frame.left && right <= frame.right && top >= frame.top && bottom <= frame.bottom &&
          taken.every((other) => left >= other.right + GAP || right <= other.left - GAP ||
            top >= other.bottom || bottom <= other.top);
      });
      label.style.visibility = free ? "" : "hidden";
      if (!free) continue;
      label.setAttribute("dx", free[0]);
      label.setAttribute("dy", free[1]);
      taken.push(label.getBoundingClientRect());
    }
  }

  window.dash_clientside = Object.assign({}, window.dash_clientside, {
    browse: {
      pickTab: () => {
        const id = window.dash_clientside.callback_context.triggered[0]?.prop_id.split(".")[0] ?? "";
        return TABS.find((name) => `tab-${name}` === id) ?? window.dash_clientside.no_update;
      },
      showTab: (tab, compared) => {
        for (const name of TABS) {
          const button = document.getElementById(`tab-${name}`);
          if (name === tab) button.setAttribute("aria-current", "page");
          else button.removeAttribute("aria-current");
        }
        // A figure that was hidden has no size yet.
        setTimeout(() => window.dispatchEvent(new Event("resize")), 0);
        const count = compared?.length ?? 0;
        return [...TABS.map((name) => name !== tab), count ? `Compare ${count}` : "Compare"];
      },
      keepAddress: (...values) => {
        const query = new URLSearchParams();
        ADDRESS.forEach((name, index) => {
          let value = values[index];
          if (name === "dominated") value = value?.length ? "" : "hidden";
          if (Array.isArray(value)) value = value.join(",");
          if (value && value !== DEFAULTS[name]) query.set(name, value);
        });
        const text = query.toString().replaceAll("%3A", ":").replaceAll("%2C", ",");
        history.replaceState(null, "", text ? `?${text}` : location.pathname);
        return window.dash_clientside.no_update;
      },
      // The token comes once, behind the # of the address, and stays in the storage of this host and port.
      takeToken: (hash, known) => {
        const given = new URLSearchParams((hash ?? "").slice(1)).get("token");
        if (!given) return window.dash_clientside.no_update;
        history.replaceState(null, "", location.pathname + location.search);
        return given;
      },
      saveCsv: () => true,
      // A click opens a candidate, one with the shift key held chooses it for comparison.
      pickPoint: (point) => {
        const none = window.dash_clientside.no_update;
        if (!point) return [none, none, none];
        const clicked = { points: point.points, at: performance.now() };
        return shifted ? [none, clicked, null] : [clicked, none, null];
      },
      watchLabels: () => {
        setTimeout(watchLabels, 0);
        return window.dash_clientside.no_update;
      },
    },
  });

  const busy = (element) => element.closest("input, textarea, select, [role=listbox], .grid, .dash-dropdown, [role=grid]");
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.defaultPrevented) return;
    const drawer = document.getElementById("drawer");
    if (event.key === "Escape" && drawer && !drawer.hidden) document.getElementById("close").click();
    if (busy(event.target) || document.getElementById("panel-front")?.hidden) return;
    if (event.key === "ArrowLeft") document.getElementById("previous").click();
    if (event.key === "ArrowRight") document.getElementById("next").click();
  });
})();
