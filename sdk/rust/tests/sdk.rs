//! The SDK outside a module: frames in, results out, and a host that answers as it is told.
#![cfg(feature = "alloc")]

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;
use std::time::Duration;

use postern::{
    Action, Backend, Error, Event, EventKind, Fetch, Host, Instance, Kind, Level, Object, Outcome, Phase, Plugin, Stage, Value,
    Writer,
};

/// A plugin that does what a test says.
struct Script<F>(F);

impl<F: FnMut(&Event, &mut postern::Result, &mut Host) -> Outcome> Plugin for Script<F> {
    fn configure(&mut self, stage: &Stage, _: &mut Host) -> Outcome {
        match stage.config.member("refuse").text() {
            Some(why) => Err(String::from(why).into()),
            None => Ok(()),
        }
    }

    fn on(&mut self, event: &Event, result: &mut postern::Result, host: &mut Host) -> Outcome {
        (self.0)(event, result, host)
    }
}

/// A code, an input, and how much room there was for an answer.
type Asked = (u32, Vec<u8>, usize);
/// An answer, or an error's number.
type Answer = Result<Vec<u8>, i64>;

/// Answers in this order, and notes what it was asked.
#[derive(Clone, Default)]
struct Answers {
    asked: Rc<RefCell<Vec<Asked>>>,
    answers: Rc<RefCell<VecDeque<Answer>>>,
}

impl Backend for Answers {
    fn op(&mut self, code: u32, input: &[u8], out: &mut [u8]) -> i64 {
        self.asked.borrow_mut().push((code, input.into(), out.len()));
        let mut answers = self.answers.borrow_mut();
        match answers.pop_front().unwrap_or(Err(-6)) {
            Ok(answer) if answer.len() > out.len() => {
                answers.push_front(Ok(answer));
                -5
            }
            Ok(answer) => {
                out[..answer.len()].copy_from_slice(&answer);
                answer.len() as i64
            }
            Err(code) => code,
        }
    }
}

/// A frame of an event with these slots; None is absent.
fn frame(event: u16, slots: &[Option<&[u8]>]) -> Vec<u8> {
    let mut b = vec![0; 32 + 8 * slots.len()];
    b[4..6].copy_from_slice(&event.to_le_bytes());
    (b[6], b[7], b[8], b[12]) = (5, 1 | 8, 3, slots.len() as u8);
    b[16..24].copy_from_slice(&99_i64.to_le_bytes());
    b[24..32].copy_from_slice(&77_u64.to_le_bytes());
    for (i, slot) in slots.iter().enumerate() {
        if let Some(slot) = slot {
            let at = b.len() as u32;
            b[32 + 8 * i..][..4].copy_from_slice(&at.to_le_bytes());
            b[36 + 8 * i..][..4].copy_from_slice(&(slot.len() as u32).to_le_bytes());
            b.extend_from_slice(slot);
        }
    }
    let length = b.len() as u32;
    b[..4].copy_from_slice(&length.to_le_bytes());
    b
}

fn run(values: &[&str]) -> Vec<u8> {
    values.iter().flat_map(|v| [&(v.len() as u32).to_le_bytes(), v.as_bytes()].concat()).collect()
}

/// Takes operations apart: code, key, value.
fn operations(mut b: &[u8]) -> Vec<(u8, String, Vec<u8>)> {
    let mut list = Vec::new();
    while !b.is_empty() {
        let key = u16::from_le_bytes([b[2], b[3]]) as usize;
        let value = u32::from_le_bytes([b[4], b[5], b[6], b[7]]) as usize;
        let (this, rest) = b.split_at(8 + key + value);
        list.push((this[0], String::from_utf8(this[8..8 + key].into()).unwrap(), this[8 + key..].into()));
        b = rest;
    }
    list
}

/// What a plugin decides at an event.
fn on(frame: &[u8], then: impl FnMut(&Event, &mut postern::Result, &mut Host) -> Outcome) -> (Action, Vec<u8>) {
    let mut instance = Instance::new(Script(then), Box::new(Answers::default()));
    let (action, operations) = instance.on(frame);
    (action, operations.into())
}

