// When Gradio's page has lost the server, it drops every event until it finds the server again and reloads
// itself. Until then its controls are disabled, as they are before the server has answered for the first time.
new MutationObserver((_, observer) => {
  const notices = document.querySelectorAll(".toast-body");
  if (![...notices].some((notice) => notice.textContent.includes("Connection to the server was lost"))) return;
  delete document.body.dataset.ready;
  document.querySelector("main").inert = true;
  observer.disconnect();
}).observe(document, { childList: true, subtree: true });
