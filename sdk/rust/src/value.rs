//! Values: what configurations, attributes, arguments and the host's answers are made of.

use crate::writer::Writer;

/// What a [`Value`] is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Nothing: also what is absent, malformed or of no known kind.
    Null,
    /// True or false.
    Bool,
    /// A whole number of 64 bits: also a duration in nanoseconds, and octets.
    Int,
    /// A number of IEEE 754, 64 bits.
    Float,
    /// Octets: text, and also money, as a decimal.
    String,
    /// Values in a row.
    List,
    /// Values by key.
    Object,
}

const BOOL: u8 = 1;
const INT: u8 = 2;
const FLOAT: u8 = 3;
pub(crate) const STRING: u8 = 4;
pub(crate) const LIST: u8 = 5;
pub(crate) const OBJECT: u8 = 6;

/// How deep values nest at most.
const DEPTH: usize = 32;

/// A view of one encoded value, read in place. What is missing or malformed reads as null.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Value<'a> {
    /// Empty, or one value, whole and well formed.
    raw: &'a [u8],
}

impl<'a> Value<'a> {
    /// The value at the beginning of `octets`, and what follows it; None when there is no whole value.
    pub fn read(octets: &'a [u8]) -> Option<(Value<'a>, &'a [u8])> {
        let (raw, rest) = octets.split_at_checked(size(octets, 0)?)?;
        Some((Value { raw }, rest))
    }

    /// The encoded value; empty for one that is missing.
    pub fn raw(&self) -> &'a [u8] {
        self.raw
    }

    /// What it is.
    pub fn kind(&self) -> Kind {
        match self.raw.first() {
            Some(&BOOL) => Kind::Bool,
            Some(&INT) => Kind::Int,
            Some(&FLOAT) => Kind::Float,
            Some(&STRING) => Kind::String,
            Some(&LIST) => Kind::List,
            Some(&OBJECT) => Kind::Object,
            _ => Kind::Null,
        }
    }

    /// Reports that there is nothing.
    pub fn is_null(&self) -> bool {
        self.kind() == Kind::Null
    }

    /// The value of a bool, else false.
    pub fn bool(&self) -> bool {
        self.raw.len() == 2 && self.raw[0] == BOOL && self.raw[1] != 0
    }

    fn word(&self) -> [u8; 8] {
        let mut word = [0; 8];
        if let Some(octets) = self.raw.get(1..9) {
            word.copy_from_slice(octets);
        }
        word
    }

    /// The value of an int, or of a float cut to one, else 0.
    pub fn int(&self) -> i64 {
        match self.kind() {
            Kind::Int => i64::from_le_bytes(self.word()),
            Kind::Float => self.float() as i64,
            _ => 0,
        }
    }

    /// The value of a float or an int, else 0.
    pub fn float(&self) -> f64 {
        match self.kind() {
            Kind::Int => self.int() as f64,
            Kind::Float => f64::from_le_bytes(self.word()),
            _ => 0.0,
        }
    }

    /// The octets of a string, else none.
    pub fn bytes(&self) -> &'a [u8] {
        match self.kind() {
            Kind::String => &self.raw[5..],
            _ => &[],
        }
    }

    /// The text of a string; None when it is no string, or not UTF-8.
    pub fn text(&self) -> Option<&'a str> {
        match self.kind() {
            Kind::String => core::str::from_utf8(&self.raw[5..]).ok(),
            _ => None,
        }
    }

    /// The number of members of a list or an object, else 0.
    pub fn len(&self) -> usize {
        match self.kind() {
            Kind::List | Kind::Object => u32_at(self.raw, 1).unwrap_or(0) as usize,
            _ => 0,
        }
    }

    /// Reports that there are no members.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The members of a list, with empty keys, or of an object, in their order.
    pub fn each(&self) -> Members<'a> {
        let rest = if self.is_empty() { &[] } else { &self.raw[5..] };
        Members { left: self.len(), object: self.kind() == Kind::Object, rest }
    }

    /// An object's member of that key, or null.
    pub fn member(&self, key: &str) -> Value<'a> {
        if self.kind() != Kind::Object {
            return Value::default();
        }
        self.each().find(|(k, _)| *k == key.as_bytes()).map(|(_, v)| v).unwrap_or_default()
    }

    /// A list's member at an index from 0, or null.
    pub fn at(&self, index: usize) -> Value<'a> {
        if self.kind() != Kind::List {
            return Value::default();
        }
        self.each().nth(index).map(|(_, v)| v).unwrap_or_default()
    }
}

/// The members of a list or an object: key and value.
#[derive(Debug, Clone)]
pub struct Members<'a> {
    left: usize,
    object: bool,
    rest: &'a [u8],
}

impl<'a> Iterator for Members<'a> {
    type Item = (&'a [u8], Value<'a>);

    fn next(&mut self) -> Option<Self::Item> {
        self.left = self.left.checked_sub(1)?;
        let mut key: &[u8] = &[];
        if self.object {
            (key, self.rest) = prefixed(self.rest)?;
        }
        let value;
        (value, self.rest) = Value::read(self.rest)?;
        Some((key, value))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left, Some(self.left))
    }
}