#[test]
fn events_are_read() {
    let value = encoded(|w| w.value("v"));
    let slots = [Some(&b"c"[..]), Some(b""), Some(&run(&["a", "", "b"])), Some(&run(&["x", "1", "y", "2"])), None, Some(&value)];
    let (action, operations) = on(&frame(3, &slots), |e, _, _| {
        assert_eq!((e.kind, e.phase, e.stage, e.time(), e.exchange()), (EventKind::Response, Phase::Response, 3, 99, 77));
        assert_eq!((e.end(), e.stream(), e.truncated(), e.gone()), (true, false, false, true));
        assert_eq!((e.carry(), e.body()), (Some(&b"c"[..]), Some(&b""[..])));
        assert_eq!(e.header(0), Some(&b"a"[..]));
        assert_eq!(e.headers(0).collect::<Vec<_>>(), [&b"a"[..], b"", b"b"]);
        assert_eq!(e.fields(1).collect::<Vec<_>>(), [(&b"x"[..], &b"1"[..]), (b"y", b"2")]);
        assert_eq!((e.header(2), e.has(2), e.has(3), e.has(4), e.has(usize::MAX)), (None, false, true, false, false));
        assert_eq!((e.value(3).text(), e.value(2).kind()), (Some("v"), Kind::Null));
        Ok(())
    });
    assert_eq!((action, operations.len()), (Action::Continue, 0));
}

#[test]
fn frames_that_are_not_whole_fail() {
    let whole = frame(1, &[Some(b"carry"), Some(b"body"), Some(&run(&["value"]))]);
    for n in 0..whole.len() {
        assert_eq!(on(&whole[..n], |_, _, _| panic!("an event of {n} octets")).0, Action::Error, "{n}");
    }
    let mut state = 1_u64;
    for _ in 0..100_000 {
        let mut broken = whole.clone();
        for _ in 0..3 {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            let at = 4 + (state >> 40) as usize % (broken.len() - 4);
            broken[at] = (state >> 32) as u8;
        }
        on(&broken, |e, _, _| {
            let _ =
                (e.carry(), e.body(), e.header(0), e.headers(0).count(), e.fields(0).count(), e.value(0), e.answers().count());
            Ok(())
        });
    }
}

#[test]
fn unknown_events_go_on() {
    for event in [7, 8, 500] {
        assert_eq!(on(&frame(event, &[None, None]), |_, _, _| panic!("an event of number {event}")), (Action::Continue, vec![]));
    }
    let mut later = frame(1, &[None, None]);
    later[6] = 7;
    assert_eq!(on(&later, |_, _, _| panic!("a phase that is not known")), (Action::Continue, vec![]));
}

#[test]
fn configurations_are_refused_with_a_text() {
    let config = encoded(|w| w.value(Object(&[("refuse", &"no\nsuch\u{7f} thing")])));
    let (action, result) = on(&frame(0, &[None, Some(&config)]), |_, _, _| Ok(()));
    assert_eq!(action, Action::Error);
    assert_eq!(operations(&result), [(8, "plugin_error".into(), [&500_u16.to_le_bytes(), &b"no such  thing"[..]].concat())]);
    assert_eq!(on(&frame(0, &[None, None]), |_, _, _| Ok(())).0, Action::Continue);
}

#[test]
fn results_are_written() {
    let (action, result) = on(&frame(1, &[None, None]), |_, r, _| {
        r.set_header("a", ("b", 12_u32, &b"c"[..], -3_i64));
        r.add_header("a", String::from("d"));
        r.remove_header("e");
        r.set_attribute("self.x", "y");
        r.set_attribute("targets", [1, 0]);
        r.splice(1, 2, format_args!("{}", 3));
        r.respond(403, "no", "why");
        r.meter("n", 5);
        r.done();
        Ok(())
    });
    assert_eq!(action, Action::Done);
    let list = [
        (1, "a", b"b12c-3".to_vec()),
        (2, "a", b"d".to_vec()),
        (3, "e", vec![]),
        (4, "self.x", encoded(|w| w.value("y"))),
        (4, "targets", encoded(|w| w.value([1_i64, 0]))),
        (6, "", [&[1, 0, 0, 0, 2, 0, 0, 0], &b"3"[..]].concat()),
        (8, "no", [&403_u16.to_le_bytes(), &b"why"[..]].concat()),
        (12, "n", 5_i64.to_le_bytes().into()),
    ];
    assert_eq!(operations(&result), list.map(|(code, key, value)| (code, key.into(), value)));
}

