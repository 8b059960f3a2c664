import { Writer } from "./writer";

/** What a plugin decided. */
export enum Action {
  Continue,
  Respond,
  Await,
  NeedBody,
  Done,
  Error,
}

enum Operation {
  None,
  HeaderSet,
  HeaderAdd,
  HeaderRemove,
  Attribute,
  BodyReplace,
  BodySplice,
  BodyDrop,
  Respond,
  RespondBody,
  Carry,
  Fetch,
  Meter,
}

/**
 * What the plugin decides. As it is given to Plugin.on it means: go on, change nothing. Operations take effect together, after on
 * returned; the host refuses the whole result when one of them is not allowed (sdk/ABI.md says what is allowed where). One that
 * comes to more than 16,777,215 octets fails the event.
 *
 * Where a method takes a T, that is a string, Bytes, a Writer, or a whole number, which is written in decimal.
 */
export class Result {
  action: Action = Action.Continue;
  /** For the SDK: the operations. */
  operations: Writer;
  /** Why the event fails; null: it does not. */
  failure: string | null = null;

  constructor(operations: Writer) {
    this.operations = operations;
  }

  /** For the SDK: an event begins. */
  clear(): void {
    this.action = Action.Continue;
    this.operations.clear();
    this.failure = null;
  }

  /**
   * The event fails: nothing of this result is applied, the text is logged, and the stage's on_error decides (deny, unless the
   * operator wrote allow). A refusal meant for the caller is respond, not fail.
   */
  fail(why: string): void {
    this.failure = why;
  }

  /** Sets a header field: the request's before the response phase, then the response's, and the answer's together with respond. The name is in lower case. */
  setHeader<T>(name: string, value: T): void {
    this.end(this.begin(Operation.HeaderSet, name).put<T>(value));
  }

  /** Adds a field and keeps those of the same name. */
  addHeader<T>(name: string, value: T): void {
    this.end(this.begin(Operation.HeaderAdd, name).put<T>(value));
  }

  /** Removes every field of that name. */
  removeHeader(name: string): void {
    this.end(this.begin(Operation.HeaderRemove, name));
  }

  /**
   * Sets an attribute: one of the host's where the phase allows it (identity.account, identity.key and identity.name in
   * authenticate), or one of the plugin's own, written "self.name", a string, which expressions read as
   * attribute["<plugin>.name"]. A Value is written as it is.
   */
  setAttribute<T>(name: string, value: T): void {
    this.end(this.begin(Operation.Attribute, name).value<T>(value));
  }

  /** Sets an attribute to a list of whole numbers, as targets in route: the targets to use, in that order, as indexes. */
  setAttributeInts(name: string, values: i64[]): void {
    const to = this.begin(Operation.Attribute, name).list(values.length);
    for (let i = 0; i < values.length; i++) to.value(values[i]);
    this.end(to);
  }

  /** Sets an attribute to a list of strings, as identity.scopes in authenticate. */
  setAttributeStrings(name: string, values: string[]): void {
    const to = this.begin(Operation.Attribute, name).list(values.length);
    for (let i = 0; i < values.length; i++) to.value(values[i]);
    this.end(to);
  }

  /** Puts a body in the place of the octets Event.body gave. */
  replaceBody<T>(body: T): void {
    this.end(this.begin(Operation.BodyReplace, "").put<T>(body));
  }

  /** Cuts octets out of what Event.body gave and puts others there. Splices ascend and do not overlap. */
  splice<T>(offset: i32, cut: i32, put: T): void {
    this.end(this.begin(Operation.BodySplice, "").u32(offset).u32(cut).put<T>(put));
  }

  /** Drops the octets Event.body gave. */
  dropBody(): void {
    this.end(this.begin(Operation.BodyDrop, ""));
  }

  /**
   * Answers the client with a problem document: a status from 400 to 599, a stable code (a-z, 0-9 and _, at most 64 octets) and a
   * text for the caller, which may be empty (at most 1 KiB). In authenticate it means: not this identity; other authenticate
   * stages may still accept the caller. Followed by respondBody the status may be 200 to 599.
   */
  respond<T>(status: i32, code: string, detail: T): void {
    this.action = Action.Respond;
    this.end(this.begin(Operation.Respond, code).u16(<u16>status).put<T>(detail));
  }

