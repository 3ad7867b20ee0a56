// Ranks as data. A ranking is a list with one number an answer, in the order they are shown: 1 is best, equal is a
// tie, 0 is unranked. Nothing here touches the page.

/** The same order without gaps: [4, 0, 2, 4] becomes [2, 0, 1, 2]. */
export function dense(ranks) {
  const used = [...new Set(ranks.filter((rank) => rank > 0))].sort((a, b) => a - b);
  return ranks.map((rank) => (rank > 0 ? used.indexOf(rank) + 1 : 0));
}

const lowest = (ranks) => Math.max(0, ...ranks);
const isShared = (ranks, index) => ranks.some((rank, other) => other !== index && rank === ranks[index]);

/** Gives an answer a rank of its own: before those that now hold `rank`, which move one down, as do the ones below. */
export function insertBefore(ranks, index, rank) {
  return dense(ranks.map((other, at) => (at === index ? rank - 0.5 : other)));
}

/** One step up: out of a tie to a rank of its own above it, else into a tie with the rank above. */
export function better(ranks, index) {
  const now = dense(ranks);
  if (now[index] === 0) return now.with(index, lowest(now) + 1);
  if (isShared(now, index)) return insertBefore(now, index, now[index]);
  return now[index] === 1 ? now : dense(now.with(index, now[index] - 1));
}

/** One step down; from alone at the bottom to unranked. */
export function worse(ranks, index) {
  const now = dense(ranks);
  if (now[index] === 0) return now;
  if (isShared(now, index)) return insertBefore(now, index, now[index] + 1);
  return now[index] === lowest(now) ? now.with(index, 0) : dense(now.with(index, now[index] + 1));
}

/** "rank 2, tied with B and D", or "unranked". */
export function describe(ranks, labels, index) {
  if (ranks[index] === 0) return "unranked";
  const others = labels.filter((_, at) => at !== index && ranks[at] === ranks[index]);
  if (!others.length) return `rank ${ranks[index]}`;
  const names = others.length > 1 ? `${others.slice(0, -1).join(", ")} and ${others.at(-1)}` : others[0];
  return `rank ${ranks[index]}, tied with ${names}`;
}
