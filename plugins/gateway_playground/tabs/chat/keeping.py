"""Conversations in the browser's own storage: the page's JavaScript. The server is told of the open one alone."""

from __future__ import annotations

_SHELF = """
  const PREFIX = 'gateway.chat.';
  // A browser may keep nothing at all, and says so by an error at the first look.
  const names = () => { try { return Object.keys(localStorage); } catch { return []; } };
  const all = () => names().filter(key => key.startsWith(PREFIX)).flatMap(key => {
    try { const kept = JSON.parse(localStorage.getItem(key)); return kept && kept.id ? [kept] : []; }
    catch { return []; }
  }).sort((a, b) => (b.touched || 0) - (a.touched || 0));
  const said = kept => JSON.stringify([kept.title, kept.system, kept.turns, kept.branches]);
  const keep = kept => {
    try {
      const before = localStorage.getItem(PREFIX + kept.id);
      if (before && said(JSON.parse(before)) === said(kept)) return true;
      localStorage.setItem(PREFIX + kept.id, JSON.stringify({...kept, touched: Date.now()}));
      return true;
    } catch { return false; }
  };
  const list = () => all().map(kept => [String(kept.title || 'Untitled'), String(kept.id)]);
  const hand = (name, value) => {
    const link = document.createElement('a');
    link.href = URL.createObjectURL(new Blob([JSON.stringify(value, null, 1)], {type: 'application/json'}));
    link.download = name;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10000);
  };
"""
"""`touched` is when it was last kept; it stays in the browser."""

SAVE = f"""(open, named) => {{{_SHELF}
  const full = !!(open && open.id) && !keep(open);
  return [{{list: list(), open: open ? open.id : null, full}}, named];
}}"""
"""Keeps the open conversation. Gives `{list: [[title, id], …] the newest first, open: its id, full: no room left}`."""

OPEN = f"""(state, id) => {{{_SHELF}
  return [state, id, all().find(kept => kept.id === id) || null];
}}"""
"""The conversation with this id, or null."""

FORGET = f"""(state, open) => {{{_SHELF}
  const sure = !!open && confirm(`Delete “${{open.title}}” from this browser? Nobody else has it.`);
  if (sure) localStorage.removeItem(PREFIX + open.id);
  return [state, {{list: list(), open: open ? open.id : null, sure}}];
}}"""

EXPORT = f"""() => {{{_SHELF}
  hand('conversations.json', {{version: 1, conversations: all()}});
}}"""

EXPORT_OPEN = f"""(open) => {{{_SHELF}
  if (open) hand('conversation.json', {{version: 1, conversations: [open]}});
}}"""

TAKE_AS_CASE = """() => {
  let rounds = 0;
  const go = () => {
    const tabs = [...document.querySelectorAll('#evaluations [role=tab]')];
    const tab = tabs.find(one => one.textContent.trim() === 'Test case');
    const take = document.querySelector('#case-take');
    if (take && take.offsetParent) return take.click();
    if (tab) tab.click();
    if (++rounds < 40) setTimeout(go, 100);
  };
  go();
}"""
"""The Evaluations tab is open: what it does with the open chat, done."""

IMPORT = f"""(read, open) => {{{_SHELF}
  let full = false;
  for (const kept of (read && read.conversations) || []) {{
    const before = localStorage.getItem(PREFIX + kept.id);
    if (before && said(JSON.parse(before)) !== said(kept)) {{
      // One that went on differently here stays beside it.
      kept.id = kept.id.slice(0, 40) + '-' + Math.random().toString(36).slice(2, 10);
    }}
    full = !keep(kept) || full;
  }}
  return [{{list: list(), open: open ? open.id : null, full}}, null];
}}"""
"""Keeps conversations that were read from a file, beside those that are there."""
