// The report reads without this script; it adds tips under the pointer and legends that hide.
(() => {
  "use strict";
  const tip = document.getElementById("tip");

  // <title> is the browser's slow tip: its text moves to a fast one and stays for screen readers.
  for (const title of document.querySelectorAll(".chart .mark > title")) {
    const mark = title.parentNode;
    mark.setAttribute("aria-label", title.textContent);
    title.remove();
  }
  const place = (event) => {
    const { innerWidth: width, innerHeight: height } = window;
    const box = tip.getBoundingClientRect();
    tip.style.left = `${Math.max(4, Math.min(event.clientX + 14, width - box.width - 8))}px`;
    tip.style.top = `${Math.max(4, Math.min(event.clientY + 16, height - box.height - 8))}px`;
  };
  document.addEventListener("pointerover", (event) => {
    const mark = event.target.closest(".chart .mark");
    tip.hidden = mark === null;
    if (mark === null) return;
    tip.textContent = mark.getAttribute("aria-label");
    place(event);
  });
  document.addEventListener("pointermove", (event) => {
    if (!tip.hidden) place(event);
  });

  // A legend entry hides its variant in its own chart, and stresses it while pointed at.
  for (const entry of document.querySelectorAll(".legend[data-toggles] li")) {
    const chart = entry.closest("figure").querySelector(".chart");
    const own = [...chart.querySelectorAll(".series")].filter(
      (series) => series.dataset.variant === entry.dataset.variant,
    );
    const stress = (on) => {
      chart.classList.toggle("stressed", on);
      for (const series of own) series.classList.toggle("stress", on);
    };
    const toggle = () => {
      const shown = entry.getAttribute("aria-pressed") === "true";
      entry.setAttribute("aria-pressed", String(!shown));
      for (const series of own) series.toggleAttribute("hidden", shown);
      stress(!shown);
    };
    entry.setAttribute("role", "button");
    entry.setAttribute("aria-pressed", "true");
    entry.tabIndex = 0;
    entry.addEventListener("click", toggle);
    entry.addEventListener("keydown", (event) => {
      if (event.key !== "Enter" && event.key !== " ") return;
      event.preventDefault();
      toggle();
    });
    entry.addEventListener("pointerenter", () => stress(entry.getAttribute("aria-pressed") === "true"));
    entry.addEventListener("pointerleave", () => stress(false));
  }

  // Folded parts are printed unfolded.
  addEventListener("beforeprint", () => {
    for (const part of document.querySelectorAll("details")) part.open = true;
  });
})();
