import { brief } from "./memory";

/**
 * Octets somewhere in memory: a header's value, a body, what the host answered. They are there until the event is over, or the
 * next call of a method of Host for what that gave; toString and copy keep them.
 */
@unmanaged @final
export class Bytes {
  /** Where they are. */
  address: usize;
  /** How many there are. */
  length: i32;

  /** The octets at an address. */
  static at(address: usize, length: i32): Bytes {
    const b = changetype<Bytes>(brief(offsetof<Bytes>()));
    b.address = address;
    b.length = length;
    return b;
  }

  /** The octet at an index from 0; 0 beyond the end. */
  @operator("[]")
  at(index: i32): u8 {
    return <u32>index < <u32>this.length ? load<u8>(this.address + index) : 0;
  }

  /** Some of them: from, up to and without to. What is beyond the end is left out. */
  slice(from: i32, to: i32 = i32.MAX_VALUE): Bytes {
    const end = max(0, min(to, this.length));
    const begin = max(0, min(from, end));
    return Bytes.at(this.address + begin, end - begin);
  }

  /** Where an octet is first, at or behind from; -1 when it is not there. */
  indexOf(octet: u8, from: i32 = 0): i32 {
    for (let i = max(0, from); i < this.length; i++) {
      if (load<u8>(this.address + i) == octet) return i;
    }
    return -1;
  }

  /** Reports that they are those of the text. */
  is(text: string): bool {
    return same(this.address, this.length, text);
  }

  /** Reports that they begin with those of the text. */
  startsWith(text: string): bool {
    const n = String.UTF8.byteLength(text);
    return n <= this.length && same(this.address, n, text);
  }

  /** Reports that they are the same octets. */
  equals(other: Bytes): bool {
    return this.length == other.length && memory.compare(this.address, other.address, this.length) == 0;
  }

  /** As a string, for which memory is taken. What is not UTF-8 becomes U+FFFD. */
  toString(): string {
    return String.UTF8.decodeUnsafe(this.address, this.length);
  }

  /** As an array of its own, for which memory is taken. */
  copy(): StaticArray<u8> {
    const array = new StaticArray<u8>(this.length);
    memory.copy(changetype<usize>(array), this.address, this.length);
    return array;
  }
}

/** Reports that the octets at an address are those of the text. */
export function same(address: usize, length: i32, text: string): bool {
  const units = text.length;
  let i = 0;
  for (; i < units; i++) {
    const unit = load<u16>(changetype<usize>(text) + (<usize>i << 1));
    if (unit > 0x7f) break;
    if (i >= length || load<u8>(address + i) != <u8>unit) return false;
  }
  if (i == units) return length == units;
  // A text beyond ASCII is encoded first.
  const encoded = String.UTF8.encode(text);
  return encoded.byteLength == length && memory.compare(address, changetype<usize>(encoded), length) == 0;
}
