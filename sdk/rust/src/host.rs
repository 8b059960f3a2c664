//! What a plugin may ask while it runs.

use core::time::Duration;

use crate::result::nanoseconds;
use crate::value::{ToValue, Value};
use crate::writer::{Octets, Writer};

/// Why the host did not do what was asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Error {
    /// No such key, account or hold.
    NotFound = -1,
    /// [`Host::cas`]: the stored value differs.
    Conflict = -2,
    /// The operator did not grant what this needs.
    Denied = -3,
    /// Malformed or too large.
    Invalid = -4,
    /// The answer is larger than the host gives.
    TooSmall = -5,
    /// The host can not do it now.
    Unavailable = -6,
    /// [`Host::hold`]: the balance does not cover it.
    Insufficient = -7,
    /// [`Host::key`]: revoked or expired.
    Expired = -8,
    /// Too many calls in one event, or no room in the plugin's state.
    Limit = -9,
    /// The host is too old for this.
    Unknown = -10,
}

impl Error {
    fn from(code: i64) -> Error {
        match code {
            -1 => Error::NotFound,
            -2 => Error::Conflict,
            -3 => Error::Denied,
            -4 => Error::Invalid,
            -5 => Error::TooSmall,
            -6 => Error::Unavailable,
            -7 => Error::Insufficient,
            -8 => Error::Expired,
            -9 => Error::Limit,
            _ => Error::Unknown,
        }
    }

    /// The error in words.
    pub fn text(&self) -> &'static str {
        match self {
            Error::NotFound => "not found",
            Error::Conflict => "the stored value differs",
            Error::Denied => "not granted",
            Error::Invalid => "malformed or too large",
            Error::TooSmall => "answer too large",
            Error::Unavailable => "not available now",
            Error::Insufficient => "insufficient balance",
            Error::Expired => "revoked or expired",
            Error::Limit => "too many calls, or no room left",
            Error::Unknown => "not known to the host",
        }
    }
}

impl core::fmt::Display for Error {
    fn fmt(&self, f: &mut core::fmt::Formatter) -> core::fmt::Result {
        f.write_str(self.text())
    }
}

impl core::error::Error for Error {}

/// What the host answered.
pub type Asked<T> = core::result::Result<T, Error>;

/// How much a line of the log matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Level {
    /// For whoever looks for a fault.
    Debug = 0,
    /// For the record.
    Info = 1,
    /// Something is not as it should be.
    Warn = 2,
    /// Something failed.
    Error = 3,
}

/// The most the host reads of a line.
const LINE: usize = 1 << 10;

/// Writes a line to the gateway's log under the plugin's name. Lines are cut at 1 KiB, and an event may write 8 KiB. Write no
/// personal data and no secrets.
pub fn log(level: Level, line: impl Octets) {
    Writer::within(&mut [0; LINE], |to| {
        line.put_to(to);
        import::log(level, to.octets());
    });
}

#[cfg(target_arch = "wasm32")]
mod import {
    #[link(wasm_import_module = "postern")]
    extern "C" {
        #[link_name = "log"]
        fn host_log(level: i32, address: *const u8, length: usize);
        #[link_name = "op"]
        fn host_op(code: u32, input: *const u8, length: usize, out: *mut u8, capacity: usize) -> i64;
    }

    pub(super) fn log(level: super::Level, line: &[u8]) {
        // SAFETY: the host reads the line and keeps nothing.
        unsafe { host_log(level as i32, line.as_ptr(), line.len()) }
    }

    pub(super) fn op(code: u32, input: &[u8], out: &mut [u8]) -> i64 {
        // SAFETY: the host reads the one and writes the other within its bounds.
        unsafe { host_op(code, input.as_ptr(), input.len(), out.as_mut_ptr(), out.len()) }
    }
}

#[cfg(not(target_arch = "wasm32"))]
mod import {
    use std::cell::RefCell;
    use std::collections::VecDeque;
    use std::string::String;
    use std::vec::Vec;

    use super::Level;

    /// How many lines are kept for `logged`.
    const KEPT: usize = 1 << 10;

    std::thread_local! {
        static LOGGED: RefCell<VecDeque<(Level, String)>> = const { RefCell::new(VecDeque::new()) };
    }

    pub(super) fn log(level: Level, line: &[u8]) {
        LOGGED.with_borrow_mut(|lines| {
            if lines.len() == KEPT {
                lines.pop_front();
            }
            lines.push_back((level, String::from_utf8_lossy(line).into_owned()));
        });
    }

    /// Outside a module, for tests: takes what this thread has logged, the last 1,024 lines of it.
    pub fn logged() -> Vec<(Level, String)> {
        LOGGED.take().into()
    }

    /// Outside a module, for tests: does what a plugin asks of the gateway.
    pub trait Backend {
        /// Does what code asks with input and writes the answer to out; the result is the number of octets written, or a
        /// negative error of `sdk/ABI.md`.
        fn op(&mut self, code: u32, input: &[u8], out: &mut [u8]) -> i64;
    }
}

