// Conversations in this browser's IndexedDB: {id, time, model, turns: [{role, text, pictures, below}]}.
const NAME = "pinhole";
const STORE = "conversations";
const MAX_KEPT = 50;
let opened = null;

function request(call) {
  return new Promise((resolve, reject) => {
    call.onsuccess = () => resolve(call.result);
    call.onerror = () => reject(call.error);
  });
}

function open() {
  if (!opened) {
    const call = indexedDB.open(NAME, 1);
    call.onupgradeneeded = () => call.result.createObjectStore(STORE, { keyPath: "id" });
    opened = request(call);
  }
  return opened;
}

async function store(mode) {
  return (await open()).transaction(STORE, mode).objectStore(STORE);
}

// The newest first.
export async function list() {
  const all = await request((await store("readonly")).getAll());
  return all.sort((a, b) => b.time - a.time);
}

export async function save(conversation) {
  const turns = conversation.turns.map(({ role, text, pictures, below }) => ({
    role, text, below,
    pictures: pictures.map(({ blob, name, width, height }) => ({ blob, name, width, height })),
  }));
  await request((await store("readwrite")).put({ ...conversation, turns }));
  for (const old of (await list()).slice(MAX_KEPT)) await remove(old.id);
}

export async function remove(id) {
  await request((await store("readwrite")).delete(id));
}

export async function clear() {
  await request((await store("readwrite")).clear());
}