#[test]
fn fetches_are_asked_and_answered() {
    let token = b"secret";
    let (action, result) = on(&frame(1, &[None, None]), |_, r, _| {
        r.fetch(
            "who",
            &Fetch {
                url: "https://a.example/",
                headers: &[("authorization", &("Bearer ", token)), ("x-n", &7_u64)],
                timeout: Duration::from_millis(5),
                max: 10,
                ..Default::default()
            },
        );
        r.await_fetches();
        Ok(())
    });
    assert_eq!(action, Action::Await);
    let value = Value::read(&operations(&result)[0].2).unwrap().0.raw().to_vec();
    let want: [(&str, &dyn postern::ToValue); 4] = [
        ("url", &"https://a.example/"),
        ("timeout", &5_000_000),
        ("max", &10),
        ("headers", &Object(&[("authorization", &"Bearer secret"), ("x-n", &"7")])),
    ];
    assert_eq!(value, encoded(|w| w.value(Object(&want))));

    let answers = encoded(|w| {
        w.value(Object(&[(
            "who",
            &Object(&[
                ("status", &204),
                ("error", &""),
                ("cached", &true),
                ("headers", &Object(&[("etag", &"e")])),
                ("body", &"b"),
            ]),
        )]))
    });
    on(&frame(5, &[None, Some(&answers)]), |e, _, _| {
        let a = e.answer("who").unwrap();
        assert_eq!((a.status, a.error, a.cached, a.body, a.ok()), (204, "", true, &b"b"[..], true));
        assert_eq!((a.header("etag"), a.header("age"), a.fields().count()), (Some(&b"e"[..]), None, 1));
        assert!(e.answer("whose").is_none() && e.answers().count() == 1);
        Ok(())
    });
    on(&frame(1, &[None, Some(&answers)]), |e, _, _| {
        assert!(e.answer("who").is_none(), "a body is no answer");
        Ok(())
    });
}

#[test]
fn failures_drop_what_was_written() {
    let long = "ä".repeat(2_000);
    let (action, result) = on(&frame(1, &[None, None]), |_, r, _| {
        r.set_header("a", "dropped");
        Err(long.clone().into())
    });
    let list = operations(&result);
    assert_eq!((action, list.len(), list[0].0, list[0].2.len()), (Action::Error, 1, 8, 2 + 1024));
    assert!(on(&frame(1, &[None, None]), |_, _, _| Err(Error::Denied.into())).1.ends_with(b"not granted"));
}

#[test]
fn results_that_do_not_fit_fail() {
    let megabyte = vec![b'a'; 1 << 20];
    let fits = on(&frame(1, &[None, Some(b"b")]), |_, r, _| {
        (0..15).for_each(|_| r.add_header("a", &megabyte));
        Ok(())
    });
    assert_eq!((fits.0, operations(&fits.1).len()), (Action::Continue, 15));
    let mut instance = Instance::new(
        Script(|e: &Event, r: &mut postern::Result, _: &mut Host| {
            match e.body() {
                Some(b"many") => (0..17).for_each(|_| r.add_header("a", &megabyte)),
                Some(b"name") => r.set_header(&"n".repeat(1 << 16), "v"),
                _ => r.set_header("a", "b"),
            }
            Ok(())
        }),
        Box::new(Answers::default()),
    );
    for (body, text) in [("many", "16,777,215"), ("name", "65,535"), ("many", "16,777,215")] {
        let (action, result) = instance.on(&frame(1, &[None, Some(body.as_bytes())]));
        assert_eq!((action, operations(result).len()), (Action::Error, 1));
        assert!(String::from_utf8_lossy(result).contains(text), "{body}");
        assert_eq!(instance.on(&frame(1, &[None, None])).0, Action::Continue, "the next event is none the worse");
    }
}

