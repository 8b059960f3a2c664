import { give, pages } from "./memory";
import { Bytes } from "./bytes";
import { Kind, Value } from "./value";

/** The most a result's operations, and the input of a host operation, may come to. */
export const MOST: usize = 0xffffff;

/**
 * A buffer that octets are appended to. Made once, as a field of a plugin, it builds texts without a string for each part:
 *
 *     r.setHeader("x-greeting", this.line.clear().put(greeting).put(", ").put(who));
 *
 * It grows to 16,777,215 octets; what does not fit is left out, and full says so.
 */
export class Writer {
  /** Where the octets are. */
  address: usize = 0;
  /** For the SDK: how many there are. */
  used: usize = 0;
  /** Something did not fit. */
  full: bool = false;
  private capacity: usize = 0;
  /** The memory, when the language manages it. */
  private managed: StaticArray<u8> | null = null;
  /** The memory is pages of the SDK's own; static memory until it grows. */
  private own: bool = false;
  private grown: bool = false;

  /** What does not fit is cut. */
  private cuts: bool = false;

  /** For the SDK: a writer to static memory, which takes pages when it grows, or cuts what does not fit. */
  static over(address: usize, capacity: usize, cuts: bool = false): Writer {
    const w = new Writer();
    w.cuts = cuts;
    w.address = address;
    w.capacity = capacity;
    w.own = true;
    return w;
  }

  /** How many octets were written. */
  get length(): i32 {
    return <i32>this.used;
  }

  /** How much memory it has. */
  get room(): usize {
    return this.capacity;
  }

  /** What was written; it is there until the writer is cleared, grows, or is not used any more. */
  get bytes(): Bytes {
    return Bytes.at(this.address, <i32>this.used);
  }

  /** What was written, as a string. */
  toString(): string {
    return String.UTF8.decodeUnsafe(this.address, this.used);
  }

  /** Drops what was written, and keeps the memory for what comes. */
  clear(): Writer {
    this.used = 0;
    this.full = false;
    return this;
  }

  /** Appends a string, Bytes, what another Writer holds, or a whole number in decimal. */
  put<T>(what: T): Writer {
    if (isString<T>()) {
      this.text(changetype<string>(what));
    } else if (isInteger<T>()) {
      // @ts-ignore: what is a number
      this.decimal(<i64>what, !isSigned<T>() && sizeof<T>() == 8);
    } else if (isReference<T>() && !isManaged<T>() && offsetof<T>() == offsetof<Bytes>()) {
      this.append(changetype<Bytes>(what).address, changetype<Bytes>(what).length);
    } else if (isManaged<T>() && idof<T>() == idof<Writer>()) {
      this.append(changetype<Writer>(what).address, changetype<Writer>(what).used);
    } else {
      ERROR("a string, Bytes, a Writer or a whole number can be put");
    }
    return this;
  }

  /** Appends an encoded value: null, a bool, a whole number, a float, a Value as it is, and as strings what put takes. */
  value<T>(what: T): Writer {
    if (isBoolean<T>()) {
      // @ts-ignore: what is a bool
      return this.u8(<u8>Kind.Bool).u8(<bool>what ? 1 : 0);
    } else if (isInteger<T>() && !isReference<T>()) {
      // @ts-ignore: what is a number
      return this.u8(<u8>Kind.Int).u64(<u64>(<i64>what));
    } else if (isFloat<T>()) {
      // @ts-ignore: what is a number
      return this.u8(<u8>Kind.Float).u64(reinterpret<u64>(<f64>what));
    } else if (isReference<T>() && !isManaged<T>() && offsetof<T>() == offsetof<Value>()) {
      const raw = changetype<Value>(what).raw;
      this.append(raw.address, raw.length);
      return this;
    }
    this.u8(<u8>Kind.String);
    return this.sized<T>(what);
  }

  /** Appends a null. */
  none(): Writer {
    return this.u8(<u8>Kind.Null);
  }

  /** Appends the head of a list; that many values follow. */
  list(members: i32): Writer {
    return this.u8(<u8>Kind.List).u32(members);
  }

  /** Appends the head of an object; that many times a key and a value follow. */
  object(members: i32): Writer {
    return this.u8(<u8>Kind.Object).u32(members);
  }

  /** Appends the key of an object's member. */
  key<T>(key: T): Writer {
    return this.sized<T>(key);
  }

