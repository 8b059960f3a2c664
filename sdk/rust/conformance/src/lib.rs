//! The Rust SDK's conformance guest: it does what a script says and tells what it saw. What it has to do is
//! sdk/conformance/README.md.

#![no_std]
extern crate alloc;

use alloc::borrow::Cow;
use alloc::format;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;
use core::time::Duration;

use postern::{Asked, Error, Event, EventKind, Failure, Fetch, Host, Kind, Level, Octets, Outcome, Plugin, Stage, Value, Writer};

const DO: usize = 6;
const MOST_KEPT: usize = 1024;
const MOST_SAW: usize = 16_000;

postern::plugin!(Guest);

/// One instance.
#[derive(Default)]
struct Guest {
    /// What each stage saw when it was configured.
    kept: Vec<Vec<u8>>,
    calls: u64,
    saw: Saw,
}

impl Plugin for Guest {
    fn configure(&mut self, stage: &Stage, host: &mut Host) -> Outcome {
        self.saw.0.clear();
        let mut run = Run { now: Now::Stage(stage), kept: &[], calls: self.calls, saw: &mut self.saw, host, ended: false };
        run.script(stage.config.member("setup").bytes(), None)?;
        let saw = self.saw.0.octets();
        self.kept.push(saw[..saw.len().min(MOST_KEPT)].into());
        Ok(())
    }

    fn on(&mut self, event: &Event, result: &mut postern::Result, host: &mut Host) -> Outcome {
        self.calls += 1;
        self.saw.0.clear();
        let script = match event.kind {
            EventKind::Fetched => event.carry().unwrap_or_default(),
            _ => event.value(DO).bytes(),
        };
        let kept = &self.kept[event.stage];
        let mut run = Run { now: Now::Event(event), kept, calls: self.calls, saw: &mut self.saw, host, ended: false };
        run.script(script, Some(result))?;
        if !run.ended && !self.saw.0.is_empty() {
            result.set_attribute("self.saw", self.saw.0.octets());
        }
        Ok(())
    }
}

/// What a script runs in.
enum Now<'a> {
    Stage(&'a Stage<'a>),
    Event(&'a Event<'a>),
}

/// A script that runs.
struct Run<'a> {
    now: Now<'a>,
    kept: &'a [u8],
    calls: u64,
    saw: &'a mut Saw,
    host: &'a mut Host,
    ended: bool,
}

/// A word of a script, as it stands there.
type Word<'a> = &'a [u8];

fn number(word: Word) -> i64 {
    core::str::from_utf8(word).ok().and_then(|s| s.parse().ok()).unwrap_or(0)
}

fn ttl(word: Word) -> Duration {
    Duration::from_nanos(number(word) as u64)
}

/// How many words a command has at least, its name included.
fn fewest(command: &[u8]) -> Option<usize> {
    Some(match command {
        b"event" | b"time" | b"exchange" | b"calls" | b"setup" | b"drop" | b"done" | b"await" | b"spin" | b"now" => 1,
        b"see" | b"has" | b"header" | b"headers" | b"fields" | b"value" | b"encode" | b"answer" => 2,
        b"remove" | b"strings" | b"ints" | b"replace" | b"carry" | b"fetch" | b"error" | b"trap" => 2,
        b"random" | b"get" | b"delete" | b"key" | b"release" | b"cacheget" => 2,
        b"member" | b"at" | b"set" | b"add" | b"attribute" | b"copy" | b"content" | b"meter" | b"repeat" | b"log" => 3,
        b"splice" | b"respond" | b"put" | b"count" | b"hold" | b"cacheput" | b"op" => 4,
        b"cas" | b"settle" => 5,
        _ => return None,
    })
}

impl<'a> Run<'a> {
    /// Runs a script. There is no result while a stage is configured.
    fn script(&mut self, script: &[u8], mut result: Option<&mut postern::Result>) -> Outcome {
        let mut rest = script;
        while !rest.is_empty() && !self.ended {
            let end = rest.iter().position(|&c| c == b';');
            let command = &rest[..end.unwrap_or(rest.len())];
            rest = end.map_or(&[], |end| &rest[end + 1..]);
            rest = rest.strip_prefix(b" ").unwrap_or(rest);
            let words: Vec<Word> = command.split(|&c| c == b' ').collect();
            self.command(&words, rest, &mut result)?;
            if self.saw.0.len() > MOST_SAW {
                return Err("saw too much".into());
            }
        }
        Ok(())
    }

