// The AssemblyScript SDK's conformance guest: it does what a script says and tells what it saw. What it has to do is
// sdk/conformance/README.md.

import {
  Answer, Bytes, Event, EventKind, Fetch, Host, HostError, Kind, Level, log, Plugin, register, Result, Stage, Value, Writer,
} from "../../assembly";
export * from "../../assembly/module";

const DO = 6;
const MOST_KEPT = 1024;
const MOST_SAW = 16000;

/** How many words a command has at least, its name included. */
const fewest = new Map<string, i32>();
need(1, "event time exchange calls setup drop done await spin now");
need(2, "see has header headers fields value encode answer remove strings ints replace carry fetch error trap");
need(2, "random get delete key release cacheget");
need(3, "member at set add attribute copy content meter repeat log");
need(4, "splice respond put count hold cacheput op");
need(5, "cas settle");

function need(words: i32, commands: string): void {
  const names = commands.split(" ");
  for (let i = 0; i < names.length; i++) fewest.set(names[i], words);
}

function number(word: Bytes): i64 {
  let n: i64 = 0;
  const negative = word.at(0) == 0x2d;
  for (let i = negative ? 1 : 0; i < word.length; i++) n = n * 10 + (word.at(i) - 0x30);
  return negative ? -n : n;
}

/** A digit in hexadecimal; 16 and more when it is none. */
function digit(c: u8): u32 {
  if (c - 0x30 < 10) return c - 0x30;
  const letter = (c | 0x20) - 0x61;
  return letter < 6 ? 10 + letter : 16;
}

/** What an event saw: tokens separated by a space. */
class Saw {
  text: Writer = new Writer();

  /** Begins a token. */
  token(name: Bytes, slot: Bytes | null = null): void {
    if (this.text.length > 0) this.text.put(" ");
    this.text.put(name);
    if (slot !== null) this.text.put(".").put(slot);
    this.text.put("=");
  }

  put(s: string): void {
    this.text.put(s);
  }

  comma(n: i32): i32 {
    if (n > 0) this.text.put(",");
    return n + 1;
  }

  hex(n: u64, digits: i32): void {
    while (digits-- > 0) {
      const d = <u8>(n >> (4 * digits)) & 15;
      this.text.u8(d < 10 ? 0x30 + d : 0x57 + d);
    }
  }

  optional(b: Bytes | null): void {
    if (b === null) this.put("-");
    else this.octets(b);
  }

  octets(b: Bytes): void {
    if (b.length > 256) {
      let sum: u32 = 0x811c9dc5;
      for (let i = 0; i < b.length; i++) sum = (sum ^ b.at(i)) * 0x01000193;
      this.text.put("#").put(b.length).put(":");
      this.hex(sum, 8);
      return;
    }
    this.put('"');
    for (let i = 0; i < b.length; i++) {
      const c = b.at(i);
      if (c > 0x20 && c < 0x7f && c != 0x22 && c != 0x25) {
        this.text.u8(c);
      } else {
        const high = c >> 4, low = c & 15;
        this.text.u8(0x25).u8(high < 10 ? 0x30 + high : 0x37 + high).u8(low < 10 ? 0x30 + low : 0x37 + low);
      }
    }
    this.put('"');
  }

  /** Writes a value. */
  value(v: Value): void {
    switch (v.kind) {
      case Kind.Null:
        return this.put("null");
      case Kind.Bool:
        return this.put(v.bool ? "true" : "false");
      case Kind.Int:
        this.text.put(v.int);
        return;
      case Kind.Float:
        this.put("f");
        return this.hex(reinterpret<u64>(v.float), 16);
      case Kind.String:
        return this.octets(v.bytes);
    }
    const object = v.kind == Kind.Object;
    this.put(object ? "{" : "[");
    let n = 0;
    for (const m = v.each; m.next(); ) {
      n = this.comma(n);
      if (object) {
        this.octets(m.key);
        this.put(":");
      }
      this.value(m.value);
    }
    this.put(object ? "}" : "]");
  }

