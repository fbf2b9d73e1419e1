// A function of the least contrast: what of the page is hard to read, or not on the screen.
(least) => {
  const canvas = new OffscreenCanvas(1, 1).getContext("2d", { willReadFrequently: true });

  // Whatever a style calls a colour, as red, green, blue of 0 to 255, and the opacity of 0 to 1.
  const colour = (text) => {
    canvas.clearRect(0, 0, 1, 1);
    canvas.fillStyle = text;
    canvas.fillRect(0, 0, 1, 1);
    const [red, green, blue, alpha] = canvas.getImageData(0, 0, 1, 1).data;
    return [red, green, blue, alpha / 255];
  };
  const over = (top, below) => [
    ...[0, 1, 2].map((at) => top[at] * top[3] + below[at] * (1 - top[3])), 1,
  ];
  const ancestors = function* (element) {
    for (let at = element; at; at = at.parentElement) yield at;
  };
  const ground = (element) => {
    const layers = [...ancestors(element)].map((at) => colour(getComputedStyle(at).backgroundColor));
    return layers.reduceRight((below, top) => over(top, below), [255, 255, 255, 1]);
  };
  const luminance = ([red, green, blue]) => {
    const [r, g, b] = [red, green, blue].map((value) => {
      const part = value / 255;
      return part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4;
    });
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const contrast = (one, other) => {
    const [high, low] = [luminance(one), luminance(other)].sort((a, b) => b - a);
    return (high + 0.05) / (low + 0.05);
  };

  const faint = [];
  let seen = 0;
  const look = (element, style, text) => {
    const below = ground(element);
    const ink = colour(element instanceof SVGElement ? style.fill : style.color);
    for (const at of ancestors(element)) ink[3] *= Number(getComputedStyle(at).opacity);
    const found = contrast(over(ink, below), below);
    if (found < least) faint.push(`${text.trim()}: ${found.toFixed(2)}`);
    seen += 1;
  };
  const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (texts.nextNode()) {
    const element = texts.currentNode.parentElement;
    if (!texts.currentNode.data.trim() || !element.checkVisibility()) continue;
    if (!element.closest("noscript, script")) look(element, getComputedStyle(element), texts.currentNode.data);
  }
  const shown = [...document.querySelectorAll("body *")].filter((each) => each.checkVisibility());
  for (const element of shown) {
    const before = getComputedStyle(element, "::before");
    if (/^".+"$/.test(before.content)) look(element, before, before.content);
  }

  const root = document.documentElement;
  // What a card holds may not stand out of it either.
  const edge = (each) => {
    const card = each.parentElement.closest(".card, tbody tr, .half");
    return card ? card.getBoundingClientRect().right : root.clientWidth;
  };
  const wider = shown
    .filter((each) => !each.closest(".unseen, thead, svg"))
    .filter((each) => each.getBoundingClientRect().right > edge(each) + 1)
    .map((each) => `${each.tagName} ${each.className}: ${each.textContent.slice(0, 60)}`);
  return { faint, seen, wider, scrolls: root.scrollWidth > root.clientWidth };
}
