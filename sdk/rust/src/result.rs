//! What a plugin decides.

use core::time::Duration;

use crate::module::Action;
use crate::value::ToValue;
use crate::writer::{Octets, Writer};

/// What the plugin decides. As it is given to [`crate::Plugin::on`] it means: go on, change nothing. Operations take effect
/// together, after `on` returned Ok; the host refuses the whole result when one of them is not allowed (`sdk/ABI.md` says
/// what is allowed where). One that comes to more than 16,777,215 octets fails the event.
pub struct Result {
    pub(crate) action: Action,
    pub(crate) operations: Writer,
    /// A key that does not fit into an operation was used.
    pub(crate) long: bool,
}

const HEADER_SET: u8 = 1;
const HEADER_ADD: u8 = 2;
const HEADER_REMOVE: u8 = 3;
const ATTRIBUTE: u8 = 4;
const BODY_REPLACE: u8 = 5;
const BODY_SPLICE: u8 = 6;
const BODY_DROP: u8 = 7;
const RESPOND: u8 = 8;
const RESPOND_BODY: u8 = 9;
const CARRY: u8 = 10;
const FETCH: u8 = 11;
const METER: u8 = 12;

impl Result {
    pub(crate) const fn new(operations: Writer) -> Result {
        Result { action: Action::Continue, operations, long: false }
    }

    pub(crate) fn clear(&mut self) {
        self.action = Action::Continue;
        self.operations.clear();
        self.long = false;
    }

    /// Appends an operation. The value's length is known when it has been written.
    #[inline]
    fn operation(&mut self, code: u8, key: &str, value: impl FnOnce(&mut Writer)) {
        let to = &mut self.operations;
        let length = key.len().min(0xffff);
        self.long |= length != key.len();
        let at = to.len();
        to.u64(u64::from(code) | (length as u64) << 16);
        to.append(&key.as_bytes()[..length]);
        let begin = to.len();
        value(to);
        to.set_u32(at + 4, to.len().wrapping_sub(begin) as u32);
    }

    /// Sets a header field: the request's before the response phase, then the response's, and the answer's together with
    /// [`Result::respond`]. The name is in lower case.
    pub fn set_header(&mut self, name: &str, value: impl Octets) {
        self.operation(HEADER_SET, name, |to| value.put_to(to));
    }

    /// Adds a field and keeps those of the same name.
    pub fn add_header(&mut self, name: &str, value: impl Octets) {
        self.operation(HEADER_ADD, name, |to| value.put_to(to));
    }

    /// Removes every field of that name.
    pub fn remove_header(&mut self, name: &str) {
        self.operation(HEADER_REMOVE, name, |_| ());
    }

    /// Sets an attribute: one of the host's where the phase allows it (identity.account, identity.key, identity.name and
    /// identity.scopes in authenticate, targets in route), or one of the plugin's own, written `self.name`, a string, which
    /// expressions read as `attribute["<plugin>.name"]`.
    pub fn set_attribute(&mut self, name: &str, value: impl ToValue) {
        self.operation(ATTRIBUTE, name, |to| value.write_to(to));
    }

    /// Puts a body in the place of the octets [`crate::Event::body`] gave.
    pub fn replace_body(&mut self, body: impl Octets) {
        self.operation(BODY_REPLACE, "", |to| body.put_to(to));
    }

    /// Cuts octets out of what [`crate::Event::body`] gave and puts others there. Splices ascend and do not overlap.
    pub fn splice(&mut self, offset: usize, cut: usize, put: impl Octets) {
        self.operation(BODY_SPLICE, "", |to| {
            to.u32(offset.min(u32::MAX as usize) as u32);
            to.u32(cut.min(u32::MAX as usize) as u32);
            put.put_to(to);
        });
    }

    /// Drops the octets [`crate::Event::body`] gave.
    pub fn drop_body(&mut self) {
        self.operation(BODY_DROP, "", |_| ());
    }

    /// Answers the client with a problem document: a status from 400 to 599, a stable code (a-z, 0-9 and _, at most 64
    /// octets) and a text for the caller, which may be empty (at most 1 KiB). In authenticate it means: not this identity;
    /// other authenticate stages may still accept the caller. Followed by [`Result::respond_body`] the status may be 200 to
    /// 599.
    pub fn respond(&mut self, status: u16, code: &str, detail: impl Octets) {
        self.action = Action::Respond;
        self.operation(RESPOND, code, |to| {
            to.u16(status);
            detail.put_to(to);
        });
    }

