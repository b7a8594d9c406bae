// Light, dark, or as the system has it.

import { text } from "/dom.js";

const KEPT = "gossipmonger-theme";
const THEMES = ["system", "light", "dark"];

export function theme(button) {
  const show = (name) => {
    document.documentElement.dataset.theme = name;
    text(button, `Theme: ${name}`);
  };
  const now = () => document.documentElement.dataset.theme;
  show(THEMES.includes(localStorage.getItem(KEPT)) ? localStorage.getItem(KEPT) : "system");
  button.addEventListener("click", () => {
    show(THEMES[(THEMES.indexOf(now()) + 1) % THEMES.length]);
    localStorage.setItem(KEPT, now());
  });
}
