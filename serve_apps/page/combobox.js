/** A search box with suggestions: the combobox pattern of the ARIA Authoring Practices, list autocomplete. */

import { element } from "./element.js";

const QUIET_MS = 120;

/**
 * `input` is a role=combobox whose aria-controls names its list.
 * search(text, signal) -> options; label(option) -> node; choose(option); free(text): Enter without an option.
 */
export function combobox(input, { search, label, choose, free = null }) {
  const list = document.getElementById(input.getAttribute("aria-controls"));
  let options = [];
  let active = -1;
  let timer = 0;
  let asking = new AbortController();

  const close = () => {
    clearTimeout(timer);
    asking.abort();
    options = [];
    show();
  };
  const show = (note = null) => {
    active = -1;
    list.replaceChildren(
      ...(note ? [element("li", { class: "note", role: "option", "aria-disabled": "true" }, note)] : options.map(row)),
    );
    list.hidden = !note && options.length === 0;
    list.scrollTop = 0;
    mark();
  };
  const row = (option, index) =>
    element(
      "li",
      { id: `${list.id}-${index}`, role: "option", "aria-selected": "false", onclick: () => pick(option) },
      label(option),
    );
  const mark = () => {
    input.setAttribute("aria-expanded", String(!list.hidden));
    [...list.children].forEach((child, index) => child.setAttribute("aria-selected", String(index === active)));
    if (active < 0) return input.removeAttribute("aria-activedescendant");
    input.setAttribute("aria-activedescendant", list.children[active].id);
    list.children[active].scrollIntoView({ block: "nearest" });
  };
  const pick = (option) => {
    close();
    choose(option);
  };
  const look = async () => {
    asking.abort();
    asking = new AbortController();
    const { signal } = asking;
    const found = await search(input.value.trim(), signal);
    if (signal.aborted) return;
    options = found;
    show(found.length ? null : "Nothing found");
  };
  const later = () => {
    clearTimeout(timer);
    timer = setTimeout(look, QUIET_MS);
  };
  const step = (by) => {
    if (!options.length) return later();
    active = (active + by + (active < 0 && by < 0 ? 1 : 0) + options.length) % options.length;
    return mark();
  };
  const enter = () => {
    const text = input.value.trim();
    if (active >= 0) pick(options[active]);
    else if (free && text) {
      close();
      free(text);
    }
  };
  const keys = { ArrowDown: () => step(1), ArrowUp: () => step(-1), Enter: enter, Escape: close };

  input.addEventListener("keydown", (event) => {
    if (event.isComposing || !keys[event.key]) return;
    event.preventDefault();
    keys[event.key]();
  });
  input.addEventListener("input", later);
  input.addEventListener("click", () => list.hidden && later());
  input.addEventListener("blur", close);
  // Keeps the focus, so that no blur comes before the click.
  list.addEventListener("pointerdown", (event) => event.preventDefault());
}
