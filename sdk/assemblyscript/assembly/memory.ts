// Memory that the SDK manages itself, so that reading an event and writing a result leave nothing to collect.

/** Octets that small things handed out during an event live in. */
const FIRST: usize = memory.data(4096, 8);
const CHUNK: usize = 4096;

let at: usize = FIRST;
let end: usize = FIRST + CHUNK;
/** Chunks beyond the first, linked by their first word. */
let chunks: usize = 0;

/** Room for something that lives until the event is over. A size of at most 64 octets. */
// @ts-ignore: decorator
@inline
export function brief(size: usize): usize {
  if (at + size > end) another();
  const address = at;
  at += (size + 7) & ~7;
  return address;
}

function another(): void {
  const chunk = heap.alloc(CHUNK);
  store<usize>(chunk, chunks);
  chunks = chunk;
  at = chunk + 8;
  end = chunk + CHUNK - 64;
}

/** Takes back all that brief gave: an event begins. */
export function begin(): void {
  while (chunks) {
    const next = load<usize>(chunks);
    heap.free(chunks);
    chunks = next;
  }
  at = FIRST;
  end = FIRST + CHUNK - 64;
}

/** Free runs of pages, linked by their first word; the second is their size in octets. */
let runs: usize = 0;

/** Whole pages for at least size octets; 0 when there are none. Unlike the language's own memory, running out is no trap. */
export function pages(size: usize): usize {
  let link: usize = 0;
  let run = runs;
  while (run) {
    const next = load<usize>(run);
    if (load<usize>(run, 4) >= size) {
      if (link) store<usize>(link, next);
      else runs = next;
      return run;
    }
    link = run;
    run = next;
  }
  const page = memory.grow(<i32>((size + 0xffff) >> 16));
  return page < 0 ? 0 : (<usize>page) << 16;
}

/** Takes back what pages gave. */
export function give(address: usize, size: usize): void {
  store<usize>(address, runs);
  store<usize>(address, size & ~0xffff, 4);
  runs = address;
}