  /** For the SDK: what is put, after its length. */
  sized<T>(what: T): Writer {
    const at = this.used;
    this.u32(0).put<T>(what);
    return this.set(at, <u32>(this.used - at - 4));
  }

  /** For the SDK: writes over the u32 at an offset. */
  set(at: usize, n: u32): Writer {
    if (!this.full) store<u32>(this.address + at, n);
    return this;
  }

  u8(n: u8): Writer {
    if (this.fits(1)) {
      store<u8>(this.address + this.used, n);
      this.used += 1;
    }
    return this;
  }

  u16(n: u16): Writer {
    if (this.fits(2)) {
      store<u16>(this.address + this.used, n);
      this.used += 2;
    }
    return this;
  }

  u32(n: u32): Writer {
    if (this.fits(4)) {
      store<u32>(this.address + this.used, n);
      this.used += 4;
    }
    return this;
  }

  u64(n: u64): Writer {
    if (this.fits(8)) {
      store<u64>(this.address + this.used, n);
      this.used += 8;
    }
    return this;
  }

  /** Appends the octets at an address. */
  append(address: usize, length: usize): void {
    if (this.cuts) length = min(length, this.capacity - this.used);
    if (!this.fits(length)) return;
    memory.copy(this.address + this.used, address, length);
    this.used += length;
  }

  private text(s: string): void {
    let units = <usize>s.length;
    if (this.cuts) units = min(units, (this.capacity - this.used) / 3);
    // A unit becomes three octets at most; only where there is little room do they have to be counted first.
    const octets = units * 3;
    if (!this.fits(octets <= this.capacity - this.used ? octets : <usize>String.UTF8.byteLength(s))) return;
    let from = changetype<usize>(s);
    const end = from + (units << 1);
    let to = this.address + this.used;
    // What is ASCII is written four units at a time.
    while (end - from >= 8) {
      let four = load<u64>(from);
      if ((four & 0xff80ff80ff80ff80) != 0) break;
      four = (four | (four >> 8)) & 0x0000ffff0000ffff;
      store<u32>(to, <u32>(four | (four >> 16)));
      from += 8;
      to += 4;
    }
    if (from < end) to += String.UTF8.encodeUnsafe(from, <i32>((end - from) >> 1), to);
    this.used = to - this.address;
  }

  private decimal(n: i64, unsigned: bool): void {
    let rest = <u64>n;
    if (!unsigned && n < 0) {
      this.u8(0x2d);
      rest = 0 - rest;
    }
    let digits = 1;
    for (let r = rest / 10; r > 0; r /= 10) digits++;
    if (!this.fits(digits)) return;
    for (let at = this.address + this.used + digits; digits > 0; digits--) {
      store<u8>(--at, <u8>(0x30 + (rest % 10)));
      rest /= 10;
      this.used++;
    }
  }

  // @ts-ignore: decorator
  @inline
  private fits(n: usize): bool {
    return n <= this.capacity - this.used && !this.full ? true : this.grow(n);
  }

  /** Makes room for n octets more. After the first time that fails nothing is written any more. */
  private grow(n: usize): bool {
    if (this.full || n > MOST || this.used + n > MOST) {
      this.full = true;
      return false;
    }
    return this.reserve(min(max(this.used + n, max(this.capacity * 2, 256)), MOST + 1));
  }

  /** For the SDK: makes it have memory for that many octets, as pages of its own or managed. */
  reserve(capacity: usize): bool {
    if (capacity <= this.capacity) return true;
    if (!this.own) {
      const array = new StaticArray<u8>(<i32>capacity);
      memory.copy(changetype<usize>(array), this.address, this.used);
      this.managed = array;
      this.address = changetype<usize>(array);
      this.capacity = capacity;
      return true;
    }
    const room = (capacity + 0xffff) & ~0xffff;
    if (this.grown && this.address + this.capacity == (<usize>memory.size()) << 16) {
      // It is the last in memory: it grows where it is.
      if (memory.grow(<i32>((room - this.capacity) >> 16)) < 0) {
        this.full = true;
        return false;
      }
      this.capacity = room;
      return true;
    }
    const address = pages(room);
    if (!address) {
      this.full = true;
      return false;
    }
    memory.copy(address, this.address, this.used);
    if (this.grown) give(this.address, this.capacity);
    this.address = address;
    this.capacity = room;
    this.grown = true;
    return true;
  }
}
