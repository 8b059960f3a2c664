import { brief } from "./memory";
import { Bytes } from "./bytes";
import { Host } from "./host";
import { Kind, Members, Value } from "./value";

/** What happened to an exchange. */
export enum EventKind {
  Configure,
  /** The exchange has come to a stage of the phases authenticate to request. */
  Request,
  /** The next octets of the request's body, with body = stream or events. */
  RequestBody,
  /** The response's head has come. */
  Response,
  /** The next octets or server-sent events of the response's body. */
  ResponseBody,
  /** What Result.await waited for is done: see Event.answer. */
  Fetched,
  /** The exchange is over. Always, also when the client has gone. */
  Account,
}

/** A fixed point on a request's way. */
export enum Phase {
  /** Who calls. */
  Authenticate,
  /** May this caller do this. */
  Authorize,
  /** May it be done now. */
  Admit,
  /** Which upstream or model target. */
  Route,
  /** Change what goes out. */
  Request,
  /** Change what comes back. */
  Response,
  /** Settle; always, also when the client has gone. */
  Account,
}

/** One use of the plugin in a policy. */
export class Stage {
  /** Counted from 0; the same as Event.stage. */
  number: i32 = 0;
  /** Where it is used. */
  phase: Phase = Phase.Authenticate;
  /** An object: the config block's load-time arguments and blocks, defaults filled in. It is gone when configure returns. */
  config: Value = Value.none;
  /** Random octets and the clock; state, accounts and ledger are unavailable here. */
  host: Host;
  /** Why the configuration is refused; null: it is not. */
  failure: string | null = null;

  constructor(host: Host) {
    this.host = host;
  }

  /** Refuses the configuration. The text is shown to the operator with the stage's place in the files. */
  fail(why: string): void {
    this.failure = why;
  }
}

const HEADER: usize = 32;

/**
 * One thing that happened to an exchange.
 *
 * Slots are numbered from 0 in the order plugin.hcl declares them for the event's hook: first sees.headers, then sees.attributes,
 * then the per-request arguments of the manifest and of the hook. What is handed out is there until the event is over.
 */
export class Event {
  kind: EventKind = EventKind.Configure;
  phase: Phase = Phase.Authenticate;
  /** Stage.number of the stage it is for. */
  stage: i32 = 0;
  host: Host;
  private frame: usize = 0;
  private length: usize = 0;
  private flags: u32 = 0;
  private slots: u32 = 0;

  constructor(host: Host) {
    this.host = host;
  }

  /** For the SDK: takes apart a frame's header; false when the frame is not whole. */
  read(frame: usize, length: usize): bool {
    if (length < HEADER || load<u32>(frame) != <u32>length) return false;
    const slots = load<u32>(frame, 12);
    if (slots > <u32>((length - HEADER) >> 3)) return false;
    this.frame = frame;
    this.length = length;
    this.slots = slots;
    this.kind = <EventKind>load<u16>(frame, 4);
    this.phase = <Phase>load<u8>(frame, 6);
    this.flags = load<u8>(frame, 7);
    this.stage = load<i32>(frame, 8);
    return true;
  }

  /** The wall clock when the event was made, in nanoseconds since 1970. */
  get time(): i64 {
    return load<i64>(this.frame, 16);
  }

  /** A number that is the same in all events of an exchange. */
  get exchange(): u64 {
    return load<u64>(this.frame, 24);
  }

  /** The body is the end of the message's body. */
  get end(): bool {
    return (this.flags & 1) != 0;
  }

  /** The body is server-sent events; with body mode events, whole ones. */
  get stream(): bool {
    return (this.flags & 2) != 0;
  }

  /** The body was longer than buffer(max) allows; it is its beginning and can not be changed. */
  get truncated(): bool {
    return (this.flags & 4) != 0;
  }

  /** The client has gone. */
  get gone(): bool {
    return (this.flags & 8) != 0;
  }

  /** What this plugin carried from an earlier event of the exchange in the same policy; null: nothing. */
  get carry(): Bytes | null {
    return this.fixed(0);
  }

  /** The body, chunk or server-sent events; null when the event has none, which is not the same as an empty one. */
  get body(): Bytes | null {
    return this.fixed(1);
  }

  /** Reports whether a slot is there: a header that was not sent, or an attribute not yet known, is not. */
  has(slot: i32): bool {
    return slot >= 0 && this.find(<u32>slot + 2) != 0;
  }

  /** The first value of the header in a slot; null when it was not sent. */
  header(slot: i32): Bytes | null {
    const run = this.run(slot);
    return run.next() ? run.value : null;
  }

