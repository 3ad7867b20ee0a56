// What was done on a task and not submitted yet, kept on this device.

const PREFIX = "trivium:draft:";
const KEPT_DAYS = 14;

export class Draft {
  /** @param {string} assignment */
  constructor(assignment) {
    this.name = PREFIX + assignment;
    forgetOld();
  }

  read() {
    try {
      return JSON.parse(localStorage.getItem(this.name));
    } catch {
      return null;
    }
  }

  write(values) {
    try {
      localStorage.setItem(this.name, JSON.stringify({ ...values, saved: Date.now() }));
    } catch {
      // a full or forbidden storage only costs the draft
    }
  }

  remove() {
    try {
      localStorage.removeItem(this.name);
    } catch {
      // nothing was kept
    }
  }
}

// A task that somebody else took over is never submitted here; its draft would stay for ever.
function forgetOld() {
  try {
    for (const name of Object.keys(localStorage)) {
      if (!name.startsWith(PREFIX)) continue;
      const saved = JSON.parse(localStorage.getItem(name))?.saved ?? 0;
      if (Date.now() - saved > KEPT_DAYS * 86_400_000) localStorage.removeItem(name);
    }
  } catch {
    // not worth a word
  }
}
