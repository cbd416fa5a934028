// Elements without markup in strings: what comes from a model or a file is text, never HTML.

export function element(tag, properties = {}, ...children) {
  const out = Object.assign(document.createElement(tag), properties);
  out.append(...children);
  return out;
}

// Rows of a <dl>: [name, value, class of the name].
export function numbers(list, rows) {
  list.replaceChildren(...rows.flatMap(([name, value, kind]) => [
    element("dt", { className: kind ?? "" }, name), element("dd", {}, value),
  ]));
}
