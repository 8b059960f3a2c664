// What the gateway calls. A plugin's main file exports it: export * from "…/assembly/module".

import "./abort";
import { Event, EventKind, Phase, Stage } from "./event";
import { Host } from "./host";
import { begin, give, pages } from "./memory";
import { registered } from "./plugin";
import { Action, Result } from "./result";
import { Value } from "./value";
import { MOST, Writer } from "./writer";

/** The frame buffer to begin with. */
const FIRST: usize = memory.data(65536, 8);
const RESULT: usize = memory.data(4096, 8);

/** The most the gateway reads of a failure's text. */
const TEXT: usize = 1024;

let frame: usize = FIRST;
let capacity: usize = 65536;

const host: Host = new Host();
const event: Event = new Event(host);
const stage: Stage = new Stage(host);
const result: Result = new Result(Writer.over(RESULT, 4096));

export function postern_abi_v1(): i64 {
  return registered === null ? 0 : buffer();
}

function buffer(): i64 {
  return ((<i64>frame) << 32) | <i64>capacity;
}

/** Makes the frame buffer hold at least that many octets; what was in it is lost. Where it can not, it stays as large as it was. */
export function postern_grow(wanted: i32): i64 {
  const size = (<usize>wanted + 0xffff) & ~0xffff;
  if (<usize>wanted <= capacity || <usize>wanted > MOST) return buffer();
  if (frame != FIRST && frame + capacity == (<usize>memory.size()) << 16) {
    // It is the last in memory: it grows where it is.
    if (memory.grow(<i32>((size - capacity) >> 16)) >= 0) capacity = size;
    return buffer();
  }
  const larger = pages(size);
  if (larger) {
    if (frame != FIRST) give(frame, capacity);
    frame = larger;
    capacity = size;
  }
  return buffer();
}

export function postern_configure(length: i32): i64 {
  return postern_on(EventKind.Configure, length);
}

export function postern_on(kind: i32, length: i32): i64 {
  begin();
  result.clear();
  const plugin = registered;
  if (plugin === null || <usize>length > capacity || !event.read(frame, length)) {
    result.fail("malformed frame");
  } else if (event.kind == EventKind.Configure) {
    stage.number = event.stage;
    stage.phase = event.phase;
    stage.config = Value.read(event.body);
    stage.failure = null;
    plugin.configure(stage);
    stage.config = Value.none;
    result.failure = stage.failure;
  } else if (event.kind <= EventKind.Account && event.phase <= Phase.Account) {
    plugin.on(event, result);
    if (result.operations.full && result.failure === null) {
      result.fail("the result does not fit: it is longer than 16,777,215 octets, or limits.memory is used up");
    }
  }
  const failure = result.failure;
  if (failure !== null) fail(failure);
  const operations = result.operations;
  return ((<i64>result.action) << 56) | ((<i64>operations.used) << 32) | <i64>operations.address;
}

/** Drops what the plugin wrote and says why, in the shape of an answer that nobody sees. */
function fail(why: string): void {
  result.clear();
  const text = new Writer().put(why);
  // Cut between two characters, and without control characters, which the gateway would refuse.
  let end: usize = text.used;
  if (end > TEXT) {
    end = TEXT;
    while (end > 0 && (load<u8>(text.address + end) & 0xc0) == 0x80) end--;
  }
  for (let i: usize = 0; i < end; i++) {
    const c = load<u8>(text.address + i);
    if (c < 0x20 || c == 0x7f) store<u8>(text.address + i, 0x20);
  }
  result.respond(500, "plugin_error", text.bytes.slice(0, <i32>end));
  result.action = Action.Error;
}
