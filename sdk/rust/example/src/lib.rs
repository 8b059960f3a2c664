//! A whole plugin: it greets the upstream in the caller's name. The README of the SDK explains it.

#![no_std]
extern crate alloc;

use alloc::vec::Vec;
use postern::{Event, EventKind, Host, Outcome, Plugin, Stage};

// The slots of the hook request, in the order of plugin.hcl. Slot 1 is the attribute model.
const NAME: usize = 0; // header x-name
const TO: usize = 2; // argument to

/// Keeps the greeting of each stage it is used at.
#[derive(Default)]
struct Greet {
    greetings: Vec<Vec<u8>>,
}

postern::plugin!(Greet);

impl Plugin for Greet {
    /// Is called once for each stage, in the order of their numbers.
    fn configure(&mut self, stage: &Stage, _: &mut Host) -> Outcome {
        self.greetings.push(stage.config.member("greeting").bytes().into());
        Ok(())
    }

    /// Is called for each event.
    fn on(&mut self, event: &Event, result: &mut postern::Result, _: &mut Host) -> Outcome {
        match event.kind {
            EventKind::Request => {
                let who = event.header(NAME).unwrap_or(event.value(TO).bytes());
                if who.is_empty() {
                    result.respond(400, "no_name", "Say who you are in the header x-name.");
                    return Ok(());
                }
                result.set_header("x-greeting", (&self.greetings[event.stage], ", ", who));
            }
            EventKind::Response => {
                result.set_header("x-seen-by", "greet");
                result.remove_header("server");
            }
            _ => {}
        }
        Ok(())
    }
}
