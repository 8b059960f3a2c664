//! What results and questions are written with.

use crate::module;
use crate::value::{ToValue, LIST, OBJECT, STRING};

/// A buffer that octets are appended to, also without an allocator. It grows to 16,777,215 octets. What does not fit is left
/// out, and [`Writer::full`] says so; when it is a [`crate::Result`]'s, the event fails.
pub struct Writer {
    address: *mut u8,
    length: usize,
    capacity: usize,
    grows: bool,
    /// The memory is from the heap.
    owned: bool,
    full: bool,
}

// SAFETY: a Writer has its memory for itself.
unsafe impl Send for Writer {}
unsafe impl Sync for Writer {}

impl Writer {
    /// The most a result's operations, and the input of a host operation, may come to.
    pub const MOST: usize = (16 << 20) - 1;

    /// A writer that begins with `capacity` octets of static memory and grows beyond.
    ///
    /// The memory must be there for as long as the program runs, and be used by nobody else.
    #[cfg_attr(not(target_arch = "wasm32"), allow(dead_code))]
    pub(crate) const unsafe fn over(address: *mut u8, capacity: usize) -> Writer {
        Writer { address, length: 0, capacity, grows: true, owned: false, full: false }
    }

    /// A writer with no memory yet.
    pub const fn new() -> Writer {
        Writer { address: core::ptr::null_mut(), length: 0, capacity: 0, grows: true, owned: false, full: false }
    }

    /// Calls `then` with a writer to `memory`, which cuts what does not fit.
    pub(crate) fn within<T>(memory: &mut [u8], then: impl FnOnce(&mut Writer) -> T) -> T {
        let (address, capacity) = (memory.as_mut_ptr(), memory.len());
        then(&mut Writer { address, length: 0, capacity, grows: false, owned: false, full: false })
    }

    /// Drops what was written, and keeps the memory for what comes.
    pub fn clear(&mut self) {
        self.length = 0;
        self.full = false;
    }

    /// The memory it has, for the host to write to.
    pub(crate) fn room(&mut self) -> &mut [u8] {
        if self.capacity == 0 {
            return &mut [];
        }
        // SAFETY: the memory is the writer's own; what nobody wrote to is static, or zeroed by reserve.
        unsafe { core::slice::from_raw_parts_mut(self.address, self.capacity) }
    }

    /// Makes room for that many octets in all, and drops what was written. Where it can not, things stay as they are.
    pub(crate) fn reserve(&mut self, capacity: usize) -> bool {
        self.clear();
        if capacity > self.capacity && !self.grow(capacity) {
            self.clear();
            return false;
        }
        // SAFETY: it is the writer's own memory.
        unsafe { core::ptr::write_bytes(self.address, 0, self.capacity) };
        true
    }

    /// Reports that something did not fit.
    pub fn full(&self) -> bool {
        self.full
    }

    /// How many octets were written.
    pub fn len(&self) -> usize {
        self.length
    }

    /// Reports that nothing was written.
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// What was written.
    pub fn octets(&self) -> &[u8] {
        if self.length == 0 {
            return &[];
        }
        // SAFETY: that much was written.
        unsafe { core::slice::from_raw_parts(self.address, self.length) }
    }

    /// Appends octets.
    #[inline]
    pub fn append(&mut self, octets: &[u8]) {
        let n = octets.len();
        if n > self.capacity - self.length && !self.grow(n) {
            if !self.grows {
                self.copy(&octets[..self.capacity - self.length]);
            }
            return;
        }
        self.copy(octets);
    }

    #[inline]
    fn copy(&mut self, octets: &[u8]) {
        let (from, n) = (octets.as_ptr(), octets.len());
        // SAFETY: there is room, and nobody else has the writer's memory. Names and values are mostly short, and copying those as
        // one or two words, which may overlap, takes a fraction of what the engine's own operation does.
        unsafe {
            let to = self.address.add(self.length);
            match n {
                8..=16 => {
                    let last = from.add(n - 8).cast::<u64>().read_unaligned();
                    to.cast::<u64>().write_unaligned(from.cast::<u64>().read_unaligned());
                    to.add(n - 8).cast::<u64>().write_unaligned(last);
                }
                4..=7 => {
                    let last = from.add(n - 4).cast::<u32>().read_unaligned();
                    to.cast::<u32>().write_unaligned(from.cast::<u32>().read_unaligned());
                    to.add(n - 4).cast::<u32>().write_unaligned(last);
                }
                2..=3 => {
                    let last = from.add(n - 1).read();
                    to.cast::<u16>().write_unaligned(from.cast::<u16>().read_unaligned());
                    to.add(n - 1).write(last);
                }
                1 => to.write(from.read()),
                _ => core::ptr::copy_nonoverlapping(from, to, n),
            }
        }
        self.length += n;
    }

    /// Appends a text, octets, or several one after the other.
    pub fn put(&mut self, octets: impl Octets) {
        octets.put_to(self);
    }

    /// Appends an encoded value.
    pub fn value(&mut self, value: impl ToValue) {
        value.write_to(self);
    }

    /// Appends the head of a list; that many values follow.
    pub fn list(&mut self, members: usize) {
        self.octet(LIST);
        self.u32(members as u32);
    }

    /// Appends the head of an object; that many times a key and a value follow.
    pub fn object(&mut self, members: usize) {
        self.octet(OBJECT);
        self.u32(members as u32);
    }

    /// Appends the key of an object's member.
    pub fn key(&mut self, key: impl Octets) {
        self.sized(|to| key.put_to(to));
    }

