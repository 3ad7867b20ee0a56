// Word-level difference of two texts by their longest common subsequence.

// A word, a run of spaces, or one other character. Scripts written without spaces are compared sign by sign.
const TOKEN =
  /\s+|[\p{Script=Han}\p{Script=Hiragana}\p{Script=Katakana}\p{Script=Thai}]|[\p{L}\p{N}\p{M}_'’]+|[^\s\p{L}\p{N}_]/gu;
const LARGEST_TABLE = 12_000_000;

/**
 * The parts of two texts: [{kind: "same" | "left" | "right", text}], in order. Joining "same" and "left" gives the
 * left text, "same" and "right" the right one.
 */
export function difference(left, right) {
  let a = left.match(TOKEN) ?? [];
  let b = right.match(TOKEN) ?? [];
  let start = 0;
  while (start < a.length && start < b.length && a[start] === b[start]) start += 1;
  let end = 0;
  while (end < a.length - start && end < b.length - start && a.at(-1 - end) === b.at(-1 - end)) end += 1;
  const head = a.slice(0, start);
  const tail = end ? a.slice(-end) : [];
  a = a.slice(start, a.length - end);
  b = b.slice(start, b.length - end);
  const steps = [];
  const add = (kind, text) => steps.push({ kind, text });
  add("same", head.join(""));
  if (a.length * b.length > LARGEST_TABLE) {
    // Too long for the table: the middle is shown as replaced, which is true, if coarse.
    add("left", a.join(""));
    add("right", b.join(""));
  } else walk(a, b, add);
  add("same", tail.join(""));
  return joined(steps);
}

/** Neighbours of one kind as one part. A space between two replaced words is replaced with them: that reads better. */
function joined(steps) {
  const parts = [];
  let [same, left, right] = ["", "", ""];
  const flush = () => {
    for (const [kind, text] of Object.entries({ left, right, same })) if (text) parts.push({ kind, text });
    [same, left, right] = ["", "", ""];
  };
  for (const { kind, text } of steps) {
    if (!text) continue;
    if (kind === "same") {
      same += text;
      continue;
    }
    if (same && left && right && /^[^\S\n]+$/.test(same)) [left, right, same] = [left + same, right + same, ""];
    if (same) flush();
    if (kind === "left") left += text;
    else right += text;
  }
  flush();
  return parts;
}

function walk(a, b, add) {
  const width = b.length + 1;
  const common = new Uint16Array((a.length + 1) * width); // its side is below 65,536 by LARGEST_TABLE and the trimming
  for (let i = a.length - 1; i >= 0; i -= 1) {
    for (let j = b.length - 1; j >= 0; j -= 1) {
      common[i * width + j] =
        a[i] === b[j]
          ? common[(i + 1) * width + j + 1] + 1
          : Math.max(common[(i + 1) * width + j], common[i * width + j + 1]);
    }
  }
  let i = 0;
  let j = 0;
  while (i < a.length && j < b.length) {
    if (a[i] === b[j]) {
      add("same", a[i]);
      i += 1;
      j += 1;
    } else if (common[(i + 1) * width + j] >= common[i * width + j + 1]) add("left", a[i++]);
    else add("right", b[j++]);
  }
  add("left", a.slice(i).join(""));
  add("right", b.slice(j).join(""));
}

/** How many words a text has. */
export const words = (text) => (text.match(/[\p{L}\p{N}]+/gu) ?? []).length;