  /** Gives the answer of respond a body of its own instead of a problem document. */
  respondBody<T>(contentType: string, body: T): void {
    this.end(this.begin(Operation.RespondBody, contentType).put<T>(body));
  }

  /**
   * Keeps octets (at most 64 KiB) for the next events of the exchange at any stage of this plugin in the same policy; they replace
   * what was carried before.
   */
  carry<T>(octets: T): void {
    this.end(this.begin(Operation.Carry, "").put<T>(octets));
  }

  /** Adds n, at least 0, to the plugin's counter of that name (a-z, 0-9 and _), which the gateway shows in its metrics. */
  meter(name: string, n: i64): void {
    this.end(this.begin(Operation.Meter, name).u64(<u64>n));
  }

  /** Asks for no more events at this stage in this exchange; the operations of this result apply. */
  done(): void {
    this.action = Action.Done;
  }

  /**
   * Asks for a request, to be made when the result awaits; up to eight with different names (a-z, 0-9 and _, at most 64 octets),
   * which are made at the same time. What came of them is Event.answer. Besides fetches, a result that awaits may hold carry and
   * meter only.
   */
  fetch(name: string, fetch: Fetch): void {
    const to = this.begin(Operation.Fetch, name);
    const at = to.used;
    to.object(0);
    let members: u32 = fetch.fields > 0 ? 1 : 0;
    members += text(to, "url", fetch.url) + text(to, "upstream", fetch.upstream) + text(to, "path", fetch.path);
    members += text(to, "method", fetch.method);
    if (fetch.body.length > 0) {
      to.key("body").value(fetch.body);
      members++;
    }
    members += int(to, "timeout", fetch.timeout) + int(to, "cache", fetch.cache) + int(to, "max", fetch.max);
    if (fetch.fields > 0) to.key("headers").object(fetch.fields).put(fetch.headers);
    this.end(to.set(at + 1, members));
  }

  /**
   * Asks to be called again, with EventKind.Fetched, when every fetch of this result is done. No instance is held until then: what
   * the plugin has to remember goes into carry.
   */
  await(): void {
    this.action = Action.Await;
  }

  /** Where the value of the operation that is being written begins. */
  private at: usize = 0;

  private begin(operation: Operation, key: string): Writer {
    const to = this.operations;
    const head = to.used;
    to.u64(operation).put(key);
    const length = to.used - head - 8;
    if (length > 0xffff) this.failure = "a name in the result is longer than 65,535 octets";
    else if (!to.full) store<u16>(to.address + head, <u16>length, 2);
    this.head = head;
    this.at = to.used;
    return to;
  }

  /** Where the operation that is being written begins. */
  private head: usize = 0;

  /** The length of an operation's value is known when it has been written. */
  private end(to: Writer): void {
    to.set(this.head + 4, <u32>(to.used - this.at));
  }
}

function text(to: Writer, key: string, value: string): u32 {
  if (value.length == 0) return 0;
  to.key(key).value(value);
  return 1;
}

function int(to: Writer, key: string, n: i64): u32 {
  if (n == 0) return 0;
  to.key(key).value(n);
  return 1;
}

/** An HTTP request that a plugin asks the gateway to make, with the grant fetch. */
export class Fetch {
  /** Absolute; its origin is one the operator granted. Or else: */
  url: string = "";
  /** an upstream's name, which the operator granted, */
  upstream: string = "";
  /** with the path there, and the query. */
  path: string = "";
  /** Default GET. */
  method: string = "";
  /** None with GET and HEAD. */
  body: Writer = new Writer();
  /** In nanoseconds. Default, and most: what the operator allows. */
  timeout: i64 = 0;
  /** How old, in nanoseconds, an answer may be that was given to the same request; 0: it is made anew. */
  cache: i64 = 0;
  /** Octets of the answer's body, at most 1 MiB; default 64 KiB. */
  max: i32 = 0;
  /** For the SDK: the fields, encoded, and how many they are. */
  headers: Writer = new Writer();
  fields: i32 = 0;

  /** Adds a header field; the name is in lower case, and each is there once. */
  header<T>(name: string, value: T): Fetch {
    this.headers.key(name).value<T>(value);
    this.fields++;
    return this;
  }
}