  /** Writes how a host operation failed, if it did. */
  went(error: HostError): bool {
    if (error == HostError.None) return true;
    const names = ["NOT_FOUND", "CONFLICT", "DENIED", "INVALID", "TOO_SMALL", "UNAVAILABLE", "INSUFFICIENT", "EXPIRED", "LIMIT", "UNKNOWN"];
    this.put(names[-error - 1]);
    return false;
  }
}

/** Builds a value anew. */
function encode(v: Value, to: Writer): void {
  switch (v.kind) {
    case Kind.Null:
      to.none();
      return;
    case Kind.Bool:
      to.value(v.bool);
      return;
    case Kind.Int:
      to.value(v.int);
      return;
    case Kind.Float:
      to.value(v.float);
      return;
    case Kind.String:
      to.value(v.bytes);
      return;
  }
  const object = v.kind == Kind.Object;
  if (object) to.object(v.length);
  else to.list(v.length);
  for (const m = v.each; m.next(); ) {
    if (object) to.key(m.key);
    encode(m.value, to);
  }
}

/** A command. */
class Words {
  list: Bytes[] = [];
  first: i32 = 0;

  constructor(command: Bytes) {
    let begin = 0;
    for (let end = command.indexOf(0x20); end >= 0; end = command.indexOf(0x20, begin)) {
      this.list.push(command.slice(begin, end));
      begin = end + 1;
    }
    this.list.push(command.slice(begin));
  }

  get length(): i32 {
    return this.list.length - this.first;
  }

  /** A word; none beyond the end. */
  at(i: i32): Bytes {
    return i < this.length ? this.list[this.first + i] : Bytes.at(0, 0);
  }

  /** The words from an index on. */
  from(i: i32): Words {
    const rest = new Words(Bytes.at(0, 0));
    rest.list = this.list;
    rest.first = this.first + i;
    return rest;
  }
}

/** One instance. */
class Guest extends Plugin {
  /** What each stage saw when it was configured. */
  kept: StaticArray<u8>[] = [];
  calls: i32 = 0;
  saw: Saw = new Saw();
  texts: Writer[] = [];
  /** How many of texts the command uses. */
  written: i32 = 0;
  spun: i32 = 0;
  ended: bool = false;
  /** The script, behind the command that runs. */
  rest: Bytes = Bytes.at(0, 0);
  // null while a stage is configured.
  event: Event | null = null;
  result: Result | null = null;
  stage: Stage | null = null;
  host: Host | null = null;

  configure(s: Stage): void {
    this.event = null;
    this.result = null;
    this.stage = s;
    this.host = s.host;
    const failure = this.run(s.config.member("setup").bytes);
    if (failure !== null) return s.fail(failure);
    this.kept.push(this.saw.text.bytes.slice(0, MOST_KEPT).copy());
  }

  on(e: Event, r: Result): void {
    this.event = e;
    this.result = r;
    this.host = e.host;
    this.calls++;
    const carried = e.carry;
    let script = e.value(DO).bytes;
    if (e.kind == EventKind.Fetched) script = carried === null ? Bytes.at(0, 0) : carried;
    const failure = this.run(script);
    if (failure !== null) return r.fail(failure);
    if (!this.ended && this.saw.text.length > 0) r.setAttribute("self.saw", this.saw.text);
  }

  /** Runs a script; what it returns is why the event fails. */
  run(script: Bytes): string | null {
    this.saw.text.clear();
    this.ended = false;
    this.rest = script;
    while (this.rest.length > 0 && !this.ended) {
      const script = this.rest;
      const end = script.indexOf(0x3b);
      const command = end < 0 ? script : script.slice(0, end);
      this.rest = end < 0 ? Bytes.at(0, 0) : script.slice(end + 1);
      if (this.rest.at(0) == 0x20) this.rest = this.rest.slice(1);
      const failure = this.command(new Words(command));
      if (failure !== null) return failure;
      if (this.saw.text.length > MOST_SAW) return "saw too much";
    }
    return null;
  }

