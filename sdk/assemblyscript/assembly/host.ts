import { Bytes } from "./bytes";
import { Value } from "./value";
import { Writer } from "./writer";

/** How much a line of the log matters. */
export enum Level {
  Debug,
  Info,
  Warn,
  Error,
}

/** Why the host did not do what was asked. */
export enum HostError {
  None = 0,
  /** No such key, account or hold. */
  NotFound = -1,
  /** cas: the stored value differs. */
  Conflict = -2,
  /** The operator did not grant what this needs. */
  Denied = -3,
  /** Malformed or too large. */
  Invalid = -4,
  /** The answer is larger than the host gives. */
  TooSmall = -5,
  /** The host can not do it now. */
  Unavailable = -6,
  /** hold: the balance does not cover it. */
  Insufficient = -7,
  /** key: revoked or expired. */
  Expired = -8,
  /** Too many calls in one event, or no room in the plugin's state. */
  Limit = -9,
  /** The host is too old for this. */
  Unknown = -10,
}

// @ts-ignore: decorator
@external("postern", "log")
export declare function hostLog(level: i32, address: usize, length: usize): void;

// @ts-ignore: decorator
@external("postern", "op")
declare function hostOp(code: u32, input: usize, length: usize, output: usize, capacity: usize): i64;

enum Code {
  None,
  Time,
  Random,
  Get,
  Put,
  CAS,
  Delete,
  Count,
  Key,
  Hold,
  Settle,
  Release,
  CacheGet,
  CachePut,
}

/** Octets of any answer. */
const MOST_ANSWER: usize = 65536;

const INPUT: usize = memory.data(1024, 8);
const OUTPUT: usize = memory.data(4096, 8);
const LINE: usize = memory.data(4096, 8);

/** Lines for the log are put together here. */
const line: Writer = Writer.over(LINE, 4096, true);

/**
 * Writes a line to the gateway's log under the plugin's name. Lines are cut at 1 KiB, and an event may write 8 KiB. Write no
 * personal data and no secrets.
 */
export function log<T>(level: Level, text: T): void {
  line.clear().put<T>(text);
  hostLog(level, line.address, line.used);
}

/**
 * What a plugin may ask while it runs. What a method returns is there until the next call of one. When a method gives null, false
 * or -1, error says why; it is None after what went well. A method that needs a grant says which. Every event may make 1,024
 * calls, if the operator writes nothing else.
 *
 * Where a method takes a K or T, that is a string, Bytes, a Writer, or a whole number, which is written in decimal.
 */
export class Host {
  /** Why the last call of a method failed. */
  error: HostError = HostError.None;
  private input: Writer = Writer.over(INPUT, 1024);
  private output: Writer = Writer.over(OUTPUT, 4096);

  /** Logs at level debug. */
  debug<T>(text: T): void {
    log<T>(Level.Debug, text);
  }

  /** Logs at level info. */
  info<T>(text: T): void {
    log<T>(Level.Info, text);
  }

  /** Logs at level warn. */
  warn<T>(text: T): void {
    log<T>(Level.Warn, text);
  }

  /** Logs at level error. */
  err<T>(text: T): void {
    log<T>(Level.Error, text);
  }

  /**
   * Asks for an operation as sdk/ABI.md describes it, octet by octet: for one that the SDK has no method for yet. The result is the
   * number of octets written to output, or a negative HostError.
   */
  op(code: u32, input: Bytes, output: StaticArray<u8>): i64 {
    return hostOp(code, input.address, input.length, changetype<usize>(output), output.length);
  }

  /** The wall clock in nanoseconds since 1970; -1 when it failed. Event.time is nearer and mostly enough. */
  time(): i64 {
    return this.number(Code.Time);
  }

  /** Fills an array, of at most 4 KiB, with octets fit for keys. */
  random(fill: StaticArray<u8>): bool {
    return this.went(hostOp(Code.Random, 0, 0, changetype<usize>(fill), fill.length)) == fill.length;
  }

  /** Reads from the plugin's state on this node (grant state). NotFound when the key is not there or its time is over. */
  get<K>(key: K): Bytes | null {
    this.begin().put<K>(key);
    return this.answer(Code.Get);
  }

  /** Writes to the plugin's state; a ttl, in nanoseconds, of 0 keeps it until it is deleted or the gateway stops (grant state). */
  put<K, T>(key: K, value: T, ttl: i64): bool {
    this.begin().u64(<u64>ttl).sized<K>(key).put<T>(value);
    return this.ask(Code.Put) >= 0;
  }

