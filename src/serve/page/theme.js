// Before anything is drawn: the colours that were chosen here (localStorage "pinhole-theme").
"use strict";
try {
  const chosen = localStorage.getItem("pinhole-theme");
  if (chosen === "light" || chosen === "dark") document.documentElement.dataset.theme = chosen;
} catch {
  // No storage: the system's colours.
}
