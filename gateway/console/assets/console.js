// What the pages can do without, and are better with: a button to copy, and numbers that are read again.
"use strict";

const words = document.body.dataset;

for (const block of document.querySelectorAll("[data-copyable]")) {
  const button = document.createElement("button");
  button.type = "button";
  button.className = "copy";
  button.textContent = words.copy;
  button.addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(block.textContent);
      button.textContent = words.copied;
    } catch {
      getSelection().selectAllChildren(block);
    }
    setTimeout(() => { button.textContent = words.copy; }, 2000);
  });
  block.parentElement.querySelector(".codehead").append(button);
}

// On a phone the operators' pages are folded away: without a script they stand above what was asked for.
const side = document.querySelector(".side details");
if (side && matchMedia("(max-width: 800px)").matches) side.open = false;

const seconds = Number(words.live);
if (seconds > 0) {
  const refresh = document.querySelector("[data-refresh]");
  const updated = document.querySelector("[data-updated]");
  const button = document.createElement("button");
  let paused = false;
  button.type = "button";
  button.className = "quiet";
  button.textContent = words.paused;
  button.addEventListener("click", () => {
    paused = !paused;
    button.textContent = paused ? words.resume : words.paused;
  });
  refresh.after(" ", button);

  const again = async () => {
    if (paused || document.hidden || getSelection().type === "Range") return;
    try {
      const reply = await fetch(location.href, { credentials: "same-origin", redirect: "error", headers: { "Postern-Live": "1" } });
      if (!reply.ok) return;
      const page = new DOMParser().parseFromString(await reply.text(), "text/html");
      for (const part of document.querySelectorAll("[data-part]")) {
        const next = page.querySelector(`[data-part="${part.dataset.part}"]`);
        if (!next || part.contains(document.activeElement)) continue;
        const open = [...part.querySelectorAll("details")].map((d) => d.open);
        next.querySelectorAll("details").forEach((d, i) => { d.open = open[i] ?? d.open; });
        part.replaceChildren(...next.childNodes);
      }
      updated.textContent = page.querySelector("[data-updated]")?.textContent ?? updated.textContent;
      if (!page.body.dataset.live) location.reload(); // what was under way is over
    } catch {
      // the gateway is being restarted, or the network is gone: the next round tries again
    }
  };
  setInterval(again, (document.querySelector("progress") ? 1 : seconds) * 1000);
}