  command(w: Words): string | null {
    this.written = 0;
    const name = w.at(0).toString();
    if (!fewest.has(name) || fewest.get(name) > w.length) return "unknown command " + name;
    if (name == "repeat") {
      const inner = w.from(2);
      for (let n = number(w.at(1)); n > 0; n--) {
        const failure = this.command(inner);
        if (failure !== null) return failure;
      }
      return null;
    }
    if (name == "error") return this.text(w.at(1)).toString();
    if (name == "trap") throw new Error(this.text(w.at(1)).toString());
    while (name == "spin") this.spun++;
    if (this.look(name, w) || this.decide(name, w)) return null;
    this.ask(name, w);
    return null;
  }

  /** A word of a script. */
  text(word: Bytes): Bytes {
    if (word.is("$body") || word.is("$carry")) {
      const b = this.slot(word.slice(1));
      return b === null ? Bytes.at(0, 0) : b;
    }
    // Each word of a command has a writer, so that its octets stay until the command is done.
    if (this.written == this.texts.length) this.texts.push(new Writer());
    const text = this.texts[this.written++].clear();
    if (word.at(0) == 0x40) {
      for (let n = number(word.slice(1)); n > 0; n--) text.u8(0x61);
      return text.bytes;
    }
    for (let i = 0; i < word.length; i++) {
      const c = word.at(i);
      const high = digit(word.at(i + 1)), low = digit(word.at(i + 2));
      if (c == 0x25 && i + 2 < word.length && high < 16 && low < 16) {
        text.u8(<u8>(high * 16 + low));
        i += 2;
      } else {
        text.u8(c);
      }
    }
    return text.bytes;
  }

  /** What is in the slot body or carry. */
  slot(name: Bytes): Bytes | null {
    const e = this.event;
    if (e === null) return null;
    if (name.is("carry")) return e.carry;
    return name.is("body") ? e.body : null;
  }

  /** What is in a slot, as a value. */
  value(slot: Bytes): Value {
    const e = this.event;
    if (slot.is("body")) return e === null ? this.stage!.config : Value.read(e.body);
    return e === null ? Value.none : e.value(<i32>number(slot));
  }

  /** Carries out the commands that append what is to be seen. */
  look(name: string, w: Words): bool {
    const saw = this.saw;
    const slot = w.at(1);
    const i = <i32>number(slot);
    const e = this.event;
    if (name == "event") {
      saw.token(w.at(0));
      const kind = e === null ? EventKind.Configure : e.kind;
      const phase = e === null ? this.stage!.phase : e.phase;
      const stage = e === null ? this.stage!.number : e.stage;
      saw.text.put(<i32>kind).put(",").put(<i32>phase).put(",").put(stage).put(",");
      if (e === null || e.end) saw.put("E");
      if (e !== null && e.stream) saw.put("S");
      if (e !== null && e.truncated) saw.put("T");
      if (e !== null && e.gone) saw.put("G");
      return true;
    }
    if (name == "calls") {
      saw.token(w.at(0));
      saw.text.put(this.calls);
      return true;
    }
    if (name == "value" || name == "member" || name == "at" || name == "encode") {
      let v = this.value(slot);
      if (name == "member") v = v.member(this.text(w.at(2)).toString());
      if (name == "at") v = v.at(<i32>number(w.at(2)));
      saw.token(w.at(0), slot);
      if (name != "encode") {
        saw.value(v);
        return true;
      }
      const built = new Writer();
      encode(v, built);
      for (let i = 0; i < built.length; i++) saw.hex(load<u8>(built.address + i), 2);
      return true;
    }
    if (e === null) return false;
    if (name == "time") {
      saw.token(w.at(0));
      saw.text.put(e.time);
    } else if (name == "exchange") {
      saw.token(w.at(0));
      saw.text.put(e.exchange);
    } else if (name == "setup") {
      saw.token(w.at(0));
      const kept = this.kept[e.stage];
      saw.octets(Bytes.at(changetype<usize>(kept), kept.length));
    } else if (name == "see") {
      saw.token(w.at(0), slot);
      saw.optional(this.slot(slot));
    } else if (name == "has") {
      saw.token(w.at(0), slot);
      const there = slot.is("body") || slot.is("carry") ? this.slot(slot) !== null : e.has(i);
      saw.put(there ? "1" : "0");
    } else if (name == "header") {
      saw.token(w.at(0), slot);
      saw.optional(e.header(i));
    } else if (name == "headers") {
      saw.token(w.at(0), slot);
      let n = 0;
      if (!e.has(i)) saw.put("-");
      else saw.put("[");
      for (const h = e.headers(i); h.next(); ) {
        n = saw.comma(n);
        saw.octets(h.value);
      }
      if (e.has(i)) saw.put("]");
    } else if (name == "fields") {
      saw.token(w.at(0), slot);
      let n = 0;
      if (!e.has(i)) saw.put("-");
      else saw.put("{");
      for (const h = e.fields(i); h.next(); ) {
        n = saw.comma(n);
        saw.octets(h.name);
        saw.put(":");
        saw.octets(h.value);
      }
      if (e.has(i)) saw.put("}");
    } else if (name == "answer") {
      saw.token(w.at(0), slot);
      const a = e.answer(slot.toString());
      if (a === null) saw.put("-");
      else this.answer(a, w);
    } else {
      return false;
    }
    return true;
  }