#[test]
fn the_host_is_asked() {
    let answers = Answers::default();
    let asked = answers.asked.clone();
    answers.answers.borrow_mut().extend([
        Ok(b"value".to_vec()),
        Ok(vec![7; 60_000]),
        Ok(vec![]),
        Ok(42_i64.to_le_bytes().into()),
        Err(-2),
        Ok(b"short".to_vec()),
        Ok(encoded(|w| w.value(Object(&[("account", &"acme"), ("scopes", &["a", "b"])])))),
        Ok(vec![9, 9]),
        Err(-11),
    ]);
    let mut instance = Instance::new(
        Script(|_: &Event, _: &mut postern::Result, host: &mut Host| {
            let day = Duration::from_secs(86_400);
            assert_eq!(host.get(("k", 1_u64)), Ok(&b"value"[..]));
            assert_eq!(host.get("large").map(<[u8]>::len), Ok(60_000));
            assert_eq!(host.put("k", "v", day), Ok(()));
            assert_eq!(host.count("n", -1, Duration::ZERO), Ok(42));
            assert_eq!(host.cas("k", None, "v", day), Err(Error::Conflict));
            assert_eq!(host.count("n", 1, day), Err(Error::Invalid), "an answer that is no number");
            let id = host.key("pk_1")?;
            assert_eq!((id.account, id.name, id.scopes.at(1).text()), (&b"acme"[..], &b""[..], Some("b")));
            assert_eq!(host.key("pk_1").err(), Some(Error::Invalid), "an answer that is no value");
            assert_eq!(host.release("h"), Err(Error::Unknown));
            postern::info!("{} lines", 1);
            postern::log(Level::Warn, "a".repeat(2_000));
            Ok(())
        }),
        Box::new(answers),
    );
    assert_eq!(instance.on(&frame(1, &[None, None])).0, Action::Continue);
    let lines = postern::logged();
    assert_eq!((lines.len(), &lines[0], lines[1].1.len()), (2, &(Level::Info, "1 lines".into()), 1024));

    let asked = asked.borrow();
    let day = 86_400_000_000_000_u64.to_le_bytes();
    assert_eq!(asked[0].1, b"k1");
    assert!(asked[0].2 < 60_000 && asked[asked.len() - 1].2 == 64 << 10, "the larger buffer is kept");
    let put = asked.iter().find(|a| a.0 == 4).unwrap();
    assert_eq!(put.1, [&day, &[1, 0, 0, 0][..], b"kv"].concat());
    let cas = asked.iter().find(|a| a.0 == 5).unwrap();
    assert_eq!(cas.1, [&day, &[1, 0, 0, 0][..], &[255; 4], b"kv"].concat());
}

fn encoded(write: impl FnOnce(&mut Writer)) -> Vec<u8> {
    let mut w = Writer::new();
    write(&mut w);
    w.octets().into()
}

#[test]
fn values_are_written_and_read() {
    let b = encoded(|w| {
        w.value(Object(&[
            ("null", &()),
            ("none", &None::<bool>),
            ("bool", &true),
            ("int", &-5_i64),
            ("float", &1.5),
            ("text", &"t"),
            ("octets", &b"\xff"),
            ("list", &vec!["a", "b"]),
        ]))
    });
    let (v, rest) = Value::read(&b).unwrap();
    assert_eq!((v.kind(), v.len(), rest.len(), v.raw()), (Kind::Object, 8, 0, &b[..]));
    assert!(v.member("null").is_null() && v.member("none").is_null() && v.member("no such").is_null() && v.at(0).is_null());
    assert!(v.member("bool").bool());
    assert_eq!((v.member("int").int(), v.member("int").float(), v.member("float").int()), (-5, -5.0, 1));
    assert_eq!((v.member("text").text(), v.member("octets").text(), v.member("octets").bytes()), (Some("t"), None, &b"\xff"[..]));
    assert_eq!((v.member("list").at(1).text(), v.member("list").at(2).kind()), (Some("b"), Kind::Null));
    assert_eq!(v.each().map(|(key, _)| key[0]).collect::<Vec<_>>(), *b"nnbiftol");
    for n in 0..b.len() {
        assert!(Value::read(&b[..n]).is_none(), "{n} of {} octets", b.len());
    }
}

#[test]
fn values_nest_32_deep() {
    let deep = |lists| encoded(|w| (0..lists).for_each(|_| w.list(1))).into_iter().chain([0]).collect::<Vec<_>>();
    assert!(Value::read(&deep(32)).is_some());
    assert!(Value::read(&deep(33)).is_none());
    assert!(Value::read(&[5, 255, 255, 255, 255]).is_none());
    assert!(Value::read(&[6, 1, 0, 0, 0, 255, 255, 255, 255, 0]).is_none());
}