    fn command(&mut self, words: &[Word], rest: &[u8], result: &mut Option<&mut postern::Result>) -> Outcome {
        if fewest(words[0]).is_none_or(|fewest| words.len() < fewest) {
            return Err(format!("unknown command {}", String::from_utf8_lossy(words[0])).into());
        }
        match words[0] {
            b"repeat" => {
                for _ in 0..number(words[1]) {
                    self.command(&words[2..], rest, result)?;
                }
                return Ok(());
            }
            b"error" => return Err(self.failure(words[1])),
            b"trap" => panic!("{}", self.failure(words[1])),
            b"spin" => loop {
                core::hint::black_box(self.calls);
            },
            _ => {}
        }
        if self.look(words) {
            return Ok(());
        }
        if let Some(result) = result {
            if self.decide(words, rest, result) {
                return Ok(());
            }
        }
        self.ask(words);
        Ok(())
    }

    fn failure(&self, word: Word) -> Failure {
        String::from_utf8_lossy(&self.text(word)).into_owned().into()
    }

    /// A word of a script.
    fn text<'b>(&self, word: Word<'b>) -> Cow<'b, [u8]>
    where
        'a: 'b,
    {
        if word == b"$body" || word == b"$carry" {
            return self.slot(&word[1..]).unwrap_or_default().into();
        }
        if let [b'@', count @ ..] = word {
            return vec![b'a'; number(count) as usize].into();
        }
        if !word.contains(&b'%') {
            return word.into();
        }
        let (mut text, mut at) = (Vec::new(), 0);
        while at < word.len() {
            let hex = word.get(at + 1..at + 3).and_then(|d| u8::from_str_radix(core::str::from_utf8(d).ok()?, 16).ok());
            match hex {
                Some(c) if word[at] == b'%' => {
                    text.push(c);
                    at += 3;
                }
                _ => {
                    text.push(word[at]);
                    at += 1;
                }
            }
        }
        text.into()
    }

    /// A word that is a name.
    fn name(&self, word: Word) -> String {
        String::from_utf8_lossy(&self.text(word)).into_owned()
    }

    /// What is in the slot body or carry.
    fn slot(&self, name: Word) -> Option<&'a [u8]> {
        match &self.now {
            Now::Event(event) if name == b"body" => event.body(),
            Now::Event(event) if name == b"carry" => event.carry(),
            _ => None,
        }
    }

    /// What is in a slot, as a value.
    fn value(&self, slot: Word) -> Value<'a> {
        match &self.now {
            Now::Stage(stage) if slot == b"body" => stage.config,
            Now::Event(event) if slot != b"body" => event.value(number(slot) as usize),
            _ => self.slot(slot).and_then(Value::read).unwrap_or_default().0,
        }
    }

    /// Carries out the commands that append what is to be seen.
    fn look(&mut self, words: &[Word]) -> bool {
        let slot = words.get(1).copied().unwrap_or_default();
        let at = number(slot) as usize;
        match words[0] {
            b"event" => {
                let (kind, phase, number) = match &self.now {
                    Now::Stage(s) => (0, s.phase, s.number),
                    Now::Event(e) => (e.kind as u32, e.phase, e.stage),
                };
                self.saw.token("event");
                self.saw.put((kind, ",", phase as u32, ",", number, ","));
                let flags = match &self.now {
                    Now::Stage(_) => [true, false, false, false],
                    Now::Event(e) => [e.end(), e.stream(), e.truncated(), e.gone()],
                };
                for (set, letter) in flags.iter().zip(["E", "S", "T", "G"]) {
                    if *set {
                        self.saw.put(letter);
                    }
                }
                return true;
            }
            b"calls" => {
                self.saw.token("calls");
                self.saw.put(self.calls);
                return true;
            }
            b"value" | b"member" | b"at" | b"encode" => {
                let mut v = self.value(slot);
                match words[0] {
                    b"member" => v = v.member(&self.name(words[2])),
                    b"at" => v = v.at(number(words[2]) as usize),
                    _ => {}
                }
                self.saw.token((words[0], ".", slot));
                if words[0] == b"encode" {
                    let mut encoded = Writer::new();
                    encode(v, &mut encoded);
                    encoded.octets().iter().for_each(|c| self.saw.hex(u64::from(*c), 2));
                } else {
                    self.saw.value(v);
                }
                return true;
            }
            _ => {}
        }
        let Now::Event(e) = &self.now else {
            return false;
        };
        let saw = &mut *self.saw;
        match words[0] {
            b"time" => {
                saw.token("time");
                saw.put(e.time());
            }
            b"exchange" => {
                saw.token("exchange");
                saw.put(e.exchange());
            }
            b"setup" => {
                saw.token("setup");
                saw.octets(self.kept);
            }
            b"see" => {
                saw.token(("see.", slot));
                saw.optional(if slot == b"body" { e.body() } else { e.carry() });
            }
            b"has" => {
                saw.token(("has.", slot));
                let there = match slot {
                    b"body" => e.body().is_some(),
                    b"carry" => e.carry().is_some(),
                    _ => e.has(at),
                };
                saw.put(if there { "1" } else { "0" });
            }
            b"header" => {
                saw.token(("header.", slot));
                saw.optional(e.header(at));
            }
            b"headers" => {
                saw.token(("headers.", slot));
                if !e.has(at) {
                    saw.put("-");
                    return true;
                }
                saw.put("[");
                for (n, value) in e.headers(at).enumerate() {
                    saw.comma(n);
                    saw.octets(value);
                }
                saw.put("]");
            }
            b"fields" => {
                saw.token(("fields.", slot));
                if !e.has(at) {
                    saw.put("-");
                    return true;
                }
                saw.put("{");
                for (n, (name, value)) in e.fields(at).enumerate() {
                    saw.comma(n);
                    saw.octets(name);
                    saw.put(":");
                    saw.octets(value);
                }
                saw.put("}");
            }
            b"answer" => {
                saw.token(("answer.", slot));
                let Some(a) = core::str::from_utf8(slot).ok().and_then(|name| e.answer(name)) else {
                    saw.put("-");
                    return true;
                };
                saw.put((a.status, ",", if a.cached { "1," } else { "0," }));
                saw.octets(a.error.as_bytes());
                saw.put(",");
                saw.octets(a.body);
                if let Some(field) = words.get(2) {
                    saw.put(",");
                    saw.optional(core::str::from_utf8(field).ok().and_then(|field| a.header(field)));
                }
            }
            _ => return false,
        }
        true
    }

    /// Carries out the commands that write the result.
    fn decide(&mut self, words: &[Word], rest: &[u8], result: &mut postern::Result) -> bool {
        let name = |at: usize| self.name(words.get(at).copied().unwrap_or_default());
        let text = |at: usize| self.text(words.get(at).copied().unwrap_or_default());
        let int = |at: usize| number(words.get(at).copied().unwrap_or_default());
        match words[0] {
            b"set" => result.set_header(&name(1), &*text(2)),
            b"add" => result.add_header(&name(1), &*text(2)),
            b"remove" => result.remove_header(&name(1)),
            b"attribute" => result.set_attribute(&name(1), &*text(2)),
            b"strings" => {
                let list: Vec<Vec<u8>> = (2..words.len()).map(|at| text(at).into_owned()).collect();
                result.set_attribute(&name(1), list);
            }
            b"ints" => {
                let list: Vec<i64> = (2..words.len()).map(int).collect();
                result.set_attribute(&name(1), list);
            }
            b"copy" => result.set_attribute(&name(1), self.value(words[2])),
            b"replace" => result.replace_body(&*text(1)),
            b"splice" => result.splice(int(1) as usize, int(2) as usize, &*text(3)),
            b"drop" => result.drop_body(),
            b"respond" => result.respond(int(1) as u16, &name(2), &*text(3)),
            b"content" => result.respond_body(&name(1), &*text(2)),
            b"carry" => result.carry(&*text(1)),
            b"meter" => result.meter(&name(1), int(2)),
            b"done" => result.done(),
            b"fetch" => self.fetch(&name(1), &words[2..], result),
            b"await" => {
                result.carry(rest);
                result.await_fetches();
                self.ended = true;
            }
            _ => return false,
        }
        true
    }

    fn fetch(&self, name: &str, fields: &[Word], result: &mut postern::Result) {
        let mut fetch = Fetch::default();
        let fields: Vec<(String, Cow<[u8]>)> = fields
            .iter()
            .map(|field| {
                let end = field.iter().position(|&c| c == b'=').unwrap_or(field.len());
                (self.name(&field[..end]), self.text(field.get(end + 1..).unwrap_or_default()))
            })
            .collect();
        let mut headers: Vec<(&str, &dyn Octets)> = Vec::new();
        let octets: Vec<&[u8]> = fields.iter().map(|(_, text)| &**text).collect();
        for ((field, _), octets) in fields.iter().zip(&octets) {
            let text = core::str::from_utf8(octets).unwrap_or_default();
            match field.as_str() {
                "url" => fetch.url = text,
                "upstream" => fetch.upstream = text,
                "path" => fetch.path = text,
                "method" => fetch.method = text,
                "body" => fetch.body = octets,
                "timeout" => fetch.timeout = ttl(octets),
                "cache" => fetch.cache = ttl(octets),
                "max" => fetch.max = number(octets) as u32,
                _ => headers.push((field.strip_prefix("header:").unwrap_or(field), octets)),
            }
        }
        fetch.headers = &headers;
        result.fetch(name, &fetch);
    }

    /// Carries out the commands that ask the host.
    fn ask(&mut self, words: &[Word]) {
        let text = |at: usize| self.text(words[at]);
        if words[0] == b"log" {
            let level = [Level::Debug, Level::Info, Level::Warn, Level::Error][number(words[1]) as usize & 3];
            return postern::log(level, &*text(2));
        }
        let texts: Vec<Cow<[u8]>> = (0..words.len()).map(text).collect();
        let text = |at: usize| &*texts[at];
        let slots: Vec<Value> = words.iter().map(|word| self.value(word)).collect();
        let (saw, host) = (&mut *self.saw, &mut *self.host);
        saw.token(words[0]);
        match words[0] {
            b"now" => saw.went(host.time(), |saw, now| saw.put(now)),
            b"random" => {
                let mut fill = vec![0; number(words[1]) as usize];
                saw.went(host.random(&mut fill), |saw, ()| match fill.len() {
                    0..=64 => fill.iter().for_each(|c| saw.hex(u64::from(*c), 2)),
                    n => saw.put(n),
                });
            }
            b"get" => saw.went(host.get(text(1)), |saw, v| saw.octets(v)),
            b"put" => saw.ok(host.put(text(1), text(2), ttl(words[3]))),
            b"cas" => {
                let old = (words[2] != b"-").then(|| text(2));
                saw.ok(host.cas(text(1), old, text(3), ttl(words[4])));
            }
            b"delete" => saw.ok(host.delete(text(1))),
            b"count" => saw.went(host.count(text(1), number(words[2]), ttl(words[3])), |saw, n| saw.put(n)),
            b"key" => saw.went(host.key(text(1)), |saw, id| {
                for octets in [id.account, id.key, id.name] {
                    saw.octets(octets);
                    saw.put(",");
                }
                saw.value(id.scopes);
            }),
            b"hold" => saw.went(host.hold(text(1), text(2), slots[3]), |saw, h| {
                saw.octets(h.hold);
                saw.put(",");
                saw.octets(h.amount);
            }),
            b"settle" => {
                let tags = if words[4] == b"-" { Value::default() } else { slots[4] };
                saw.went(host.settle(text(1), slots[2], words[3] == b"1", tags), |saw, r| {
                    saw.octets(r.amount);
                    saw.put(",");
                    saw.octets(r.balance);
                });
            }
            b"release" => saw.ok(host.release(text(1))),
            b"cacheget" => saw.went(host.cache_get(text(1)), |saw, v| saw.octets(v)),
            b"cacheput" => saw.ok(host.cache_put(text(1), text(2), ttl(words[3]))),
            b"op" => {
                let mut out = vec![0; number(words[2]) as usize];
                saw.put(host.op(number(words[1]) as u32, text(3), &mut out));
            }
            _ => {}
        }
    }
}

