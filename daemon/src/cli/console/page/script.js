// The console: asks once a second what the daemon says, and shows it. Whatever comes from outside is set as text, never as markup.
"use strict";

(() => {
  const ASK_EVERY = 1000;
  const ANSWER_WITHIN = 15000;
  // Lanes of the drawing; the rest is in the table.
  const LANES = 12;
  const SVG = "http://www.w3.org/2000/svg";

  const by = id => document.getElementById(id);
  const hide = (node, hidden) => { if (node.hidden !== hidden) node.hidden = hidden; };
  // What does not change is not touched: a selection, and what a screen reader reads, stay where they are.
  const say = (node, text) => { if (node.textContent !== text) node.textContent = text; };
  const mark = (node, name, value) => {
    if (value === undefined || value === null || value === "") node.removeAttribute(name);
    else if (node.getAttribute(name) !== String(value)) node.setAttribute(name, value);
  };

  // ---- Words ----

  const UNITS = ["kB", "MB", "GB", "TB", "PB"];
  const bytes = count => {
    if (count < 1000) return `${Math.round(count)} B`;
    let unit = -1;
    do { count /= 1000; unit += 1; } while (count >= 999.95 && unit + 1 < UNITS.length);
    return `${count.toFixed(1)} ${UNITS[unit]}`;
  };
  const rate_of = count => `${bytes(count)}/s`;
  const rate_or_dash = count => count > 0 ? rate_of(count) : "–";
  const age = seconds => {
    const [minutes, hours, days] = [60, 3600, 86400].map(unit => Math.floor(seconds / unit));
    const whole = (text, rest, unit) => rest === 0 ? text : `${text} ${rest} ${unit}`;
    if (minutes === 0) return `${seconds} s`;
    if (hours === 0) return whole(`${minutes} min`, seconds % 60, "s");
    if (days === 0) return whole(`${hours} h`, minutes % 60, "min");
    return whole(`${days} d`, hours % 24, "h");
  };
  const short = id => id.slice(0, 8);
  const counted = (count, what) => `${count} ${what}${count === 1 ? "" : "s"}`;
  const hop = node => `${short(node.node_id)}@${node.addr}`;
  const way = hops => hops.length ? hops.map(hop).join(" › ") : "–";
  const dash = text => text === null || text === "" ? "–" : text;

  // ---- Lists and tables ----

  // As many children as items, each made once and then only changed.
  const children = (parent, items, make, change) => {
    while (parent.children.length > items.length) parent.lastElementChild.remove();
    items.forEach((item, at) => {
      if (at >= parent.children.length) parent.append(make());
      change(parent.children[at], item);
    });
  };

  // A cell is a text, or a text with a class and marks.
  const row = (tr, cells) => children(tr, cells, () => document.createElement("td"), (td, cell) => {
    const { text, kind, ...marks } = typeof cell === "object" ? cell : { text: cell };
    say(td, text);
    mark(td, "class", kind);
    mark(td, "data-state", marks.state);
    mark(td, "data-level", marks.level);
  });
  const number = text => ({ text: String(text), kind: "number" });
  const mono = text => ({ text, kind: "mono" });
  const long = text => ({ text, kind: "long" });
  const plain = text => ({ text, kind: "plain" });

  const table = (name, few, cells, more) => {
    const body = by(`${name}-rows`);
    children(body, few.shown, () => document.createElement("tr"), (tr, one) => row(tr, cells(one)));
    body.closest(".scroll").classList.toggle("empty", few.shown.length === 0);
    const [empty, rest, count] = [by(`${name}-empty`), by(`${name}-more`), by(`${name}-count`)];
    if (empty) hide(empty, few.shown.length > 0);
    hide(rest, few.more === 0);
    say(rest, few.more === 0 ? "" : `and ${few.more} more: ${more}`);
    if (count) say(count, String(few.shown.length + few.more));
  };

  const pairs = (list, facts) => children(list, facts, () => {
    const div = document.createElement("div");
    div.append(document.createElement("dt"), document.createElement("dd"));
    return div;
  }, (div, [name, value]) => {
    say(div.firstElementChild, name);
    say(div.lastElementChild, value);
  });

  // ---- Rates ----

  let before = null;

  // Bytes per second of each connection and of each path, and in all.
  const rates = sample => {
    const { daemon, at_milliseconds: at } = sample;
    const old = before;
    const counts = new Map(daemon.connections.shown.map(one => [one.id, one]));
    before = { at, node: daemon.status.node_id, uptime: daemon.status.uptime_seconds, counts, relayed: daemon.status.relayed_bytes };
    const result = { connections: new Map(), paths: new Map(), sent: 0, received: 0, relayed: 0 };
    // A daemon that was started again counts anew.
    const is_same = old && old.at < at && old.node === before.node && old.uptime <= before.uptime;
    const per_second = (now, then) => is_same ? Math.max(0, now - then) * 1000 / (at - old.at) : 0;
    result.relayed = is_same ? per_second(before.relayed, old.relayed) : 0;
    for (const one of daemon.connections.shown) {
      const then = old && old.counts.get(one.id);
      const sent = then ? per_second(one.sent_bytes, then.sent_bytes) : 0;
      const received = then ? per_second(one.received_bytes, then.received_bytes) : 0;
      result.connections.set(one.id, { sent, received });
      result.sent += sent;
      result.received += received;
      // Not by its nodes: two paths may lead over the same ones.
      const path = result.paths.get(one.own_path) || { sent: 0, received: 0, open: 0 };
      path.sent += sent;
      path.received += received;
      if (one.state !== "closed") path.open += 1;
      result.paths.set(one.own_path, path);
    }
    return result;
  };
  // A connection goes on over its tunnel when a node of the path is lost, and the path is in no list any more.
  const with_ended = ({ paths, connections }) => {
    const there = new Set(paths.shown.map(path => path.id));
    const ended = connections.shown.filter(one =>
      paths.more === 0 && one.state !== "closed" && one.own_path !== null && !there.has(one.own_path));
    const drawn = new Map(ended.map(one => [one.own_path, {
      id: one.own_path, kind: one.direction === "incoming" ? "entry" : "exit", state: "ended", identity: one.identity,
      ready_tunnels: 0, hops: one.own_hops }]));
    return { shown: [...paths.shown, ...drawn.values()], more: paths.more };
  };
  const on_path = (rate, path) => rate.paths.get(path.id) || { sent: 0, received: 0, open: 0 };

  // ---- The drawing ----

  const svg = (name, attributes) => {
    const node = document.createElementNS(SVG, name);
    for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
    return node;
  };
  // 1 from some bytes on, 4 from megabytes on.
  const speed = count => count < 1 ? null : Math.min(4, Math.max(1, Math.floor(Math.log10(count)) - 2));

  const picture = by("picture");
  const lanes = svg("g", {});
  const self = svg("circle", { class: "self", r: 9 });
  const self_name = svg("text", { class: "here", "text-anchor": "middle" });
  picture.append(lanes, self, self_name);
  say(self_name, "this node");

  const lane = () => {
    const group = svg("g", { class: "lane" });
    group.append(svg("path", { class: "rail" }), svg("path", { class: "flow out" }), svg("path", { class: "flow in" }),
      svg("g", { class: "hops" }), svg("text", { class: "what" }), svg("text", { class: "what small" }));
    return group;
  };

  const draw = (paths, rate) => {
    const busy = path => { const on = on_path(rate, path); return on.sent + on.received > 0; };
    // When there are too many, those that carry something stay; the order is always that of the table.
    const wanted = [...paths.shown].sort((one, other) =>
      busy(other) - busy(one) || on_path(rate, other).open - on_path(rate, one).open).slice(0, LANES);
    const drawn = paths.shown.filter(path => wanted.includes(path));
    by("drawing").classList.toggle("empty", drawn.length === 0);
    const listed = some => some.filter(path => path.state !== "ended").length;
    const hidden = listed(paths.shown) + paths.more - listed(drawn);
    say(by("drawing-more"), hidden > 0 ? `and ${hidden} more in the table` : "");

    const width = Math.max(280, Math.round(picture.getBoundingClientRect().width || 900));
    const narrow = width < 640;
    const step = narrow ? 50 : 54;
    const height = Math.max(1, drawn.length) * step + 24;
    const [start, first] = narrow ? [30, 92] : [44, 170];
    const most = Math.max(1, ...drawn.map(path => path.hops.length));
    const last = narrow ? width - 24 : width - 250;
    const gap = most > 1 ? (last - first) / (most - 1) : 0;
    const middle = height / 2;
    mark(picture, "viewBox", `0 0 ${width} ${height}`);
    mark(picture, "height", height);
    mark(self, "cx", start);
    mark(self, "cy", middle);
    mark(self_name, "x", start);
    mark(self_name, "y", middle + 26);
    hide_text(self_name, narrow);

    children(lanes, drawn, lane, (group, path) => {
      const y = 12 + step * (drawn.indexOf(path) + 0.5) + (narrow ? 8 : -4);
      const ends = path.hops.length ? first + gap * (path.hops.length - 1) : first;
      const bend = (first - start) * 0.55;
      const line = `M ${start} ${middle} C ${start + bend} ${middle}, ${first - bend} ${y}, ${first} ${y} L ${ends} ${y}`;
      const on = on_path(rate, path);
      mark(group, "data-state", path.state);
      mark(group, "data-busy", on.sent + on.received > 0);
      const [rail, out, inwards, hops, what, how] = group.children;
      // Side by side where both are.
      mark(rail, "d", line);
      mark(out, "d", line);
      mark(inwards, "d", line);
      const both = on.sent >= 1 && on.received >= 1;
      mark(out, "transform", both ? "translate(0 -4)" : null);
      mark(inwards, "transform", both ? "translate(0 4)" : null);
      mark(out, "data-speed", speed(on.sent));
      mark(inwards, "data-speed", speed(on.received));
      children(hops, path.hops, () => {
        const node = svg("g", {});
        node.append(svg("circle", { class: "node", r: 6 }), svg("text", { class: "small mono", "text-anchor": "middle" }));
        return node;
      }, (node, one) => {
        const x = first + gap * path.hops.indexOf(one);
        mark(node.firstElementChild, "cx", x);
        mark(node.firstElementChild, "cy", y);
        mark(node.lastElementChild, "x", x);
        mark(node.lastElementChild, "y", y + 21);
        say(node.lastElementChild, narrow ? "" : short(one.node_id));
      });
      const identity = path.identity === null ? "" : ` · ${path.identity}`;
      const state = path.state === "ready" ? `${counted(path.ready_tunnels, "tunnel")} ready` : path.state;
      const flowing = [on.sent >= 1 ? `out ${rate_of(on.sent)}` : "", on.received >= 1 ? `in ${rate_of(on.received)}` : ""].filter(Boolean);
      const open = on.open ? counted(on.open, "connection") : "";
      const text = flowing.length ? flowing.join(" · ") : [open, state].filter(Boolean).join(" · ");
      const x = narrow ? first - 6 : last + 44;
      mark(what, "x", x);
      mark(what, "y", narrow ? y - 14 : y - 2);
      say(what, narrow ? `${path.kind}${identity} · ${text}` : `${path.kind}${identity}`);
      mark(how, "x", x);
      mark(how, "y", y + 14);
      say(how, narrow ? "" : text);
    });
  };
  const hide_text = (node, hidden) => mark(node, "visibility", hidden ? "hidden" : null);

  // ---- All of it ----

  const show_state = (state, text) => {
    const line = by("state");
    mark(line, "data-state", state);
    say(line, text);
  };

  const show_lost = why => {
    show_state("lost", "no answer");
    document.title = "Phantom: no answer";
    document.body.classList.add("stale");
    const lost = by("lost");
    hide(lost, false);
    say(lost, why);
    // Nothing moves while nothing is known.
    document.querySelectorAll("#picture .flow").forEach(flow => mark(flow, "data-speed", null));
    before = null;
  };

  const show_warnings = status => {
    const told = status.warnings.filter(one => one.caused_by === null);
    const effects = code => status.warnings.filter(one => one.caused_by === code).map(one => one.code);
    children(by("warnings-list"), told, () => {
      const li = document.createElement("li");
      const about = document.createElement("span");
      about.className = "about";
      li.append(document.createElement("strong"), document.createElement("p"), about);
      return li;
    }, (li, one) => {
      mark(li, "data-severity", one.severity);
      const [text, advice, about] = li.children;
      say(text, one.text);
      say(advice, one.advice);
      const follows = effects(one.code);
      say(about, [one.severity, one.code, `for ${age(one.since_seconds)}`, one.affects_connections ? "connections suffer" : "",
        follows.length ? `also because of it: ${follows.join(", ")}` : ""].filter(Boolean).join(" · "));
    });
    hide(by("warnings-empty"), told.length > 0);
    const count = by("warnings-count");
    say(count, told.length ? String(told.length) : "");
    mark(count, "data-bad", told.some(one => one.severity !== "info") ? "true" : null);
    hide(by("notes"), status.notes.length === 0);
    children(by("notes-list"), status.notes, () => document.createElement("li"), say);
    return told.length;
  };

  const show_now = (daemon, rate) => {
    const { status } = daemon;
    pairs(by("tiles"), [
      ["out now", rate_of(rate.sent)], ["in now", rate_of(rate.received)],
      ["connections", String(status.open_connections)], ["paths", `${status.exit_paths} out, ${status.entry_paths} in`],
      ["tunnels ready", String(status.ready_tunnels)], ["nodes linked", String(status.peers)],
      ["nodes known", String(daemon.known)], ["for others now", rate_of(rate.relayed)],
    ]);
    const is_done = status.start.every(step => step.done);
    hide(by("start"), is_done);
    children(by("start"), is_done ? [] : status.start, () => document.createElement("li"), (li, step) => {
      mark(li, "data-done", step.done);
      const took = `${(step.milliseconds / 1000).toFixed(1)} s`;
      say(li, step.done ? `${step.what}: after ${took}` : `${step.what}: not yet, for ${took}`);
    });
  };

  const show_lists = (daemon, rate) => {
    table("paths", daemon.paths, one => {
      const on = on_path(rate, one);
      return [number(one.id), plain(one.kind), { text: one.state, kind: "plain", state: one.state }, plain(dash(one.identity)), number(age(one.age_seconds)),
        number(one.ready_tunnels), number(rate_or_dash(on.sent)), number(rate_or_dash(on.received)), mono(way(one.hops))];
    }, "phantom path list");
    table("connections", daemon.connections, one => {
      const on = rate.connections.get(one.id);
      const far = one.far_node ? hop(one.far_node) : "(their outermost node)";
      const beyond = one.far_hops ? way(one.far_hops.slice(1)) : "(their path)";
      const moved = one.moves ? `${one.moves} times: ${dash(one.last_move)}` : "–";
      return [number(one.id), plain(one.direction === "outgoing" ? "out" : "in"), { text: one.state, kind: "plain", state: one.state },
        plain(dash(one.identity)), mono(one.peer_address), number(one.port), number(age(one.age_seconds)), number(rate_or_dash(on.sent)),
        number(rate_or_dash(on.received)), number(bytes(one.sent_bytes + one.received_bytes)),
        mono(`${way(one.own_hops)} ⇢ ${far} › ${beyond}`), plain(moved)];
    }, "phantom connection list");
    table("published", daemon.published, one => [plain(one.identity === null ? "fresh, for its run" : one.identity), plain(one.ports.join(", ")),
      long(one.seen || "not yet"), mono(one.phantom_name), mono(one.address)], "phantom status");
    hide(by("forwards"), daemon.forwards.shown.length === 0);
    table("forwards", daemon.forwards, one => [number(one.port), plain(one.listens ? one.to : `${one.to} (nothing listens there)`),
      plain(dash(one.identity)), plain(one.keep ? "stays" : "ends"), mono(one.phantom_name)], "phantom forward");
    table("identities", daemon.addresses, one => [plain(one.name), mono(one.address), mono(one.phantom_name)], "phantom identity list");
    table("peers", daemon.peers, one => [mono(one.node_id.slice(0, 16)), mono(one.addr), plain(one.connected ? "linked" : "–"),
      plain(one.last_seen_seconds === null ? "never" : `${age(one.last_seen_seconds)} ago`)], "phantom peer list");
    table("log", daemon.log, one => [mono(one.at.slice(0, 19).replace("T", " ")), { text: one.level, kind: "plain", level: one.level }, long(one.text)], "phantom log");
  };

  const show_database = daemon => {
    const { status } = daemon;
    const own = status.own_record;
    const record = !own ? "not published yet" : `kept by ${own.kept_by} of ${own.asked} asked; ` +
      (own.for_seconds === null ? "too few, it is written again" : `by more than half for ${age(own.for_seconds)}`);
    pairs(by("database-facts"), [
      ["Nodes known", String(daemon.known)], ["This node's record", record],
      ["Carried for others", `${counted(status.relayed_paths, "path")}, ${counted(status.relayed_tunnels, "tunnel")}, ${bytes(status.relayed_bytes)} so far`],
      ["Listens on", dash(status.listen.join(", "))], ["Node id", status.node_id], ["Peer string", status.peer],
      ["Version", status.version], ["Runs for", age(status.uptime_seconds)],
    ]);
  };

  const show_commands = daemon => {
    const { commands, banned, entries } = daemon;
    const more = banned.more ? `, and ${banned.more} more` : "";
    pairs(by("commands-facts"), [
      ["Maintainers", commands.maintainers === null ? "none: this network takes no commands" : commands.maintainers],
      ["Highest, missing", `${commands.highest}, ${commands.missing}`],
      ["Ignored here", dash(commands.ignored.join(", "))], ["Banned now", dash(banned.shown.join("; ")) + more],
    ]);
    table("commands", entries, one => [number(one.serial), long(one.actions.join("; ")), long(one.did), plain(one.issued), plain(one.expires)],
      "phantom command list");
  };

  const show = sample => {
    if (sample.lost !== null) {
      show_lost(`The daemon does not answer: ${sample.lost}\nIt is asked again each second; this page goes on by itself.`);
      return;
    }
    const { daemon } = sample;
    const rate = rates(sample);
    document.body.classList.remove("stale");
    hide(by("lost"), true);
    const { status } = daemon;
    show_state(status.ready ? "ready" : "waiting", status.ready ? "ready" : `waiting for ${status.waiting_for}`);
    say(by("who"), `phantom ${status.version} · node ${short(status.node_id)} · for ${age(status.uptime_seconds)}`);
    const warnings = show_warnings(status);
    document.title = `Phantom: ${status.ready ? "ready" : "waiting"}${warnings ? `, ${counted(warnings, "warning")}` : ""}`;
    show_now(daemon, rate);
    draw(with_ended(daemon), rate);
    show_lists(daemon, rate);
    show_database(daemon);
    show_commands(daemon);
  };

  // ---- Who answers ----

  // The port of a console that has ended may be anybody's. What answers must prove to have the key that this page came with.
  const raw = text => Uint8Array.from(atob(text.replaceAll("-", "+").replaceAll("_", "/")), letter => letter.charCodeAt(0));
  const key = crypto.subtle.importKey("raw", raw(document.querySelector("meta[name=phantom-proof]").content),
    { name: "HMAC", hash: "SHA-256" }, false, ["verify"]);
  const is_proven = async (answer, challenge, text) => {
    try {
      const proof = raw(answer.headers.get("phantom-proof"));
      return await crypto.subtle.verify("HMAC", await key, proof, new TextEncoder().encode(challenge + text));
    } catch {
      return false;
    }
  };

  const NEW_LINK = "Run `phantom console` in a terminal, and open its new link.";
  const why_refused = status => {
    if (status === 403) return `This browser is not admitted any more. ${NEW_LINK}`;
    if (status === 431) return `Other servers have left too many cookies for this address in this browser: delete those of ${location.hostname}. ${NEW_LINK}`;
    return `The answer is an error, number ${status}. ${NEW_LINK}`;
  };

  // Whether to ask again. Who has ended is not asked any more: a new console has a new link.
  const ask = async () => {
    const challenge = crypto.randomUUID();
    let answer, text;
    try {
      answer = await fetch("state", { cache: "no-store", redirect: "error", headers: { "phantom-challenge": challenge },
        signal: AbortSignal.timeout(ANSWER_WITHIN) });
      text = await answer.text();
    } catch (error) {
      show_lost(`\`phantom console\` does not answer: it has ended, or this computer slept. ${NEW_LINK}`);
      return error.name === "TimeoutError";
    }
    if (!answer.ok) show_lost(why_refused(answer.status));
    else if (await is_proven(answer, challenge, text)) show(JSON.parse(text));
    else {
      show_lost(`\`phantom console\` has ended, and something else answers in its place. ${NEW_LINK}`);
      return false;
    }
    return answer.ok;
  };

  const keep_asking = async () => {
    let goes_on = true;
    // Nobody looks at what is in the background.
    if (!document.hidden) {
      try { goes_on = await ask(); } catch (error) { show_lost(`The answer is not understood: ${error.message}`); }
    }
    if (goes_on) setTimeout(keep_asking, ASK_EVERY);
  };

  // ---- Colours ----

  const choose = theme => {
    if (theme === "system") document.documentElement.removeAttribute("data-theme");
    else document.documentElement.setAttribute("data-theme", theme);
  };
  for (const button of document.querySelectorAll("#theme input")) {
    button.addEventListener("change", () => {
      choose(button.value);
      sessionStorage.setItem("theme", button.value);
    });
    if (sessionStorage.getItem("theme") === button.value) {
      button.checked = true;
      choose(button.value);
    }
  }

  keep_asking();
})();