#[cfg(not(target_arch = "wasm32"))]
pub use import::{logged, Backend};

const TIME: u32 = 1;
const RANDOM: u32 = 2;
const GET: u32 = 3;
const PUT: u32 = 4;
const CAS: u32 = 5;
const DELETE: u32 = 6;
const COUNT: u32 = 7;
const KEY: u32 = 8;
const HOLD: u32 = 9;
const SETTLE: u32 = 10;
const RELEASE: u32 = 11;
const CACHE_GET: u32 = 12;
const CACHE_PUT: u32 = 13;

/// The old length of CAS that asks that nothing be there.
const NOTHING: u32 = 0xffff_ffff;
/// Octets of any answer.
const MOST_ANSWER: usize = 64 << 10;

/// What a plugin may ask while it runs. What a method returns can be used until the next call. A method that needs a grant
/// says which. Every event may make at most 1,024 calls, if the operator writes nothing else.
pub struct Host {
    input: Writer,
    /// What the host answered, and room for it.
    output: Writer,
    #[cfg(not(target_arch = "wasm32"))]
    backend: std::boxed::Box<dyn Backend>,
}

impl Host {
    #[cfg(target_arch = "wasm32")]
    pub(crate) const fn new(input: Writer, output: Writer) -> Host {
        Host { input, output }
    }

    #[cfg(not(target_arch = "wasm32"))]
    pub(crate) fn new(backend: std::boxed::Box<dyn Backend>) -> Host {
        Host { input: Writer::new(), output: Writer::new(), backend }
    }

    /// Asks for an operation as `sdk/ABI.md` describes it, octet by octet: for one that this crate has no method for yet. The
    /// result is the number of octets written to out, or a negative error.
    pub fn op(&mut self, code: u32, input: &[u8], out: &mut [u8]) -> i64 {
        #[cfg(target_arch = "wasm32")]
        return import::op(code, input, out);
        #[cfg(not(target_arch = "wasm32"))]
        self.backend.op(code, input, out)
    }

    fn call(&mut self, code: u32, input: impl FnOnce(&mut Writer)) -> Asked<&[u8]> {
        self.input.clear();
        input(&mut self.input);
        if self.input.full() {
            return Err(Error::Invalid);
        }
        let (input, out) = (self.input.octets(), self.output.room());
        #[cfg(target_arch = "wasm32")]
        let op = import::op;
        #[cfg(not(target_arch = "wasm32"))]
        let mut op = |code, input: &[u8], out: &mut [u8]| self.backend.op(code, input, out);
        let mut n = op(code, input, out);
        if n == Error::TooSmall as i64 && out.len() < MOST_ANSWER && self.output.reserve(MOST_ANSWER) {
            n = op(code, input, self.output.room());
        }
        match usize::try_from(n) {
            Ok(n) => self.output.room().get(..n).map(|out| out as &[u8]).ok_or(Error::TooSmall),
            Err(_) => Err(Error::from(n)),
        }
    }

    /// An answer of eight octets.
    fn number(&mut self, code: u32, input: impl FnOnce(&mut Writer)) -> Asked<i64> {
        let out = self.call(code, input)?;
        Ok(i64::from_le_bytes(out.try_into().map_err(|_| Error::Invalid)?))
    }

