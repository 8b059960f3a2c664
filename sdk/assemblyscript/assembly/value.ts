import { brief } from "./memory";
import { Bytes, same } from "./bytes";

/** What a Value is. */
export enum Kind {
  /** Nothing: also what is absent or malformed. */
  Null,
  Bool,
  /** A whole number of 64 bits: also a duration in nanoseconds, and octets. */
  Int,
  Float,
  /** Octets: text, and also money, as a decimal. */
  String,
  List,
  Object,
}

/** How deep values nest at most. */
const DEPTH = 32;

/** A value of kind null. */
const NULL: usize = memory.data<u8>([0]);

/**
 * A view of one encoded value, read in place: a configuration, an attribute, an argument, an answer of the host. What is missing or
 * malformed reads as null. It is there as long as Bytes are.
 */
@unmanaged @final
export class Value {
  // The object's own address is that of the encoded value, which is whole and well formed.

  /** The value of kind null. */
  static get none(): Value {
    return changetype<Value>(NULL);
  }

  /** The value at the beginning of octets; null when there is no whole one. */
  static read(octets: Bytes | null): Value {
    return octets === null ? Value.none : Value.at(octets.address, octets.length);
  }

  /** The value at an address, in at most length octets. */
  static at(address: usize, length: usize): Value {
    return size(address, length, 0) ? changetype<Value>(address) : Value.none;
  }

  private get address(): usize {
    return changetype<usize>(this);
  }

  /** What it is. */
  get kind(): Kind {
    return <Kind>load<u8>(this.address);
  }

  /** Reports that there is nothing. */
  get isNull(): bool {
    return this.kind == Kind.Null;
  }

  /** The encoded value. */
  get raw(): Bytes {
    return Bytes.at(this.address, <i32>size(this.address, 0x7fffffff, 0));
  }

  /** The value of a bool, else false. */
  get bool(): bool {
    return this.kind == Kind.Bool && load<u8>(this.address, 1) != 0;
  }

  /** The value of an int, or of a float cut to one, else 0. */
  get int(): i64 {
    if (this.kind == Kind.Int) return load<i64>(this.address, 1);
    if (this.kind != Kind.Float) return 0;
    const f = load<f64>(this.address, 1);
    if (isNaN(f)) return 0;
    if (f >= 9223372036854775807.0) return i64.MAX_VALUE;
    return f <= -9223372036854775808.0 ? i64.MIN_VALUE : <i64>f;
  }

  /** The value of a float or an int, else 0. */
  get float(): f64 {
    if (this.kind == Kind.Float) return load<f64>(this.address, 1);
    return this.kind == Kind.Int ? <f64>load<i64>(this.address, 1) : 0;
  }

  /** The octets of a string, else none. */
  get bytes(): Bytes {
    if (this.kind != Kind.String) return Bytes.at(NULL, 0);
    return Bytes.at(this.address + 5, load<i32>(this.address, 1));
  }

  /** The text of a string, else the empty one; memory is taken for it. */
  get text(): string {
    return this.kind == Kind.String ? this.bytes.toString() : "";
  }

  /** The number of members of a list or an object, else 0. */
  get length(): i32 {
    const kind = this.kind;
    return kind == Kind.List || kind == Kind.Object ? load<i32>(this.address, 1) : 0;
  }

  /** The members of a list or an object, in their order. */
  get each(): Members {
    const m = changetype<Members>(brief(offsetof<Members>()));
    m.left = this.length;
    m.object = this.kind == Kind.Object;
    m.rest = this.address + 5;
    m.name = 0;
    m.member = NULL;
    return m;
  }

  /** An object's member of that key, or null. */
  member(key: string): Value {
    if (this.kind != Kind.Object) return Value.none;
    let rest = this.address + 5;
    for (let left = load<i32>(this.address, 1); left > 0; left--) {
      const length = load<i32>(rest);
      const member = rest + 4 + length;
      if (same(rest + 4, length, key)) return changetype<Value>(member);
      rest = member + size(member, 0x7fffffff, 0);
    }
    return Value.none;
  }

  /** A list's member at an index from 0, or null. */
  at(index: i32): Value {
    if (this.kind != Kind.List || <u32>index >= load<u32>(this.address, 1)) return Value.none;
    let rest = this.address + 5;
    while (index-- > 0) rest += size(rest, 0x7fffffff, 0);
    return changetype<Value>(rest);
  }
}

/**
 * The members of a list or an object:
 *
 *     for (const m = value.each; m.next(); ) use(m.key, m.value);
 */
@unmanaged @final
export class Members {
  left: i32;
  object: bool;
  rest: usize;
  name: usize;
  member: usize;

  /** Goes on to the next member; false when there is none. */
  next(): bool {
    if (this.left <= 0) return false;
    this.left--;
    if (this.object) {
      this.name = this.rest;
      this.rest += 4 + load<u32>(this.rest);
    }
    this.member = this.rest;
    this.rest += size(this.rest, 0x7fffffff, 0);
    return true;
  }

  /** The member's key; none in a list. */
  get key(): Bytes {
    return this.name ? Bytes.at(this.name + 4, load<i32>(this.name)) : Bytes.at(NULL, 0);
  }

  /** The member. */
  get value(): Value {
    return changetype<Value>(this.member);
  }
}

/** How long the value at an address is; 0 when it is not whole within room octets. */
export function size(address: usize, room: usize, depth: i32): usize {
  if (room < 1 || depth > DEPTH) return 0;
  const kind = <Kind>load<u8>(address);
  switch (kind) {
    case Kind.Null:
      return 1;
    case Kind.Bool:
      return room < 2 ? 0 : 2;
    case Kind.Int:
    case Kind.Float:
      return room < 9 ? 0 : 9;
    case Kind.String:
    case Kind.List:
    case Kind.Object:
      break;
    default:
      return 0;
  }
  if (room < 5) return 0;
  const count = load<u32>(address, 1);
  if (kind == Kind.String) return room - 5 < count ? 0 : 5 + count;
  let used: usize = 5;
  for (let i: u32 = 0; i < count; i++) {
    if (kind == Kind.Object) {
      if (room - used < 4) return 0;
      const key: usize = load<u32>(address + used);
      if (room - used - 4 < key) return 0;
      used += 4 + key;
    }
    const member = size(address + used, room - used, depth + 1);
    if (!member) return 0;
    used += member;
  }
  return used;
}