  answer(a: Answer, w: Words): void {
    this.saw.text.put(a.status).put(a.cached ? ",1," : ",0,");
    this.saw.octets(a.error);
    this.saw.put(",");
    this.saw.octets(a.body);
    if (w.length > 2) {
      this.saw.put(",");
      this.saw.optional(a.header(w.at(2).toString()));
    }
  }

  /** Carries out the commands that write the result. */
  decide(name: string, w: Words): bool {
    const r = this.result;
    if (r === null) return false;
    if (name == "set") r.setHeader(this.name(w, 1), this.text(w.at(2)));
    else if (name == "add") r.addHeader(this.name(w, 1), this.text(w.at(2)));
    else if (name == "remove") r.removeHeader(this.name(w, 1));
    else if (name == "attribute") r.setAttribute(this.name(w, 1), this.text(w.at(2)));
    else if (name == "strings") {
      const list: string[] = [];
      for (let i = 2; i < w.length; i++) list.push(this.name(w, i));
      r.setAttributeStrings(this.name(w, 1), list);
    } else if (name == "ints") {
      const list: i64[] = [];
      for (let i = 2; i < w.length; i++) list.push(number(w.at(i)));
      r.setAttributeInts(this.name(w, 1), list);
    } else if (name == "copy") r.setAttribute(this.name(w, 1), this.value(w.at(2)));
    else if (name == "replace") r.replaceBody(this.text(w.at(1)));
    else if (name == "splice") r.splice(<i32>number(w.at(1)), <i32>number(w.at(2)), this.text(w.at(3)));
    else if (name == "drop") r.dropBody();
    else if (name == "respond") r.respond(<i32>number(w.at(1)), this.name(w, 2), this.text(w.at(3)));
    else if (name == "content") r.respondBody(this.name(w, 1), this.text(w.at(2)));
    else if (name == "carry") r.carry(this.text(w.at(1)));
    else if (name == "meter") r.meter(this.name(w, 1), number(w.at(2)));
    else if (name == "done") r.done();
    else if (name == "fetch") this.fetch(w, r);
    else if (name == "await") {
      r.carry(this.rest);
      r.await();
      this.ended = true;
    } else return false;
    return true;
  }

  name(w: Words, i: i32): string {
    return this.text(w.at(i)).toString();
  }

