// What the page does by itself: tabs, its address, keys. The server is asked for nothing here.
(() => {
  const TABS = ["front", "progress", "choices", "trials", "compare", "failures", "settings"];
  const ADDRESS = [
    "tab", "run", "x", "y", "scale-x", "scale-y", "colour", "pick", "over", "dominated", "candidate", "compare",
  ];
  const DEFAULTS = { tab: "front", run: "0", y: "accuracy", "scale-x": "auto", "scale-y": "auto" };

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
      saveCsv: () => true,
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