    /// Gives the answer of [`Result::respond`] a body of its own instead of a problem document.
    pub fn respond_body(&mut self, content_type: &str, body: impl Octets) {
        self.operation(RESPOND_BODY, content_type, |to| body.put_to(to));
    }

    /// Keeps octets (at most 64 KiB) for the next events of the exchange at any stage of this plugin in the same policy;
    /// they replace what was carried before.
    pub fn carry(&mut self, octets: impl Octets) {
        self.operation(CARRY, "", |to| octets.put_to(to));
    }

    /// Adds n, at least 0, to the plugin's counter of that name (a-z, 0-9 and _), which the gateway shows in its metrics.
    pub fn meter(&mut self, name: &str, n: i64) {
        self.operation(METER, name, |to| to.u64(n as u64));
    }

    /// Asks for no more events at this stage in this exchange; the operations of this result apply.
    pub fn done(&mut self) {
        self.action = Action::Done;
    }

    /// Asks for a request, to be made when the result awaits; up to eight with different names (a-z, 0-9 and _, at most 64
    /// octets), which are made at the same time. What came of them is [`crate::Event::answer`]. Besides fetches, a result
    /// that awaits may hold [`Result::carry`] and [`Result::meter`] only.
    pub fn fetch(&mut self, name: &str, fetch: &Fetch) {
        self.operation(FETCH, name, |to| {
            let at = to.len();
            to.object(0);
            let mut members = 0;
            for (key, value) in [
                ("url", fetch.url.as_bytes()),
                ("upstream", fetch.upstream.as_bytes()),
                ("path", fetch.path.as_bytes()),
                ("method", fetch.method.as_bytes()),
                ("body", fetch.body),
            ] {
                if !value.is_empty() {
                    to.key(key);
                    to.string(value);
                    members += 1;
                }
            }
            for (key, n) in [
                ("timeout", nanoseconds(fetch.timeout) as i64),
                ("cache", nanoseconds(fetch.cache) as i64),
                ("max", i64::from(fetch.max)),
            ] {
                if n != 0 {
                    to.key(key);
                    n.write_to(to);
                    members += 1;
                }
            }
            if !fetch.headers.is_empty() {
                to.key("headers");
                to.object(fetch.headers.len());
                for (name, value) in fetch.headers {
                    to.key(name);
                    to.string(value);
                }
                members += 1;
            }
            to.set_u32(at + 1, members);
        });
    }

    /// Asks to be called again, with [`crate::EventKind::Fetched`], when every [`Result::fetch`] of this result is done. No
    /// instance is held until then: what the plugin has to remember goes into [`Result::carry`].
    pub fn await_fetches(&mut self) {
        self.action = Action::Await;
    }
}

/// An HTTP request that a plugin asks the gateway to make, with the grant fetch.
///
/// ```
/// # fn on(result: &mut postern::Result, token: &[u8]) {
/// result.fetch("who", &postern::Fetch {
///     url: "https://auth.example.com/introspect",
///     headers: &[("authorization", &("Bearer ", token))],
///     cache: core::time::Duration::from_secs(60),
///     ..Default::default()
/// });
/// result.await_fetches();
/// # }
/// ```
#[derive(Clone, Copy, Default)]
pub struct Fetch<'a> {
    /// Absolute; its origin is one the operator granted. Or else:
    pub url: &'a str,
    /// an upstream's name, which the operator granted,
    pub upstream: &'a str,
    /// with the path there, and the query.
    pub path: &'a str,
    /// Default GET.
    pub method: &'a str,
    /// Names in lower case, each once, and values.
    pub headers: &'a [(&'a str, &'a dyn Octets)],
    /// None with GET and HEAD.
    pub body: &'a [u8],
    /// Default, and most: what the operator allows.
    pub timeout: Duration,
    /// How old an answer may be that was given to the same request; zero: it is made anew.
    pub cache: Duration,
    /// Octets of the answer's body, at most 1 MiB; default 64 KiB.
    pub max: u32,
}

/// A duration as the ABI writes it; one of more than 292 years becomes 292 years.
pub(crate) fn nanoseconds(d: Duration) -> u64 {
    d.as_nanos().min(i64::MAX as u128) as u64
}
