// When Gradio's page has lost the connection, it drops all events until it reaches the server again and reloads
// itself. Until then the controls are disabled, as they are before the server's first answer.
new MutationObserver((_, observer) => {
  const notices = document.querySelectorAll(".toast-body");
  if (![...notices].some((notice) => notice.textContent.includes("Connection to the server was lost"))) return;
  delete document.body.dataset.ready;
  document.querySelector("main").inert = true;
  observer.disconnect();
}).observe(document, { childList: true, subtree: true });