  fetch(w: Words, r: Result): void {
    const fetch = new Fetch();
    for (let i = 2; i < w.length; i++) {
      const word = w.at(i);
      const end = word.indexOf(0x3d);
      const field = word.slice(0, end);
      const value = this.text(word.slice(end + 1));
      if (field.is("url")) fetch.url = value.toString();
      else if (field.is("upstream")) fetch.upstream = value.toString();
      else if (field.is("path")) fetch.path = value.toString();
      else if (field.is("method")) fetch.method = value.toString();
      else if (field.is("body")) fetch.body.put(value);
      else if (field.is("timeout")) fetch.timeout = number(value);
      else if (field.is("cache")) fetch.cache = number(value);
      else if (field.is("max")) fetch.max = <i32>number(value);
      else fetch.header(field.slice("header:".length).toString(), value);
    }
    r.fetch(this.name(w, 1), fetch);
  }

  /** Carries out the commands that ask the host. */
  ask(name: string, w: Words): void {
    const saw = this.saw;
    const host = this.host!;
    if (name == "log") return log(<Level>(<i32>number(w.at(1))), this.text(w.at(2)));
    saw.token(w.at(0));
    if (name == "now") {
      const now = host.time();
      if (saw.went(host.error)) saw.text.put(now);
    } else if (name == "random") {
      const fill = new StaticArray<u8>(<i32>number(w.at(1)));
      if (!host.random(fill)) saw.went(host.error);
      else if (fill.length > 64) saw.text.put(fill.length);
      else for (let i = 0; i < fill.length; i++) saw.hex(fill[i], 2);
    } else if (name == "get") {
      const v = host.get(this.text(w.at(1)));
      if (v !== null) saw.octets(v);
      else saw.went(host.error);
    } else if (name == "put") {
      this.ok(host.put(this.text(w.at(1)), this.text(w.at(2)), number(w.at(3))));
    } else if (name == "cas") {
      const old: Bytes | null = w.at(2).is("-") ? null : this.text(w.at(2));
      this.ok(host.cas(this.text(w.at(1)), old, this.text(w.at(3)), number(w.at(4))));
    } else if (name == "delete") {
      this.ok(host.delete(this.text(w.at(1))));
    } else if (name == "count") {
      const n = host.count(this.text(w.at(1)), number(w.at(2)), number(w.at(3)));
      if (saw.went(host.error)) saw.text.put(n);
    } else if (name == "key") {
      const id = host.key(this.text(w.at(1)));
      if (id === null) {
        saw.went(host.error);
        return;
      }
      saw.octets(id.member("account").bytes);
      saw.put(",");
      saw.octets(id.member("key").bytes);
      saw.put(",");
      saw.octets(id.member("name").bytes);
      saw.put(",");
      saw.value(id.member("scopes"));
    } else if (name == "hold") {
      this.pair(host.hold(this.text(w.at(1)), this.text(w.at(2)), this.value(w.at(3))), "hold", "amount");
    } else if (name == "settle") {
      const tags = w.at(4).is("-") ? Value.none : this.value(w.at(4));
      this.pair(host.settle(this.text(w.at(1)), this.value(w.at(2)), w.at(3).is("1"), tags), "amount", "balance");
    } else if (name == "release") {
      this.ok(host.release(this.text(w.at(1))));
    } else if (name == "cacheget") {
      const v = host.cacheGet(this.text(w.at(1)));
      if (v !== null) saw.octets(v);
      else saw.went(host.error);
    } else if (name == "cacheput") {
      this.ok(host.cachePut(this.text(w.at(1)), this.text(w.at(2)), number(w.at(3))));
    } else if (name == "op") {
      saw.text.put(host.op(<u32>number(w.at(1)), this.text(w.at(3)), new StaticArray<u8>(<i32>number(w.at(2)))));
    }
  }

  ok(done: bool): void {
    if (done) this.saw.put("ok");
    else this.saw.went(this.host!.error);
  }

  pair(v: Value | null, first: string, second: string): void {
    if (v === null) {
      this.saw.went(this.host!.error);
      return;
    }
    this.saw.octets(v.member(first).bytes);
    this.saw.put(",");
    this.saw.octets(v.member(second).bytes);
  }
}

register(new Guest());
