// Where the language gives up. Nothing here takes memory, of which there may be none left.

import { hostLog, Level } from "./host";

/** Where the line is put together. */
const LINE: usize = memory.data(1024, 8);

/** What --use abort= names: a line in the log that says why and where, and a trap. */
export function abort(message: string | null, file: string | null, row: u32, column: u32): void {
  let end = add(LINE, message === null ? "abort" : message, 256);
  end = add(add(end, " at ", 4), file === null ? "" : file, 64);
  end = number(add(end, ":", 1), row);
  end = number(add(end, ":", 1), column);
  hostLog(Level.Error, LINE, end - LINE);
  unreachable();
}

/** Writes at most so many units of a text at an address, and returns where it ends. */
function add(at: usize, text: string, most: i32): usize {
  return at + String.UTF8.encodeUnsafe(changetype<usize>(text), min(text.length, most), at);
}

function number(at: usize, n: u32): usize {
  let end = at;
  for (let rest = n; rest > 0 || end == at; rest /= 10) end++;
  for (let digit = end; digit > at; n /= 10) store<u8>(--digit, <u8>(0x30 + (n % 10)));
  return end;
}
