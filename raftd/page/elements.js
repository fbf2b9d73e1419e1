// Elements that are made once and change only where what they say changes.

export function byId(id) {
  return document.getElementById(id);
}

export function make(tag, className = "", text = "") {
  const made = document.createElement(tag);
  if (className) made.className = className;
  if (text) made.textContent = text;
  return made;
}

const SVG = "http://www.w3.org/2000/svg";

export function makeSvg(tag, attributes = {}, text = "") {
  const made = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  if (text) made.textContent = text;
  return made;
}

/** Set the text of an element, unless it is there already. */
export function say(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

export function set(element, name, value) {
  if (element.getAttribute(name) !== value) element.setAttribute(name, value);
}

/** Show text in which commands stand between backticks. */
export function sayWithCommands(element, text) {
  if (element.dataset.said === text) return;
  element.dataset.said = text;
  element.replaceChildren(
    ...text.split("`").map((part, at) => (at % 2 ? make("code", "", part) : document.createTextNode(part))),
  );
}

/** Make the children of `parent` those of `items`, keeping the elements of those that stay. */
export function list(parent, items, keyOf, create, update) {
  const known = new Map();
  for (const child of parent.children) known.set(child.dataset.key, child);
  const taken = new Set();
  items.forEach((item, at) => {
    let key = String(keyOf(item, at));
    // Two events may say the same in the same millisecond.
    while (taken.has(key)) key += "+";
    taken.add(key);
    let child = known.get(key);
    known.delete(key);
    if (!child) {
      child = create(item);
      child.dataset.key = key;
    }
    if (parent.children[at] !== child) parent.insertBefore(child, parent.children[at] ?? null);
    update(child, item, at);
  });
  for (const child of known.values()) child.remove();
}

export function part(parent, name) {
  return parent.querySelector(`[data-part="${name}"]`);
}

export function makePart(tag, name, className = "") {
  const made = make(tag, className);
  made.dataset.part = name;
  return made;
}
