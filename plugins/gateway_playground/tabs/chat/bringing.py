"""Text files that people drop or pick, files that they import, and keys that they press: the page's JavaScript."""

from __future__ import annotations

LARGEST_KB = 200

BAR = """<div class="files">
<label class="pick">Add text files<input type="file" multiple class="text-file"
aria-label="Add text files to the message"></label>
<span class="keys"><span><kbd>Enter</kbd> sends</span> <span><kbd>Shift Enter</kbd> new line</span>
<span><kbd>Esc</kbd> stops</span> <span><kbd>/</kbd> writes</span> <span><kbd>Alt N</kbd> new chat</span>
<span><kbd>Alt R</kbd> again</span> <span><kbd>Alt E</kbd> edits the question</span></span>
<output role="status"></output></div>"""
"""Under the line where one writes. The list of keys is hidden where there is no keyboard."""

ON_BAR = """
const said = element.querySelector('output');
const area = () => document.querySelector('#prompt textarea');
const add = async file => {
  if (file.size > LARGEST_KB * 1000) return `${file.name} is larger than LARGEST_KB kB`;
  let text;
  try { text = new TextDecoder('utf-8', {fatal: true}).decode(await file.arrayBuffer()); }
  catch { return `${file.name} is not a text file`; }
  if (text.includes('\\u0000')) return `${file.name} is not a text file`;
  const ticks = (text.match(/`+/g) || []).map(run => run.length + 1);
  const fence = '`'.repeat(Math.max(3, ...ticks));
  const box = area();
  box.value += `${box.value ? '\\n' : ''}${file.name}:\\n${fence}\\n${text.trimEnd()}\\n${fence}\\n`;
  box.dispatchEvent(new Event('input', {bubbles: true}));
  return `${file.name} was added to the message`;
};
const addAll = async files => {
  const told = [];
  for (const file of files) told.push(await add(file));
  said.textContent = told.join('. ') + '.';
  area().focus();
};
const input = element.querySelector('.text-file');
input.addEventListener('change', async () => { await addAll([...input.files]); input.value = ''; });
// On the document: the conversation's own elements come and go.
const place = event => event.dataTransfer && [...event.dataTransfer.types].includes('Files')
  && event.target.closest?.('#chat, #prompt');
const mark = over => {
  for (const one of document.querySelectorAll('#chat, #prompt')) one.classList.toggle('over', one === over);
};
document.addEventListener('dragover', event => { mark(place(event)); if (place(event)) event.preventDefault(); });
document.addEventListener('dragleave', event => { if (!event.relatedTarget) mark(null); });
document.addEventListener('drop', event => {
  mark(null);
  if (!place(event)) return;
  event.preventDefault();
  event.stopPropagation();
  addAll([...event.dataTransfer.files]);
}, true);
const seen = selector => [...document.querySelectorAll(selector)].filter(one => one.offsetParent);
const press = selector => { const last = seen(selector).pop(); if (last) last.click(); return !!last; };
document.addEventListener('keydown', event => {
  // Only while this tab is looked at.
  if (!area() || !area().offsetParent || event.ctrlKey || event.metaKey) return;
  const writes = event.target.closest('input, textarea, [contenteditable=true]');
  const did = event.altKey
    ? {KeyN: () => press('#new'), KeyR: () => press('#chat [aria-label="Retry"]'),
       KeyE: () => press('#chat [aria-label="Edit"]')}[event.code]?.()
    : event.key === 'Escape' ? press('#stop')
    : event.key === '/' && !writes ? (area().focus(), true) : false;
  if (did) event.preventDefault();
});
""".replace("LARGEST_KB", str(LARGEST_KB))

IMPORT_BAR = """<div class="files"><label class="pick">Import from a file<input type="file" class="import-file"
accept=".json,application/json" aria-label="Import conversations from a file"></label></div>"""

ON_IMPORT_BAR = """
const input = element.querySelector('.import-file');
input.addEventListener('change', async () => {
  const file = input.files[0];
  if (file) trigger('submit', {text: await file.text()});
  input.value = '';
});
"""
