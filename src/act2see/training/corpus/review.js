"use strict";
// Verdicts live in the page's own inputs; each change is kept in the browser, and the button saves them as a file.
(() => {
  const samples = [...document.querySelectorAll("article.sample")];
  const status = document.querySelector("[role=status]");
  const shelf = `act2see-review-${document.body.dataset.review}`;
  const chosen = (sample) => sample.querySelector("input:checked")?.value ?? "";
  const comment = (sample) => sample.querySelector("textarea");

  function tell(kept) {
    const count = (verdict) => samples.filter((s) => chosen(s) === verdict).length;
    const [accepted, rejected] = [count("accept"), count("reject")];
    status.textContent = `${accepted + rejected} of ${samples.length} judged: ${accepted} accepted, ${rejected} rejected.`
      + (kept ? "" : " This browser keeps nothing: save before you leave.");
    for (const sample of samples) {
      sample.classList.toggle("accept", chosen(sample) === "accept");
      sample.classList.toggle("reject", chosen(sample) === "reject");
    }
  }

  function keep() {
    const state = Object.fromEntries(samples.map((s) => [s.dataset.key, [chosen(s), comment(s).value]]));
    try {
      localStorage.setItem(shelf, JSON.stringify(state));
      tell(true);
    } catch {
      tell(false);
    }
  }

  function restore() {
    let state = {};
    try {
      state = JSON.parse(localStorage.getItem(shelf)) ?? {};
    } catch {
      // Nothing was kept, or it cannot be read.
    }
    for (const sample of samples) {
      const [verdict, words] = state[sample.dataset.key] ?? ["", ""];
      for (const input of sample.querySelectorAll("input")) input.checked = input.value === verdict;
      comment(sample).value = words;
    }
    keep();
  }

  function save() {
    const asked = samples.map((s) => ({ key: s.dataset.key, id: s.dataset.id }));
    const verdicts = samples
      .filter((s) => chosen(s))
      .map((s) => ({ key: s.dataset.key, id: s.dataset.id, accepted: chosen(s) === "accept", comment: comment(s).value.trim() }));
    const file = { verdicts_version: 1, review: document.body.dataset.review, asked, verdicts };
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([JSON.stringify(file, null, 1), "\n"], { type: "application/json" }));
    link.download = "verdicts.json";
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
  }

  // The sample that is worked on: where the focus is, else the first one in view.
  function here() {
    const focused = samples.indexOf(document.activeElement.closest("article.sample"));
    const below = document.querySelector(".desk").getBoundingClientRect().bottom + 1;
    return focused >= 0 ? focused : Math.max(0, samples.findIndex((s) => s.getBoundingClientRect().bottom > below));
  }

  function go(to) {
    samples[to]?.focus({ preventScroll: true });
    samples[to]?.scrollIntoView();
  }

  const keys = {
    j: () => go(document.activeElement === document.body && scrollY === 0 ? 0 : here() + 1),
    k: () => go(here() - 1),
    a: () => samples[here()].querySelector("input[value=accept]").click(),
    r: () => samples[here()].querySelector("input[value=reject]").click(),
    c: () => comment(samples[here()]).focus(),
  };

  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.altKey || event.metaKey) return;
    if (event.target instanceof HTMLTextAreaElement) {
      if (event.key === "Escape") samples[here()].focus();
    } else if (Object.hasOwn(keys, event.key)) {
      event.preventDefault();
      keys[event.key]();
    }
  });
  document.addEventListener("input", keep);
  document.querySelector("#save").addEventListener("click", save);
  restore();
})();
