//! How a Postern policy plugin is written in Rust. The main type is the trait [`Plugin`]; [`plugin!`] makes one the module's
//! own. What a plugin sees and may do is declared in `plugin.hcl`; `sdk/ABI.md` is the normative text behind this crate.
//! A whole plugin:
//!
//! ```
//! #![no_std]
//! extern crate alloc;
//!
//! use alloc::vec::Vec;
//! use postern::{Event, Host, Outcome, Plugin, Stage};
//!
//! #[derive(Default)]
//! struct Greet {
//!     greetings: Vec<Vec<u8>>,
//! }
//!
//! postern::plugin!(Greet);
//!
//! impl Plugin for Greet {
//!     fn configure(&mut self, stage: &Stage, _: &mut Host) -> Outcome {
//!         self.greetings.push(stage.config.member("greeting").bytes().into());
//!         Ok(())
//!     }
//!
//!     fn on(&mut self, event: &Event, result: &mut postern::Result, _: &mut Host) -> Outcome {
//!         result.set_header("x-greeting", &self.greetings[event.stage]);
//!         Ok(())
//!     }
//! }
//! # fn main() {}
//! ```
//!
//! Nothing here allocates for each event unless it says so: what is handed out points into the frame or the host's answer,
//! and the compiler sees to it that it is not kept. The crate needs no other crate and no `std`; without its default feature
//! `alloc` it needs no allocator either.

#![cfg_attr(target_arch = "wasm32", no_std)]
#![warn(missing_docs)]

#[cfg(all(feature = "alloc", target_arch = "wasm32"))]
extern crate alloc;
#[cfg(all(feature = "std", target_arch = "wasm32"))]
extern crate std;

mod event;
#[cfg(any(target_arch = "wasm32", test))]
mod heap;
mod host;
#[doc(hidden)]
pub mod module;
mod result;
mod value;
mod writer;

pub use event::{Answer, Answers, Event, EventKind, Fields, Headers, Phase, Stage};
pub use host::{log, Asked, Error, Hold, Host, Identity, Level, Receipt};
#[cfg(not(target_arch = "wasm32"))]
pub use host::{logged, Backend};
#[cfg(not(target_arch = "wasm32"))]
pub use module::{Action, Instance};
pub use result::{Fetch, Result};
pub use value::{Kind, Members, Object, ToValue, Value};
pub use writer::{Octets, Writer};

/// A policy. The gateway makes several instances of a module, each with a plugin of its own, and gives any of them any event:
/// what has to outlive an event travels as [`Result::carry`] or in the host's state. Calls on one instance never overlap.
pub trait Plugin {
    /// Is called once for each stage the plugin is used at, with [`Stage::number`] 0, 1, 2 ..., before any event. An error
    /// refuses the configuration; its text is shown to the operator with the stage's place in the files.
    fn configure(&mut self, stage: &Stage, host: &mut Host) -> Outcome;

    /// Is called for each event of a stage. An error is the plugin's failure: nothing of `result` is applied, its text is
    /// logged, and the stage's `on_error` decides (deny, unless the operator wrote allow). A refusal meant for the caller is
    /// [`Result::respond`], not an error. A panic is logged with its place and fails the event in the same way.
    fn on(&mut self, event: &Event, result: &mut Result, host: &mut Host) -> Outcome;
}

/// What a plugin's methods return.
pub type Outcome = core::result::Result<(), Failure>;

/// Why a plugin failed: a text for the operator. Made from a `&'static str`, from a host's [`Error`] by `?`, and with the
/// feature `alloc` from a `String`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure(Why);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Why {
    Text(&'static str),
    #[cfg(feature = "alloc")]
    Made(module::String),
}

impl Failure {
    /// The text.
    pub fn text(&self) -> &str {
        match &self.0 {
            Why::Text(text) => text,
            #[cfg(feature = "alloc")]
            Why::Made(text) => text,
        }
    }
}

impl From<&'static str> for Failure {
    fn from(text: &'static str) -> Self {
        Failure(Why::Text(text))
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Failure(Why::Text(error.text()))
    }
}

#[cfg(feature = "alloc")]
impl From<module::String> for Failure {
    fn from(text: module::String) -> Self {
        Failure(Why::Made(text))
    }
}

impl core::fmt::Display for Failure {
    fn fmt(&self, f: &mut core::fmt::Formatter) -> core::fmt::Result {
        f.write_str(self.text())
    }
}

impl core::error::Error for Failure {}

/// Makes a type the module's plugin: `plugin!(Greet)` exports what the gateway calls. The type implements [`Plugin`] and
/// [`Default`], which makes the instance's one value. Outside a module it does nothing: tests make an [`Instance`].
#[macro_export]
macro_rules! plugin {
    ($plugin:ty) => {
        #[cfg(target_arch = "wasm32")]
        const _: () = {
            static PLUGIN: $crate::module::Slot<$plugin> = $crate::module::Slot::new();

            #[no_mangle]
            extern "C" fn postern_abi_v1() -> i64 {
                PLUGIN.start()
            }

            #[no_mangle]
            extern "C" fn postern_configure(length: usize) -> i64 {
                PLUGIN.configure(length)
            }

            #[no_mangle]
            extern "C" fn postern_on(_event: i32, length: usize) -> i64 {
                PLUGIN.on(length)
            }

            #[no_mangle]
            extern "C" fn postern_grow(capacity: usize) -> i64 {
                PLUGIN.grow(capacity)
            }
        };
        #[cfg(not(target_arch = "wasm32"))]
        const _: fn() -> $crate::Instance<$plugin> = $crate::Instance::<$plugin>::new_default;
    };
}

/// Writes a formatted line to the gateway's log at level debug. Lines are cut at 1 KiB, and an event may write 8 KiB. Write no
/// personal data and no secrets. Formatting makes a module some 10 KB larger; [`log()`] does without.
#[macro_export]
macro_rules! debug {
    ($($arg:tt)+) => { $crate::log($crate::Level::Debug, ::core::format_args!($($arg)+)) };
}

/// Logs at level info, as [`debug!`].
#[macro_export]
macro_rules! info {
    ($($arg:tt)+) => { $crate::log($crate::Level::Info, ::core::format_args!($($arg)+)) };
}

/// Logs at level warn, as [`debug!`].
#[macro_export]
macro_rules! warn {
    ($($arg:tt)+) => { $crate::log($crate::Level::Warn, ::core::format_args!($($arg)+)) };
}

/// Logs at level error, as [`debug!`].
#[macro_export]
macro_rules! error {
    ($($arg:tt)+) => { $crate::log($crate::Level::Error, ::core::format_args!($($arg)+)) };
}