/// How long the value at the beginning of `b` is; None when it is not whole.
fn size(b: &[u8], depth: usize) -> Option<usize> {
    let kind = *b.first()?;
    if depth > DEPTH {
        return None;
    }
    let (fixed, count) = match kind {
        0 => (1, 0),
        BOOL => (2, 0),
        INT | FLOAT => (9, 0),
        STRING => (5usize.checked_add(u32_at(b, 1)? as usize)?, 0),
        LIST | OBJECT => (5, u32_at(b, 1)?),
        _ => return None,
    };
    if fixed > b.len() {
        return None;
    }
    let mut rest = &b[fixed..];
    for _ in 0..count {
        if kind == OBJECT {
            (_, rest) = prefixed(rest)?;
        }
        rest = rest.get(size(rest, depth + 1)?..)?;
    }
    Some(b.len() - rest.len())
}

pub(crate) fn u32_at(b: &[u8], at: usize) -> Option<u32> {
    let octets = b.get(at..at.checked_add(4)?)?;
    Some(u32::from_le_bytes([octets[0], octets[1], octets[2], octets[3]]))
}

/// Takes one string with its length before it off a run.
pub(crate) fn prefixed(run: &[u8]) -> Option<(&[u8], &[u8])> {
    let length = u32_at(run, 0)? as usize;
    run[4..].split_at_checked(length)
}

/// What can be written as a value: `bool`, `i64` and other ints, `f64`, texts and octets as a string, a list of such things, a
/// [`Value`], and an [`Object`]. `()` and None are null.
pub trait ToValue {
    /// Appends itself, encoded.
    fn write_to(&self, to: &mut Writer);
}

impl<T: ToValue + ?Sized> ToValue for &T {
    fn write_to(&self, to: &mut Writer) {
        (**self).write_to(to);
    }
}

impl ToValue for () {
    fn write_to(&self, to: &mut Writer) {
        to.octet(0);
    }
}

impl<T: ToValue> ToValue for Option<T> {
    fn write_to(&self, to: &mut Writer) {
        match self {
            Some(v) => v.write_to(to),
            None => to.octet(0),
        }
    }
}

impl ToValue for Value<'_> {
    fn write_to(&self, to: &mut Writer) {
        to.append(if self.raw.is_empty() { &[0] } else { self.raw });
    }
}

impl ToValue for bool {
    fn write_to(&self, to: &mut Writer) {
        to.append(&[BOOL, *self as u8]);
    }
}

impl ToValue for i64 {
    fn write_to(&self, to: &mut Writer) {
        to.octet(INT);
        to.u64(*self as u64);
    }
}

macro_rules! ints {
    ($($int:ty)*) => {$(
        impl ToValue for $int {
            fn write_to(&self, to: &mut Writer) {
                (*self as i64).write_to(to);
            }
        }
    )*};
}
ints!(i32 u16 u32);

impl ToValue for f64 {
    fn write_to(&self, to: &mut Writer) {
        to.octet(FLOAT);
        to.append(&self.to_le_bytes());
    }
}

impl ToValue for str {
    fn write_to(&self, to: &mut Writer) {
        to.string(self);
    }
}

impl ToValue for [u8] {
    fn write_to(&self, to: &mut Writer) {
        to.string(self);
    }
}

impl<const N: usize> ToValue for [u8; N] {
    fn write_to(&self, to: &mut Writer) {
        to.string(self);
    }
}

#[cfg(feature = "alloc")]
impl ToValue for crate::module::String {
    fn write_to(&self, to: &mut Writer) {
        to.string(self);
    }
}

#[cfg(feature = "alloc")]
impl ToValue for crate::module::Vec<u8> {
    fn write_to(&self, to: &mut Writer) {
        to.string(self);
    }
}

impl<T: ToValue> ToValue for [T] {
    fn write_to(&self, to: &mut Writer) {
        to.list(self.len());
        for v in self {
            v.write_to(to);
        }
    }
}

impl<T: ToValue, const N: usize> ToValue for [T; N] {
    fn write_to(&self, to: &mut Writer) {
        self.as_slice().write_to(to);
    }
}

#[cfg(feature = "alloc")]
impl<T: ToValue> ToValue for crate::module::Vec<T> {
    fn write_to(&self, to: &mut Writer) {
        self.as_slice().write_to(to);
    }
}

/// Is written as an object: keys and members in their order.
///
/// ```
/// use postern::Object;
/// let address = Object(&[("city", &"Ulm"), ("zip", &89073), ("lines", &["a", "b"])]);
/// # let _ = address;
/// ```
#[derive(Clone, Copy)]
pub struct Object<'a>(pub &'a [(&'a str, &'a dyn ToValue)]);

impl ToValue for Object<'_> {
    fn write_to(&self, to: &mut Writer) {
        to.object(self.0.len());
        for (key, v) in self.0 {
            to.key(key);
            v.write_to(to);
        }
    }
}
