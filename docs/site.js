// Names and keyboard access for parts that the theme adds to pages.
const complete = () => {
  document.querySelectorAll(".md-code__nav").forEach((nav, place) => nav.setAttribute("aria-label", `code ${place + 1}`));
  document.querySelector(".md-search")?.setAttribute("aria-label", "search");
  document.querySelectorAll(".md-typeset__scrollwrap").forEach((table) => table.setAttribute("tabindex", "0"));
};
new MutationObserver(complete).observe(document.body, { childList: true, subtree: true });
complete();
