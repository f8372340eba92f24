// Live pages: one socket, topics with cursors, the server's own HTML swapped in. Pages work without it; it only saves the reload.
"use strict";
(() => {
  const root = document.querySelector("[data-topic], [data-topics]");
  if (!root || root.dataset.topic === "" || root.dataset.topic === "process:") return;
  const state = document.querySelector(".live");
  const calm = matchMedia("(prefers-reduced-motion: reduce)").matches;
  const cursors = root.dataset.topics ? JSON.parse(root.dataset.topics) : { [root.dataset.topic]: Number(root.dataset.cursor || 0) };
  if (root.dataset.also) cursors[root.dataset.also] = Number(root.dataset.alsoCursor || 0);
  let socket = null, tries = 0, refreshing = false, again = false, gone = "";

  const say = (text) => { if (state) { state.hidden = !text; state.textContent = text; } };

  function loggedOut() {
    say("You are logged out, so this page is not live any more. ");
    if (!state) return;
    const link = document.createElement("a");
    link.href = "/login/?next=" + encodeURIComponent(location.pathname + location.search);
    link.textContent = "Log in again";
    state.append(link);
  }

  function connect() {
    socket = new WebSocket((location.protocol === "https:" ? "wss://" : "ws://") + location.host + "/live/");
    socket.onopen = () => {
      tries = 0; say(gone);
      for (const topic in cursors) socket.send(JSON.stringify({ subscribe: topic, since: cursors[topic] }));
    };
    socket.onmessage = (message) => { for (const frame of JSON.parse(message.data)) take(frame); };
    socket.onclose = (event) => {
      if (event.code === 4401) { loggedOut(); return; }
      say("Not live just now; connecting again …");
      const wait = Math.min(30000, 500 * 2 ** tries++) * (0.5 + Math.random());
      setTimeout(connect, wait);
    };
  }

  function take(frame) {
    if (frame.closed) { say(frame.closed); return; }
    if (frame.resync) { cursors[frame.topic] = Math.max(cursors[frame.topic] || 0, frame.upto || 0); resync(); return; }
    if (frame.upto <= (cursors[frame.topic] || 0)) return;
    cursors[frame.topic] = frame.upto;
    if (frame.lines) frame.lines.forEach(addLine);
    if (frame.cards) cards(frame);
    if (root.dataset.reload && frame.news && frame.news.includes(root.dataset.reload)) location.reload();
  }

  function element(html) {
    const box = document.createElement("template");
    box.innerHTML = html.trim();
    return box.content.firstElementChild;
  }

  function addLine(line) {
    const log = document.getElementById("log");
    if (!log || log.querySelector(`[data-seq="${line.seq}"]`)) return;
    const atEnd = log.scrollHeight - log.scrollTop - log.clientHeight < 40;
    log.append(element(line.html));
    while (log.childElementCount > 3000) log.firstElementChild.remove();
    if (atEnd) log.scrollTop = log.scrollHeight;
  }

  function cards(frame) {
    if (root.dataset.refresh) { refresh(); return; }
    if (root.dataset.storyPage) {
      const deleted = frame.news && frame.news.includes("deleted");
      if (deleted || frame.cards.some((card) => String(card.story) === root.dataset.storyPage)) refresh();
      return;
    }
    if (frame.news && frame.news.includes("project")) { refresh(); return; }
    const needs = (frame.news && frame.news.includes("needs")) || frame.cards.some(wants);
    frame.cards.forEach(place);
    if (needs) refreshNeeds();
  }

  // Whether a card comes to, stands in or leaves a place where people are waited for.
  function wants(card) {
    const old = document.querySelector(`.card[data-story="${card.story}"]`);
    const from = old && old.parentElement.dataset.stage;
    return [card.stage, from].some((stage) => ["blocked", "merge_failure", "qa"].includes(stage)) || card.html.includes('class="why bad"');
  }

  let asking = false, askAgain = false;
  async function refreshNeeds() {
    const list = document.getElementById("needs");
    if (!list) return;
    if (asking) { askAgain = true; return; }
    asking = true;
    try {
      const answer = await fetch("?part=needs", { headers: { "X-Requested-With": "fetch" } });
      if (answer.ok && !answer.redirected) list.innerHTML = await answer.text();
    } catch { /* the socket tells when the server is away */ }
    asking = false;
    if (askAgain) { askAgain = false; setTimeout(refreshNeeds, 150); }
  }

  // A card glides from where it was to where it is (first, last, invert, play).
  function place(card) {
    const old = document.querySelector(`.card[data-story="${card.story}"]`);
    const stack = document.querySelector(`.stack[data-stage="${card.stage}"]`);
    const from = old && old.getBoundingClientRect();
    const moved = !old || !stack || old.parentElement !== stack;
    const fresh = element(card.html);
    if (old && !moved) { old.replaceWith(fresh); } else {
      if (old) old.remove();
      if (stack) {
        const before = [...stack.children].find((other) => Number(other.dataset.number) > card.number);
        if (card.stage === "done") stack.prepend(fresh); else stack.insertBefore(fresh, before || null);
      }
      count();
    }
    if (moved && from && stack && !calm && fresh.animate) {
      const to = fresh.getBoundingClientRect();
      fresh.animate([{ transform: `translate(${from.left - to.left}px, ${from.top - to.top}px)` }, { transform: "none" }], { duration: 350, easing: "ease-out" });
    }
  }

  function count() {
    document.querySelectorAll(".column").forEach((column) => {
      if (!column.querySelector(":scope > p")) column.querySelector("[data-count]").textContent = column.querySelector(".stack").childElementCount;
    });
  }

  function resync() { if (root.dataset.log) location.reload(); else refresh(); }

  // The page's part again, from the server; one at a time, and once more if something came meanwhile.
  async function refresh() {
    if (!root.dataset.part) return;
    if (refreshing) { again = true; return; }
    refreshing = true;
    try {
      const answer = await fetch(root.dataset.part, { headers: { "X-Requested-With": "fetch" } });
      if (answer.redirected) {  // to the log-in page, which is no part of this one
        loggedOut();
      } else if (answer.status === 404) {
        gone = "What this page shows is not there any more, or you may not see it any more.";
        say(gone);
      } else if (answer.ok) {
        const html = await answer.text();
        const id = root.dataset.partId || "part";
        const part = document.getElementById(id);
        const typing = part.contains(document.activeElement) && document.activeElement.matches("input, textarea, select");
        const key = (one, n) => one.dataset.key || n;  // what is open stays open, also when another one comes or goes
        const open = new Set([...part.querySelectorAll("details")].map((one, n) => one.open ? key(one, n) : ""));
        if (!typing) {
          const box = document.createElement("template");
          box.innerHTML = html;
          const found = root.dataset.partId ? box.content.getElementById(id) : null;
          part.replaceChildren(...(found ? found.childNodes : box.content.childNodes));
          part.querySelectorAll("details").forEach((one, n) => { if (open.has(key(one, n))) one.open = true; });
        }
      }
    } catch { /* the socket tells when the server is away */ }
    refreshing = false;
    if (again) { again = false; setTimeout(refresh, 150); }
  }

  const log = document.getElementById("log");
  if (log) log.scrollTop = log.scrollHeight;
  // "For 14 min" grows without any news.
  if (root.dataset.refresh) setInterval(() => { if (!document.hidden) refresh(); }, Number(root.dataset.refresh) * 1000);
  connect();
})();