    /// An answer that is a value.
    fn value(&mut self, code: u32, input: impl FnOnce(&mut Writer)) -> Asked<Value<'_>> {
        Ok(Value::read(self.call(code, input)?).ok_or(Error::Invalid)?.0)
    }

    /// The wall clock in nanoseconds since 1970. [`crate::Event::time`] is nearer and mostly enough.
    pub fn time(&mut self) -> Asked<i64> {
        self.number(TIME, |_| ())
    }

    /// Fills a slice, of at most 4 KiB, with octets fit for keys.
    pub fn random(&mut self, fill: &mut [u8]) -> Asked<()> {
        match self.op(RANDOM, &[], fill) {
            n if n < 0 => Err(Error::from(n)),
            n if n as usize != fill.len() => Err(Error::Invalid),
            _ => Ok(()),
        }
    }

    /// Reads from the plugin's state on this node (grant state). [`Error::NotFound`] when the key is not there or its time is
    /// over.
    pub fn get(&mut self, key: impl Octets) -> Asked<&[u8]> {
        self.call(GET, |to| key.put_to(to))
    }

    /// Writes to the plugin's state; a ttl of zero keeps it until it is deleted or the gateway stops (grant state).
    pub fn put(&mut self, key: impl Octets, value: impl Octets, ttl: Duration) -> Asked<()> {
        self.store(PUT, key, value, ttl)
    }

    fn store(&mut self, code: u32, key: impl Octets, value: impl Octets, ttl: Duration) -> Asked<()> {
        self.call(code, |to| {
            to.u64(nanoseconds(ttl));
            to.key(key);
            value.put_to(to);
        })?;
        Ok(())
    }

    /// Writes value only when what is stored is old, None meaning nothing; else [`Error::Conflict`] (grant state).
    pub fn cas(&mut self, key: impl Octets, old: Option<&[u8]>, value: impl Octets, ttl: Duration) -> Asked<()> {
        self.call(CAS, |to| {
            to.u64(nanoseconds(ttl));
            let at = to.len();
            to.u32(0);
            to.u32(old.map_or(NOTHING, |old| old.len() as u32));
            let begin = to.len();
            key.put_to(to);
            to.set_u32(at, to.len().wrapping_sub(begin) as u32);
            to.append(old.unwrap_or_default());
            value.put_to(to);
        })?;
        Ok(())
    }

    /// Removes a key from the plugin's state; removing what is not there is no error (grant state).
    pub fn delete(&mut self, key: impl Octets) -> Asked<()> {
        self.call(DELETE, |to| key.put_to(to))?;
        Ok(())
    }

    /// Adds delta to a counter and returns its new value. A counter begins at 0; ttl counts from its first use (grant state).
    pub fn count(&mut self, key: impl Octets, delta: i64, ttl: Duration) -> Asked<i64> {
        self.number(COUNT, |to| {
            to.u64(delta as u64);
            to.u64(nanoseconds(ttl));
            key.put_to(to);
        })
    }

    /// Reads from the caller's account's part of the plugin's cache (grant cache). [`Error::NotFound`] when the key is not
    /// there or its time is over; [`Error::Unavailable`] when the caller has no account.
    pub fn cache_get(&mut self, key: impl Octets) -> Asked<&[u8]> {
        self.call(CACHE_GET, |to| key.put_to(to))
    }

    /// Writes to the caller's account's part of the plugin's cache (grant cache), where the least used makes room. The ttl is
    /// more than zero. [`Error::Unavailable`] when the caller has no account; [`Error::Limit`] when the value is larger than
    /// the whole cache.
    pub fn cache_put(&mut self, key: impl Octets, value: impl Octets, ttl: Duration) -> Asked<()> {
        self.store(CACHE_PUT, key, value, ttl)
    }

    /// Finds who a presented API key belongs to (grant accounts). [`Error::NotFound`]: no such key; [`Error::Expired`]:
    /// revoked, expired, or its account is closed.
    pub fn key(&mut self, presented: impl Octets) -> Asked<Identity<'_>> {
        let v = self.value(KEY, |to| presented.put_to(to))?;
        Ok(Identity {
            account: v.member("account").bytes(),
            key: v.member("key").bytes(),
            name: v.member("name").bytes(),
            scopes: v.member("scopes"),
        })
    }

    /// Reserves the most a call can cost (grant ledger): max is the attribute `usage.max`. [`Error::Insufficient`]: the
    /// balance does not cover it; [`Error::NotFound`]: no such account.
    pub fn hold(&mut self, account: impl Octets, model: impl Octets, max: Value) -> Asked<Hold<'_>> {
        let v = self.value(HOLD, |to| {
            to.object(3);
            to.key("account");
            to.string(account);
            to.key("model");
            to.string(model);
            to.key("max");
            max.write_to(to);
        })?;
        Ok(Hold { hold: v.member("hold").bytes(), amount: v.member("amount").bytes() })
    }

    /// Charges what a call used against its hold, once, and at most what was held (grant ledger). Usage is the attribute
    /// `response.usage`; tags an object of strings that is written on the ledger entry, or null. [`Error::NotFound`]: no such
    /// hold.
    pub fn settle(&mut self, hold: impl Octets, usage: Value, estimated: bool, tags: impl ToValue) -> Asked<Receipt<'_>> {
        let v = self.value(SETTLE, |to| {
            to.object(4);
            to.key("hold");
            to.string(hold);
            to.key("usage");
            usage.write_to(to);
            to.key("estimated");
            estimated.write_to(to);
            to.key("tags");
            tags.write_to(to);
        })?;
        Ok(Receipt { amount: v.member("amount").bytes(), balance: v.member("balance").bytes() })
    }

    /// Gives back what a hold reserved, for a call that was never served (grant ledger). [`Error::NotFound`]: no such hold.
    pub fn release(&mut self, hold: impl Octets) -> Asked<()> {
        self.call(RELEASE, |to| hold.put_to(to))?;
        Ok(())
    }
}

/// Who an API key belongs to.
#[derive(Debug, Clone, Copy)]
pub struct Identity<'a> {
    /// The account.
    pub account: &'a [u8],
    /// The key's id, which is no secret.
    pub key: &'a [u8],
    /// The key's name.
    pub name: &'a [u8],
    /// A list of strings.
    pub scopes: Value<'a>,
}

/// What was reserved.
#[derive(Debug, Clone, Copy)]
pub struct Hold<'a> {
    /// The hold's id.
    pub hold: &'a [u8],
    /// Decimal, in the ledger's currency.
    pub amount: &'a [u8],
}

/// What a call cost.
#[derive(Debug, Clone, Copy)]
pub struct Receipt<'a> {
    /// Decimal, in the ledger's currency.
    pub amount: &'a [u8],
    /// What is left and not held.
    pub balance: &'a [u8],
}