  /** Writes value only when what is stored is old, null meaning nothing; else Conflict (grant state). */
  cas<K, T>(key: K, old: Bytes | null, value: T, ttl: i64): bool {
    const to = this.begin().u64(<u64>ttl).u32(0).u32(old === null ? 0xffffffff : <u32>old.length);
    const at = to.used;
    to.put<K>(key).set(8, <u32>(to.used - at));
    if (old !== null) to.put(old);
    to.put<T>(value);
    return this.ask(Code.CAS) >= 0;
  }

  /** Removes a key from the plugin's state; removing what is not there is no error (grant state). */
  delete<K>(key: K): bool {
    this.begin().put<K>(key);
    return this.ask(Code.Delete) >= 0;
  }

  /**
   * Adds delta to a counter and returns its new value; error tells a failure. A counter begins at 0; ttl, in nanoseconds, counts
   * from its first use (grant state).
   */
  count<K>(key: K, delta: i64, ttl: i64): i64 {
    this.begin().u64(<u64>delta).u64(<u64>ttl).put<K>(key);
    return this.word(Code.Count);
  }

  /**
   * Reads from the caller's account's part of the plugin's cache (grant cache). NotFound when the key is not there or its time is
   * over; Unavailable when the caller has no account.
   */
  cacheGet<K>(key: K): Bytes | null {
    this.begin().put<K>(key);
    return this.answer(Code.CacheGet);
  }

  /**
   * Writes to the caller's account's part of the plugin's cache (grant cache), where the least used makes room. The ttl, in
   * nanoseconds, is more than 0. Unavailable when the caller has no account; Limit when the value is larger than the whole cache.
   */
  cachePut<K, T>(key: K, value: T, ttl: i64): bool {
    this.begin().u64(<u64>ttl).sized<K>(key).put<T>(value);
    return this.ask(Code.CachePut) >= 0;
  }

  /**
   * Finds who a presented API key belongs to (grant accounts): an object of account, key (the key's id, which is no secret), name,
   * and scopes (a list of strings). NotFound: no such key; Expired: revoked, expired, or its account is closed.
   */
  key<K>(presented: K): Value | null {
    this.begin().put<K>(presented);
    return this.value(Code.Key);
  }

  /**
   * Reserves the most a call can cost (grant ledger): max is the attribute usage.max. It gives an object of hold (its id) and
   * amount, a decimal in the ledger's currency. Insufficient: the balance does not cover it; NotFound: no such account.
   */
  hold<A, M>(account: A, model: M, max: Value): Value | null {
    this.begin().object(3).key("account").value<A>(account).key("model").value<M>(model).key("max").value(max);
    return this.value(Code.Hold);
  }

  /**
   * Charges what a call used against its hold, once, and at most what was held (grant ledger). Usage is the attribute
   * response.usage; tags an object of strings that is written on the ledger entry, or Value.none. It gives an object of amount and
   * balance, which is what is left and not held. NotFound: no such hold.
   */
  settle<H>(hold: H, usage: Value, estimated: bool, tags: Value): Value | null {
    const to = this.begin().object(4).key("hold").value<H>(hold).key("usage").value(usage);
    to.key("estimated").value(estimated).key("tags").value(tags);
    return this.value(Code.Settle);
  }

  /** Gives back what a hold reserved, for a call that was never served (grant ledger). NotFound: no such hold. */
  release<H>(hold: H): bool {
    this.begin().put<H>(hold);
    return this.ask(Code.Release) >= 0;
  }

  private begin(): Writer {
    return this.input.clear();
  }

  private number(code: Code): i64 {
    this.begin();
    return this.word(code);
  }

  /** Notes why a call failed, if it did. */
  private went(n: i64): i64 {
    this.error = n >= 0 ? HostError.None : n < HostError.Unknown ? HostError.Unknown : <HostError>(<i32>n);
    return n;
  }

  private ask(code: Code): i64 {
    const input = this.input;
    const output = this.output;
    if (input.full) return this.went(HostError.Invalid);
    let n = hostOp(code, input.address, input.used, output.address, output.room);
    if (n == HostError.TooSmall && output.room < MOST_ANSWER) {
      output.clear();
      if (output.reserve(MOST_ANSWER)) n = hostOp(code, input.address, input.used, output.address, output.room);
    }
    return this.went(n > <i64>output.room ? HostError.TooSmall : n);
  }

  private answer(code: Code): Bytes | null {
    const n = this.ask(code);
    return n < 0 ? null : Bytes.at(this.output.address, <i32>n);
  }

  private word(code: Code): i64 {
    const n = this.ask(code);
    if (n < 0) return -1;
    if (n == 8) return load<i64>(this.output.address);
    this.went(HostError.Invalid);
    return -1;
  }

  private value(code: Code): Value | null {
    const n = this.ask(code);
    if (n < 0) return null;
    const v = Value.at(this.output.address, <usize>n);
    if (!v.isNull) return v;
    this.went(HostError.Invalid);
    return null;
  }
}
