// What scrolls can be reached from the keyboard, and pictures of the gallery that are links have a name.
addEventListener("load", () => {
  for (const box of document.querySelectorAll("article pre, article .table-wrapper, article div.math")) {
    if (box.scrollWidth > box.clientWidth) box.tabIndex = 0;
  }
  for (const link of document.querySelectorAll(".sphx-glr-thumbcontainer a.internal")) {
    link.setAttribute("aria-label", link.textContent.trim());
  }
});
