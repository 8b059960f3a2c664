//! What happened: frames, taken apart.

use crate::value::{prefixed, u32_at, Kind, Members, Value};

/// What happened to an exchange.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum EventKind {
    /// The exchange has come to a stage of the phases authenticate to request.
    Request = 1,
    /// The next octets of the request's body, with `body = stream` or `events`.
    RequestBody = 2,
    /// The response's head has come.
    Response = 3,
    /// The next octets or server-sent events of the response's body.
    ResponseBody = 4,
    /// What [`crate::Result::await_fetches`] waited for is done: see [`Event::answer`].
    Fetched = 5,
    /// The exchange is over. Always, also when the client has gone.
    Account = 6,
}

/// A fixed point on a request's way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Phase {
    /// Who calls.
    Authenticate = 0,
    /// May this caller do this.
    Authorize = 1,
    /// May it be done now.
    Admit = 2,
    /// Which upstream or model target.
    Route = 3,
    /// Change what goes out.
    Request = 4,
    /// Change what comes back.
    Response = 5,
    /// Settle; always, also when the client has gone.
    Account = 6,
}

/// One use of the plugin in a policy.
#[derive(Debug, Clone, Copy)]
pub struct Stage<'a> {
    /// Counted from 0; the same as [`Event::stage`].
    pub number: usize,
    /// Where it is used.
    pub phase: Phase,
    /// An object: the config block's load-time arguments and blocks, defaults filled in.
    pub config: Value<'a>,
}

/// One thing that happened to an exchange.
///
/// Slots are numbered from 0 in the order `plugin.hcl` declares them for the event's hook: first `sees.headers`, then
/// `sees.attributes`, then the per-request arguments of the manifest and of the hook.
#[derive(Debug, Clone, Copy)]
pub struct Event<'a> {
    /// What happened.
    pub kind: EventKind,
    /// The stage's phase.
    pub phase: Phase,
    /// [`Stage::number`] of the stage it is for.
    pub stage: usize,
    frame: &'a [u8],
    flags: u8,
    slots: usize,
}

const CONFIGURE: u16 = 0;
const HEADER: usize = 32;
const SLOT: usize = 8;

/// A frame, taken apart.
pub(crate) enum Frame<'a> {
    Configure(Stage<'a>),
    Event(Event<'a>),
    /// An event or a phase that this version of the SDK does not know.
    Unknown,
    Malformed,
}

impl<'a> Frame<'a> {
    #[inline]
    pub(crate) fn read(frame: &'a [u8]) -> Frame<'a> {
        let word = |at| u32_at(frame, at).unwrap_or(0);
        let slots = word(12) as usize;
        if frame.len() < HEADER || word(0) as usize != frame.len() || slots > (frame.len() - HEADER) / SLOT {
            return Frame::Malformed;
        }
        let phase = match frame[6] {
            0 => Phase::Authenticate,
            1 => Phase::Authorize,
            2 => Phase::Admit,
            3 => Phase::Route,
            4 => Phase::Request,
            5 => Phase::Response,
            6 => Phase::Account,
            _ => return Frame::Unknown,
        };
        let kind = match u16::from_le_bytes([frame[4], frame[5]]) {
            CONFIGURE => {
                let e = Event { kind: EventKind::Request, phase, stage: word(8) as usize, frame, flags: 0, slots };
                let config = Value::read(e.body().unwrap_or_default());
                return Frame::Configure(Stage { number: e.stage, phase, config: config.unwrap_or_default().0 });
            }
            1 => EventKind::Request,
            2 => EventKind::RequestBody,
            3 => EventKind::Response,
            4 => EventKind::ResponseBody,
            5 => EventKind::Fetched,
            6 => EventKind::Account,
            _ => return Frame::Unknown,
        };
        Frame::Event(Event { kind, phase, stage: word(8) as usize, frame, flags: frame[7], slots })
    }
}

impl<'a> Event<'a> {
    fn word(&self, at: usize) -> u64 {
        u64::from(u32_at(self.frame, at).unwrap_or(0)) | u64::from(u32_at(self.frame, at + 4).unwrap_or(0)) << 32
    }

    /// The wall clock when the event was made, in nanoseconds since 1970.
    pub fn time(&self) -> i64 {
        self.word(16) as i64
    }

    /// A number that is the same in all events of an exchange.
    pub fn exchange(&self) -> u64 {
        self.word(24)
    }

    /// The body is the end of the message's body.
    pub fn end(&self) -> bool {
        self.flags & 1 != 0
    }

    /// The body is server-sent events; with body mode events, whole ones.
    pub fn stream(&self) -> bool {
        self.flags & 2 != 0
    }

    /// The body was longer than `buffer(max)` allows; [`Event::body`] is its beginning and can not be changed.
    pub fn truncated(&self) -> bool {
        self.flags & 4 != 0
    }

    /// The client has gone.
    pub fn gone(&self) -> bool {
        self.flags & 8 != 0
    }

    /// What this plugin carried from an earlier event of the exchange in the same policy.
    pub fn carry(&self) -> Option<&'a [u8]> {
        self.fixed(0)
    }

    /// The body, chunk or server-sent events; None when the event has none, which is not the same as an empty one.
    pub fn body(&self) -> Option<&'a [u8]> {
        self.fixed(1)
    }

    /// Reports whether a slot is there: a header that was not sent, or an attribute not yet known, is not.
    pub fn has(&self, slot: usize) -> bool {
        self.slot(slot).is_some()
    }

    /// The first value of the header in a slot.
    #[inline]
    pub fn header(&self, slot: usize) -> Option<&'a [u8]> {
        Some(prefixed(self.slot(slot)?)?.0)
    }

    /// Every value of the header in a slot.
    pub fn headers(&self, slot: usize) -> Headers<'a> {
        Headers { run: self.slot(slot).unwrap_or_default() }
    }

    /// Name and value of every field, for a hook that sees `headers = ["*"]`.
    pub fn fields(&self, slot: usize) -> Fields<'a> {
        Fields { run: self.headers(slot) }
    }

    /// The attribute or argument in a slot; one that is absent reads as null.
    pub fn value(&self, slot: usize) -> Value<'a> {
        self.slot(slot).and_then(Value::read).unwrap_or_default().0
    }

    /// What came of the [`crate::Fetch`] of that name, with [`EventKind::Fetched`].
    pub fn answer(&self, name: &str) -> Option<Answer<'a>> {
        self.answers().find(|(n, _)| *n == name.as_bytes()).map(|(_, a)| a)
    }

    /// What came of every [`crate::Fetch`], by name, in the order they were asked for.
    pub fn answers(&self) -> Answers<'a> {
        let body = match self.kind {
            EventKind::Fetched => self.body().and_then(Value::read).unwrap_or_default().0,
            _ => Value::default(),
        };
        Answers { members: body.each() }
    }

    fn slot(&self, slot: usize) -> Option<&'a [u8]> {
        self.fixed(slot.checked_add(2)?)
    }

    #[inline]
    fn fixed(&self, slot: usize) -> Option<&'a [u8]> {
        if slot >= self.slots {
            return None;
        }
        let offset = u32_at(self.frame, HEADER + SLOT * slot)? as usize;
        let length = u32_at(self.frame, HEADER + SLOT * slot + 4)? as usize;
        if offset == 0 {
            return None;
        }
        self.frame.get(offset..offset.checked_add(length)?)
    }
}

