"use strict";
// The page's inputs hold the verdicts. Each change is stored in the browser; the button saves the verdicts to a file.
(() => {
  const samples = [...document.querySelectorAll("article.sample")];
  const status = document.querySelector("[role=status]");
  const storageKey = `act2see-review-${document.body.dataset.review}`;
  const chosen = (sample) => sample.querySelector("input:checked")?.value ?? "";
  const comment = (sample) => sample.querySelector("textarea");

  function showStatus(stored) {
    const count = (verdict) => samples.filter((s) => chosen(s) === verdict).length;
    const [accepted, rejected] = [count("accept"), count("reject")];
    status.textContent = `${accepted + rejected} of ${samples.length} judged: ${accepted} accepted, ${rejected} rejected.`
      + (stored ? "" : " This browser does not store verdicts: save them before you leave.");
    for (const sample of samples) {
      sample.classList.toggle("accept", chosen(sample) === "accept");
      sample.classList.toggle("reject", chosen(sample) === "reject");
    }
  }

  function store() {
    const state = Object.fromEntries(samples.map((s) => [s.dataset.key, [chosen(s), comment(s).value]]));
    try {
      localStorage.setItem(storageKey, JSON.stringify(state));
      showStatus(true);
    } catch {
      showStatus(false);
    }
  }

  function restore() {
    let state = {};
    try {
      state = JSON.parse(localStorage.getItem(storageKey)) ?? {};
    } catch {
      // Nothing was stored, or the storage cannot be read.
    }
    for (const sample of samples) {
      const [verdict, text] = state[sample.dataset.key] ?? ["", ""];
      for (const input of sample.querySelectorAll("input")) input.checked = input.value === verdict;
      comment(sample).value = text;
    }
    store();
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

  // The index of the current sample: the one with the focus, or else the first one in view.
  function current() {
    const focused = samples.indexOf(document.activeElement.closest("article.sample"));
    const below = document.querySelector(".desk").getBoundingClientRect().bottom + 1;
    return focused >= 0 ? focused : Math.max(0, samples.findIndex((s) => s.getBoundingClientRect().bottom > below));
  }

  function goTo(index) {
    samples[index]?.focus({ preventScroll: true });
    samples[index]?.scrollIntoView();
  }

  const keys = {
    j: () => goTo(document.activeElement === document.body && scrollY === 0 ? 0 : current() + 1),
    k: () => goTo(current() - 1),
    a: () => samples[current()].querySelector("input[value=accept]").click(),
    r: () => samples[current()].querySelector("input[value=reject]").click(),
    c: () => comment(samples[current()]).focus(),
  };

  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.altKey || event.metaKey) return;
    if (event.target instanceof HTMLTextAreaElement) {
      if (event.key === "Escape") samples[current()].focus();
    } else if (Object.hasOwn(keys, event.key)) {
      event.preventDefault();
      keys[event.key]();
    }
  });
  document.addEventListener("input", store);
  document.querySelector("#save").addEventListener("click", save);
  restore();
})();