/// What an event saw: tokens separated by a space.
#[derive(Default)]
struct Saw(Writer);

impl Saw {
    /// Begins a token.
    fn token(&mut self, name: impl Octets) {
        if !self.0.is_empty() {
            self.put(" ");
        }
        self.put((name, "="));
    }

    fn put(&mut self, what: impl Octets) {
        self.0.put(what);
    }

    fn comma(&mut self, n: usize) {
        if n > 0 {
            self.put(",");
        }
    }

    fn hex(&mut self, n: u64, digits: u32) {
        for digit in (0..digits).rev() {
            self.0.append(&[b"0123456789abcdef"[(n >> (4 * digit)) as usize & 15]]);
        }
    }

    fn optional(&mut self, octets: Option<&[u8]>) {
        match octets {
            Some(octets) => self.octets(octets),
            None => self.put("-"),
        }
    }

    fn octets(&mut self, octets: &[u8]) {
        if octets.len() > 256 {
            let sum = octets.iter().fold(0x811c_9dc5_u32, |sum, c| (sum ^ u32::from(*c)).wrapping_mul(0x0100_0193));
            self.put(("#", octets.len(), ":"));
            return self.hex(u64::from(sum), 8);
        }
        self.put("\"");
        for &c in octets {
            match c {
                b'"' | b'%' | 0..=0x20 | 0x7f.. => {
                    let digits = b"0123456789ABCDEF";
                    self.0.append(&[b'%', digits[usize::from(c >> 4)], digits[usize::from(c & 15)]]);
                }
                _ => self.0.append(&[c]),
            }
        }
        self.put("\"");
    }