/// The values of a header field, in order.
#[derive(Debug, Clone)]
pub struct Headers<'a> {
    run: &'a [u8],
}

impl<'a> Iterator for Headers<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let value;
        (value, self.run) = prefixed(self.run)?;
        Some(value)
    }
}

/// Names and values of fields, in order.
#[derive(Debug, Clone)]
pub struct Fields<'a> {
    run: Headers<'a>,
}

impl<'a> Iterator for Fields<'a> {
    type Item = (&'a [u8], &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        Some((self.run.next()?, self.run.next()?))
    }
}

/// What came of a [`crate::Fetch`].
#[derive(Debug, Clone, Copy)]
pub struct Answer<'a> {
    /// Of the HTTP response, 200 to 599; 0 when there was none.
    pub status: u16,
    /// Why there was none: `denied`, `invalid`, `timeout`, `unreachable`, `too_large` or `busy`; empty when there was one.
    pub error: &'a str,
    /// The answer had been given to the same request before.
    pub cached: bool,
    /// As it came: nothing is decompressed.
    pub body: &'a [u8],
    fields: Value<'a>,
}

impl<'a> Answer<'a> {
    /// Reports that an answer came and its status is 2xx.
    pub fn ok(&self) -> bool {
        self.error.is_empty() && (200..300).contains(&self.status)
    }

    /// The value of a header field of the answer, by its name in lower case. Several fields of a name are one, joined by
    /// `, `; those of set-cookie by a line feed.
    pub fn header(&self, name: &str) -> Option<&'a [u8]> {
        let v = self.fields.member(name);
        (v.kind() == Kind::String).then(|| v.bytes())
    }

    /// Name and value of every header field of the answer; the values are strings.
    pub fn fields(&self) -> Members<'a> {
        self.fields.each()
    }
}

/// Names of fetches and what came of them.
#[derive(Debug, Clone)]
pub struct Answers<'a> {
    members: Members<'a>,
}

impl<'a> Iterator for Answers<'a> {
    type Item = (&'a [u8], Answer<'a>);

    fn next(&mut self) -> Option<Self::Item> {
        let (name, v) = self.members.next()?;
        let answer = Answer {
            status: v.member("status").int() as u16,
            error: v.member("error").text().unwrap_or_default(),
            cached: v.member("cached").bool(),
            body: v.member("body").bytes(),
            fields: v.member("headers"),
        };
        Some((name, answer))
    }
}
