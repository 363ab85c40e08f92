"use strict";
const all = (where, what) => [...where.querySelectorAll(what)];
const make = (kind, text, act) => {
  const made = document.createElement(kind);
  made.textContent = text;
  if (act) made.addEventListener("click", act);
  return made;
};
const text = cell => cell.textContent.trim();
const number = cell => parseFloat(text(cell).replaceAll("−", "-"));

// A table is sorted by its column's head; numbers as numbers, by what stands before ±; what is no number stays below.
const sort = head => {
  const i = head.cellIndex, down = head.ariaSort === "ascending", body = head.closest("table").tBodies[0];
  for (const other of head.parentNode.cells) other.removeAttribute("aria-sort");
  head.setAttribute("aria-sort", down ? "descending" : "ascending");
  body.append(...[...body.rows].sort((a, b) => {
    const [x, y] = [number(a.cells[i]), number(b.cells[i])];
    if (isNaN(x) !== isNaN(y)) return isNaN(x) ? 1 : -1;
    return (down ? -1 : 1) * (isNaN(x) ? text(a.cells[i]).localeCompare(text(b.cells[i])) : x - y);
  }));
};

// What is seen of a table, as text for a spreadsheet or a paper.
const seen = table => [...table.rows].filter(row => !row.hidden).map(row => [...row.cells].filter(c => !c.hidden).map(text));
const csv = rows => rows.map(row => row.map(cell => {
  const plain = cell.replace(/^−(?=[\d.])/, "-");
  return /[",\n]/.test(plain) ? `"${plain.replaceAll('"', '""')}"` : plain;
}).join(",")).join("\n");
const SIGNS = { "\\": "\\textbackslash{}", "±": "$\\pm$", "−": "$-$", "—": "---", "†": "$\\dagger$", "ℓ": "$\\ell$", "φ": "$\\varphi$", "μ": "$\\mu$", "Σ": "$\\Sigma$", "‖": "$\\|$" };
const tex = cell => cell.replace(/[&%$#_{}]|[\\±−—†ℓφμΣ‖]|[₀-₉]/g, sign =>
  SIGNS[sign] ?? ("₀" <= sign && sign <= "₉" ? `$_{${sign.charCodeAt(0) - 8320}}$` : `\\${sign}`)).replaceAll("$$", "").replaceAll("}_{", "");
const latex = rows => {
  const [head, ...lines] = rows.map(row => `${row.map(tex).join(" & ")} \\\\`);
  return [`\\begin{tabular}{l${"r".repeat(rows[0].length - 1)}}`, "\\hline", head, "\\hline", ...lines, "\\hline", "\\end{tabular}"].join("\n");
};
const copy = async (content, button) => {
  try {
    await navigator.clipboard.writeText(content);
  } catch {
    const area = document.body.appendChild(make("textarea", content));
    area.select();
    document.execCommand("copy");
    area.remove();
  }
  const name = button.textContent;
  button.textContent = "copied";
  setTimeout(() => { button.textContent = name; }, 1200);
};

for (const box of all(document, ".table")) {
  const [tools, scroll, table] = [box.querySelector(".tools"), box.querySelector(".scroll"), box.querySelector("table")];
  for (const head of table.tHead.rows[0].cells) {
    const name = text(head);
    if (name) head.replaceChildren(make("button", name, () => sort(head)));
  }
  for (const [name, form] of [["copy CSV", csv], ["copy LaTeX", latex]]) {
    tools.append(make("button", name, event => copy(form(seen(table)), event.target)));
  }
  const cue = tools.appendChild(make("span", ""));
  const look = () => {
    const edge = scroll.scrollLeft + scroll.clientWidth;
    const more = [...table.tHead.rows[0].cells].filter(cell => !cell.hidden && cell.offsetLeft + cell.offsetWidth > edge + 2).length;
    cue.textContent = more ? `${more} more column${more > 1 ? "s" : ""} to the right →` : "";
  };
  scroll.addEventListener("scroll", look);
  new ResizeObserver(look).observe(scroll);
  tools.hidden = false;
}

// One choice of problem and method for all tables: rows that have such a column, and columns that are named by a method.
const columns = table => [...table.tHead.rows[0].cells].map(text);
const values = name => new Set(all(document, "table").flatMap(table => {
  const i = columns(table).indexOf(name);
  return i < 0 ? [] : [...table.tBodies[0].rows].map(row => text(row.cells[i]));
}));
const chosen = {}, known = { problem: values("problem"), method: values("method") };
const filter = () => {
  for (const table of all(document, "table")) {
    const heads = columns(table);
    for (const row of table.tBodies[0].rows) {
      row.hidden = heads.some((name, i) => chosen[name] && text(row.cells[i]) !== chosen[name]);
    }
    if (!heads.includes("problem")) continue;
    for (const row of table.rows) heads.forEach((name, i) => {
      row.cells[i].hidden = Boolean(chosen.method) && known.method.has(name) && name !== chosen.method;
    });
  }
};
const bar = document.querySelector("nav .tools");
for (const [name, found] of Object.entries(known)) {
  if (found.size < 2) continue;
  const label = bar.appendChild(make("label", `${name} `)), select = label.appendChild(make("select", ""));
  for (const value of ["", ...found]) select.append(Object.assign(make("option", value || "all"), { value }));
  select.addEventListener("change", () => { chosen[name] = select.value; filter(); });
}

// Parts unfold on request, where a link leads to them, and on paper.
const parts = all(document, "details");
const unfold = open => { for (const part of parts) part.open = open; };
const arrive = () => {
  const part = location.hash && document.getElementById(location.hash.slice(1));
  if (part?.tagName === "DETAILS") { part.open = true; part.scrollIntoView(); }
};
if (parts.length) bar.append(make("button", "unfold all", event => {
  const open = event.target.textContent === "unfold all";
  unfold(open);
  event.target.textContent = open ? "fold all" : "unfold all";
}));
bar.hidden = !bar.childElementCount;
addEventListener("hashchange", arrive);
for (const link of all(document, "nav a")) link.addEventListener("click", () => setTimeout(arrive));
addEventListener("beforeprint", () => { for (const part of parts) part.dataset.was = part.open; unfold(true); });
addEventListener("afterprint", () => { for (const part of parts) part.open = part.dataset.was === "true"; });
arrive();

// Pictures grow by a click; of several, a slider shows one.
for (const figure of all(document, "figure")) {
  const pictures = all(figure, "img"), caption = figure.querySelector("figcaption");
  const grow = make("button", "larger", () => {
    grow.textContent = figure.classList.toggle("large") ? "smaller" : "larger";
  });
  for (const picture of pictures) picture.addEventListener("click", () => grow.click());
  const tools = make("div", "");
  tools.className = "tools";
  tools.append(grow);
  if (pictures.length > 1) {
    const slider = Object.assign(make("input", ""), { type: "range", min: 0, max: pictures.length - 1, ariaLabel: "which picture" });
    slider.value = pictures.length - 1;
    slider.addEventListener("input", () => pictures.forEach((picture, i) => { picture.hidden = i !== Number(slider.value); }));
    tools.append(slider);
  }
  caption.before(tools);
}
