// Follows what the server says has changed. Every page also works without this script; it is then reloaded by hand.
"use strict";

// The token came with the address. The cookie has it now, so it need not stay in the history.
if (location.search.includes("token=")) {
  const rest = new URLSearchParams(location.search);
  rest.delete("token");
  history.replaceState(null, "", location.pathname + (rest.size ? `?${rest}` : "") + location.hash);
}

const feed = document.body.dataset.feed;
const said = { live: null, page: null };
let told = "";

function keepWhatIsOpen(part, fresh) {
  const open = new Set([...part.querySelectorAll("details[open]")].map(key));
  const closed = new Set([...part.querySelectorAll("details:not([open])")].map(key));
  for (const one of fresh.querySelectorAll("details")) {
    if (open.has(key(one))) one.open = true;
    else if (closed.has(key(one))) one.open = false;
  }
}

function key(details) {
  return details.id || details.querySelector("summary").textContent;
}

function replace(part, fresh) {
  const focused = part.contains(document.activeElement) ? document.activeElement : null;
  const again = focused && (focused.id ? `#${CSS.escape(focused.id)}` : focused.name && `[name="${CSS.escape(focused.name)}"][value="${CSS.escape(focused.value)}"]`);
  keepWhatIsOpen(part, fresh);
  part.replaceWith(fresh);
  if (again) fresh.querySelector(again)?.focus({ preventScroll: true });
}

function isBeingFilled(part) {
  return [...part.querySelectorAll("textarea")].some((field) => field.value) || part.querySelector(".said form");
}

async function loadAgain(version) {
  if (!version || version === document.body.dataset.version) return;
  const answer = await fetch(location.pathname, { credentials: "same-origin" }).catch(() => null);
  if (!answer?.ok) return;
  const page = new DOMParser().parseFromString(await answer.text(), "text/html");
  document.body.dataset.version = page.body.dataset.version ?? version;
  document.title = page.title;
  let skipped = false;
  for (const fresh of page.querySelectorAll("header.top, main > section[id], section.output")) {
    const part = fresh.id ? document.getElementById(fresh.id) : document.querySelector("header.top");
    if (fresh.id === "live" || !part || part.outerHTML === fresh.outerHTML) continue;
    if (isBeingFilled(part)) {
      skipped = true; // what somebody is typing stays; the server refuses it if it is outdated
      continue;
    }
    const ticked = new Set([...part.querySelectorAll("input[type=checkbox]:checked")].map((box) => box.value));
    for (const box of fresh.querySelectorAll("input[type=checkbox]")) if (ticked.has(box.value)) box.checked = true;
    replace(part, document.adoptNode(fresh));
  }
  countTicked();
  if (skipped) {
    document.body.dataset.version = "";
    setTimeout(() => loadAgain(said.page), 5000);
  }
}

function showLive(html) {
  const part = document.getElementById("live");
  if (!part) return;
  const fresh = part.cloneNode(false);
  fresh.innerHTML = html; // made by our templates, which escape every text of a run; scripts in it would not run
  replace(part, fresh);
  const now = fresh.querySelector(".now")?.textContent ?? "";
  if (now !== told) document.getElementById("status").textContent = told = now;
}

function show(kind, value) {
  said[kind] = value;
  if (kind === "live") showLive(value);
  else loadAgain(value);
}

// A browser opens six connections to a server: of all tabs with the same run, one listens and tells the others.
const channel = feed && "BroadcastChannel" in window ? new BroadcastChannel(`initsearch ${feed}`) : null;
let leads = false;

function listen(signal) {
  return new Promise((resolve) => {
    if (signal.aborted) return resolve();
    leads = true;
    const source = new EventSource(feed);
    for (const kind of ["live", "page"]) {
      source.addEventListener(kind, (event) => {
        const value = JSON.parse(event.data);
        show(kind, value);
        channel?.postMessage({ kind, value });
      });
    }
    source.onerror = () => document.body.classList.add("lost");
    source.onopen = () => document.body.classList.remove("lost");
    signal.addEventListener("abort", () => {
      source.close();
      leads = false;
      resolve();
    });
  });
}

function follow() {
  let stop = null;
  if (channel) {
    channel.onmessage = ({ data }) => {
      if (data.kind !== "hello") show(data.kind, data.value);
      else if (leads) for (const kind of ["live", "page"]) if (said[kind] !== null) channel.postMessage({ kind, value: said[kind] });
    };
    channel.postMessage({ kind: "hello" });
  }
  const turn = () => {
    stop?.abort();
    stop = null;
    if (document.hidden) return;
    stop = new AbortController();
    const { signal } = stop;
    if (channel && navigator.locks) {
      navigator.locks.request(`initsearch ${feed}`, { signal }, () => listen(signal)).catch(() => {});
    } else {
      listen(signal);
    }
  };
  document.addEventListener("visibilitychange", turn);
  turn();
}

function countTicked() {
  const button = document.getElementById("compare");
  if (button) button.disabled = document.querySelectorAll("#shelf input[type=checkbox]:checked").length < 2;
}

// The order of ticking is the order of the comparison.
const order = [];
document.addEventListener("change", (event) => {
  if (!event.target.matches("#shelf input[type=checkbox]")) return;
  const at = order.indexOf(event.target.value);
  if (at >= 0) order.splice(at, 1);
  if (event.target.checked) order.push(event.target.value);
  countTicked();
});
document.addEventListener("submit", (event) => {
  if (event.target.getAttribute("action") !== "/compare") return;
  event.preventDefault();
  const ticked = [...document.querySelectorAll("#shelf input[type=checkbox]:checked")].map((box) => box.value);
  const names = [...order.filter((name) => ticked.includes(name)), ...ticked.filter((name) => !order.includes(name))];
  location.assign(`/compare?${new URLSearchParams(names.map((name) => ["run", name]))}`);
});

// A click on a line's number opens the form for a comment below that line.
document.addEventListener("click", (event) => {
  const link = event.target.closest("a.say");
  const form = document.getElementById("remark-form");
  if (link && form) {
    event.preventDefault();
    document.querySelector(".said form")?.closest("tr").remove();
    const row = document.importNode(form.content, true).firstElementChild;
    row.querySelector("[name=line]").value = link.dataset.line;
    row.querySelector(".line-number").textContent = link.dataset.line;
    let after = link.closest("tr");
    while (after.nextElementSibling?.classList.contains("said")) after = after.nextElementSibling;
    after.after(row);
    row.querySelector("textarea").focus();
  }
  if (event.target.closest(".cancel")) {
    const row = event.target.closest("tr");
    const line = row.querySelector("[name=line]").value;
    row.remove();
    document.getElementById(`L${line}`)?.focus();
  }
});
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape") event.target.closest(".said form")?.querySelector(".cancel").click();
});

countTicked();
if (feed) follow();