    /// Appends a string, of a text, octets, or several one after the other.
    pub fn string(&mut self, octets: impl Octets) {
        self.octet(STRING);
        self.key(octets);
    }

    #[inline]
    pub(crate) fn octet(&mut self, v: u8) {
        self.append(&[v]);
    }

    #[inline]
    pub(crate) fn u16(&mut self, v: u16) {
        self.append(&v.to_le_bytes());
    }

    #[inline]
    pub(crate) fn u32(&mut self, v: u32) {
        self.append(&v.to_le_bytes());
    }

    #[inline]
    pub(crate) fn u64(&mut self, v: u64) {
        self.append(&v.to_le_bytes());
    }

    /// Appends what `what` writes, with its length, a u32, before it.
    pub(crate) fn sized(&mut self, what: impl FnOnce(&mut Writer)) {
        let at = self.length;
        self.u32(0);
        what(self);
        self.set_u32(at, self.length.wrapping_sub(at + 4) as u32);
    }

    /// Writes over what is at an offset.
    pub(crate) fn set_u32(&mut self, at: usize, v: u32) {
        if at + 4 <= self.length {
            // SAFETY: it is within what was written.
            unsafe { self.address.add(at).cast::<[u8; 4]>().write(v.to_le_bytes()) };
        }
    }

    /// Makes room for n octets more. After the first time that fails nothing is written any more.
    #[cold]
    #[inline(never)]
    fn grow(&mut self, n: usize) -> bool {
        let need = self.length.saturating_add(n);
        if self.full || !self.grows || need > Self::MOST {
            self.stop();
            return false;
        }
        let capacity = need.max(self.capacity.saturating_mul(2)).clamp(1 << 10, Self::MOST + 1);
        let address = module::more(capacity);
        if address.is_null() {
            self.stop();
            return false;
        }
        if self.length > 0 {
            // SAFETY: the new memory is larger, and nobody else's.
            unsafe { core::ptr::copy_nonoverlapping(self.address, address, self.length) };
        }
        self.release();
        (self.address, self.capacity, self.owned) = (address, capacity, true);
        true
    }

    fn stop(&mut self) {
        self.full = true;
        if self.grows {
            // No room, so that every later put comes here.
            self.length = self.capacity;
        }
    }

    fn release(&mut self) {
        if self.owned {
            // SAFETY: the memory came from module::more with this capacity.
            unsafe { module::less(self.address, self.capacity) };
        }
    }
}

impl Default for Writer {
    fn default() -> Self {
        Self::new()
    }
}

impl Octets for Writer {
    fn put_to(&self, to: &mut Writer) {
        to.append(self.octets());
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.release();
    }
}

impl core::fmt::Write for Writer {
    fn write_str(&mut self, s: &str) -> core::fmt::Result {
        self.append(s.as_bytes());
        Ok(())
    }
}

/// What can be written where octets go: a text, octets, a number in decimal, the arguments of `format_args!`, or a tuple of
/// such things, which is written one after the other, as `("Bearer ", token)`.
pub trait Octets {
    /// Appends itself.
    fn put_to(&self, to: &mut Writer);
}

impl Octets for [u8] {
    #[inline]
    fn put_to(&self, to: &mut Writer) {
        to.append(self);
    }
}

impl<const N: usize> Octets for [u8; N] {
    #[inline]
    fn put_to(&self, to: &mut Writer) {
        to.append(self);
    }
}

impl Octets for str {
    #[inline]
    fn put_to(&self, to: &mut Writer) {
        to.append(self.as_bytes());
    }
}

#[cfg(feature = "alloc")]
impl Octets for module::String {
    #[inline]
    fn put_to(&self, to: &mut Writer) {
        to.append(self.as_bytes());
    }
}

#[cfg(feature = "alloc")]
impl Octets for module::Vec<u8> {
    #[inline]
    fn put_to(&self, to: &mut Writer) {
        to.append(self);
    }
}

impl Octets for core::fmt::Arguments<'_> {
    fn put_to(&self, to: &mut Writer) {
        // A Writer's write_str gives no error; a full one remembers.
        let _ = core::fmt::write(to, *self);
    }
}

impl<T: Octets + ?Sized> Octets for &T {
    #[inline]
    fn put_to(&self, to: &mut Writer) {
        (**self).put_to(to);
    }
}

impl Octets for u64 {
    fn put_to(&self, to: &mut Writer) {
        let (mut digits, mut at, mut n) = ([0u8; 20], 20, *self);
        loop {
            at -= 1;
            digits[at] = b'0' + (n % 10) as u8;
            n /= 10;
            if n == 0 {
                return to.append(&digits[at..]);
            }
        }
    }
}

impl Octets for i64 {
    fn put_to(&self, to: &mut Writer) {
        if *self < 0 {
            to.octet(b'-');
        }
        self.unsigned_abs().put_to(to);
    }
}

macro_rules! numbers {
    ($($small:ty as $large:ty),*) => {$(
        impl Octets for $small {
            fn put_to(&self, to: &mut Writer) {
                (*self as $large).put_to(to);
            }
        }
    )*};
}
numbers!(u16 as u64, u32 as u64, usize as u64, i32 as i64);

macro_rules! tuples {
    ($(($($name:ident)+))*) => {$(
        impl<$($name: Octets),+> Octets for ($($name,)+) {
            #[inline]
            fn put_to(&self, to: &mut Writer) {
                #[allow(non_snake_case)]
                let ($($name,)+) = self;
                $($name.put_to(to);)+
            }
        }
    )*};
}
tuples!((A B) (A B C) (A B C D) (A B C D E) (A B C D E F) (A B C D E F G) (A B C D E F G H));