    /// Writes a value.
    fn value(&mut self, v: Value) {
        match v.kind() {
            Kind::Null => self.put("null"),
            Kind::Bool => self.put(if v.bool() { "true" } else { "false" }),
            Kind::Int => self.put(v.int()),
            Kind::Float => {
                self.put("f");
                self.hex(v.float().to_bits(), 16);
            }
            Kind::String => self.octets(v.bytes()),
            kind => {
                self.put(if kind == Kind::List { "[" } else { "{" });
                for (n, (key, member)) in v.each().enumerate() {
                    self.comma(n);
                    if kind == Kind::Object {
                        self.octets(key);
                        self.put(":");
                    }
                    self.value(member);
                }
                self.put(if kind == Kind::List { "]" } else { "}" });
            }
        }
    }

    /// Writes what a host operation gave, or its failure.
    fn went<T>(&mut self, asked: Asked<T>, then: impl FnOnce(&mut Saw, T)) {
        match asked {
            Ok(answer) => then(self, answer),
            Err(error) => self.put(match error {
                Error::NotFound => "NOT_FOUND",
                Error::Conflict => "CONFLICT",
                Error::Denied => "DENIED",
                Error::Invalid => "INVALID",
                Error::TooSmall => "TOO_SMALL",
                Error::Unavailable => "UNAVAILABLE",
                Error::Insufficient => "INSUFFICIENT",
                Error::Expired => "EXPIRED",
                Error::Limit => "LIMIT",
                _ => "UNKNOWN",
            }),
        }
    }

    fn ok(&mut self, asked: Asked<()>) {
        self.went(asked, |saw, ()| saw.put("ok"));
    }
}

/// Builds a value anew.
fn encode(v: Value, to: &mut Writer) {
    match v.kind() {
        Kind::Null => to.value(()),
        Kind::Bool => to.value(v.bool()),
        Kind::Int => to.value(v.int()),
        Kind::Float => to.value(v.float()),
        Kind::String => to.value(v.bytes()),
        Kind::List => {
            to.list(v.len());
            v.each().for_each(|(_, member)| encode(member, to));
        }
        Kind::Object => {
            to.object(v.len());
            for (key, member) in v.each() {
                to.key(key);
                encode(member, to);
            }
        }
    }
}