  /**
   * Every value of the header in a slot:
   *
   *     for (const h = e.headers(0); h.next(); ) use(h.value);
   */
  headers(slot: i32): Run {
    return this.run(slot);
  }

  /** Name and value of every field, for a hook that sees headers = ["*"]. */
  fields(slot: i32): Run {
    const run = this.run(slot);
    run.named = true;
    return run;
  }

  /** The attribute or argument in a slot; one that is absent reads as null. */
  value(slot: i32): Value {
    const entry = slot < 0 ? <usize>0 : this.find(<u32>slot + 2);
    return entry ? Value.at(this.frame + load<u32>(entry), load<u32>(entry, 4)) : Value.none;
  }

  /** With EventKind.Fetched: what came of the fetch of that name; null when none had the name. */
  answer(name: string): Answer | null {
    const v = this.fetched.member(name);
    return v.kind == Kind.Object ? changetype<Answer>(v) : null;
  }

  /** With EventKind.Fetched: the names of all fetches, in the order they were asked for, as the keys of members. */
  get answers(): Members {
    return this.fetched.each;
  }

  private get fetched(): Value {
    return this.kind == EventKind.Fetched ? Value.read(this.body) : Value.none;
  }

  private run(slot: i32): Run {
    const run = changetype<Run>(brief(offsetof<Run>()));
    const entry = slot < 0 ? <usize>0 : this.find(<u32>slot + 2);
    run.rest = entry ? this.frame + load<u32>(entry) : 0;
    run.room = entry ? <usize>load<u32>(entry, 4) : 0;
    run.named = false;
    run.first = 0;
    run.second = 0;
    return run;
  }

  private fixed(slot: u32): Bytes | null {
    const entry = this.find(slot);
    return entry ? Bytes.at(this.frame + load<u32>(entry), load<i32>(entry, 4)) : null;
  }

  /** The address of a slot's entry in the slot table; 0 when the slot is absent. */
  private find(slot: u32): usize {
    if (slot >= this.slots) return 0;
    const entry = this.frame + HEADER + (<usize>slot << 3);
    const offset = load<u32>(entry);
    return offset && <u64>offset + <u64>load<u32>(entry, 4) <= <u64>this.length ? entry : 0;
  }
}

/** The values of a header field, or names and values of fields, in order. */
@unmanaged @final
export class Run {
  rest: usize;
  room: usize;
  named: bool;
  first: usize;
  second: usize;

  /** Goes on to the next value; false when there is none. */
  next(): bool {
    if (this.named) {
      this.first = this.take();
      if (!this.first) return false;
    }
    this.second = this.take();
    return this.second != 0;
  }

  /** The field's name, of fields. */
  get name(): Bytes {
    return this.first ? Bytes.at(this.first + 4, load<i32>(this.first)) : Bytes.at(0, 0);
  }

  /** The value. */
  get value(): Bytes {
    return Bytes.at(this.second + 4, load<i32>(this.second));
  }

  private take(): usize {
    if (this.room < 4) return 0;
    const address = this.rest;
    const length: usize = load<u32>(address);
    if (this.room - 4 < length) return 0;
    this.rest = address + 4 + length;
    this.room -= 4 + length;
    return address;
  }
}

/** What came of a fetch. */
@unmanaged @final
export class Answer {
  // The object's own address is that of the value that tells it.

  private get answer(): Value {
    return changetype<Value>(this);
  }

  /** Of the HTTP response, 200 to 599; 0 when there was none. */
  get status(): i32 {
    return <i32>this.answer.member("status").int;
  }

  /** Why there was none: denied, invalid, timeout, unreachable, too_large or busy; empty when there was one. */
  get error(): Bytes {
    return this.answer.member("error").bytes;
  }

  /** The answer had been given to the same request before. */
  get cached(): bool {
    return this.answer.member("cached").bool;
  }

  /** As it came: nothing is decompressed. */
  get body(): Bytes {
    return this.answer.member("body").bytes;
  }

  /** Reports that an answer came and its status is 2xx. */
  get ok(): bool {
    const status = this.status;
    return this.error.length == 0 && status >= 200 && status <= 299;
  }

  /**
   * The value of a header field of the answer, by its name in lower case; null when it was not there. Several fields of a name are
   * one, joined by ", "; those of set-cookie by a line feed.
   */
  header(name: string): Bytes | null {
    const v = this.answer.member("headers").member(name);
    return v.kind == Kind.String ? v.bytes : null;
  }

  /** Every header field of the answer; the values are strings. */
  get fields(): Members {
    return this.answer.member("headers").each;
  }
}
