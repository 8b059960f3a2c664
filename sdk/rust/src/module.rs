//! The module as the gateway calls it: where frames arrive, results leave, and panics end.

use core::alloc::Layout;

use crate::event::Frame;
use crate::host::Host;
use crate::result::Result;
use crate::writer::Octets;
use crate::{Failure, Plugin};

#[cfg(all(feature = "alloc", target_arch = "wasm32"))]
pub(crate) use alloc::{string::String, vec::Vec};
#[cfg(all(feature = "alloc", not(target_arch = "wasm32")))]
pub(crate) use std::{string::String, vec::Vec};

/// What a plugin decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Go on, with the operations applied.
    Continue = 0,
    /// Answer the client.
    Respond = 1,
    /// Come again when the fetches are done.
    Await = 2,
    /// Go on, and send no more events of this exchange to the stage.
    Done = 4,
    /// The plugin failed.
    Error = 5,
}

/// The capacity of the frame buffer to begin with, and the most the gateway asks for.
#[cfg(target_arch = "wasm32")]
const FRAME: usize = 64 << 10;
const MOST_FRAME: usize = (16 << 20) - 1;

/// The most the gateway reads of a failure's text.
const TEXT: usize = 1 << 10;

/// Runs an event through the plugin. The operations are in `result`.
fn run<P: Plugin>(plugin: &mut P, host: &mut Host, result: &mut Result, frame: Option<&[u8]>) {
    result.clear();
    let outcome = match frame.map_or(Frame::Malformed, Frame::read) {
        Frame::Configure(stage) => plugin.configure(&stage, host),
        Frame::Event(event) => plugin.on(&event, result, host),
        Frame::Unknown => Ok(()),
        Frame::Malformed => Err(Failure::from("malformed frame")),
    };
    if outcome.is_err() || result.long || result.operations.full() {
        fail(result, outcome);
    }
}

/// Drops what the plugin wrote and says why, in the shape of an answer that nobody sees.
#[cold]
fn fail(result: &mut Result, outcome: crate::Outcome) {
    let why = match (&outcome, result.long) {
        (Err(failure), _) => failure.text(),
        (_, true) => "a name in the result is longer than 65,535 octets",
        _ => "the result does not fit: it is longer than 16,777,215 octets, or limits.memory is used up",
    };
    let mut end = why.len().min(TEXT);
    while !why.is_char_boundary(end) {
        end -= 1;
    }
    result.clear();
    result.respond(500, "plugin_error", Printable(&why[..end]));
    result.action = Action::Error;
}

/// A text without control characters, which the gateway would refuse.
struct Printable<'a>(&'a str);

impl Octets for Printable<'_> {
    fn put_to(&self, to: &mut crate::Writer) {
        for part in self.0.split_inclusive(char::is_control) {
            let text = part.trim_end_matches(char::is_control);
            to.append(text.as_bytes());
            if text.len() < part.len() {
                to.append(b" ");
            }
        }
    }
}

#[cfg(target_arch = "wasm32")]
mod wasm {
    use core::cell::UnsafeCell;

    use super::*;
    use crate::heap::{Heap, Pages};
    use crate::writer::Writer;

    /// Something of the module's that is changed. There is one thread, and calls never overlap.
    struct Single<T>(UnsafeCell<T>);

    // SAFETY: there is one thread.
    unsafe impl<T> Sync for Single<T> {}

    struct Memory;

    impl Pages for Memory {
        fn more(&mut self, count: usize) -> *mut u8 {
            match core::arch::wasm32::memory_grow(0, count) {
                usize::MAX => core::ptr::null_mut(),
                page => (page << 16) as *mut u8,
            }
        }
    }

    static HEAP: Single<Heap<Memory>> = Single(UnsafeCell::new(Heap::new(Memory)));

    /// What the module has beside its plugin.
    struct Machine {
        host: Host,
        result: Result,
        /// The frame buffer, when it has grown out of FIRST.
        frame: *mut u8,
        capacity: usize,
    }

    static FIRST: Single<[u8; FRAME]> = Single(UnsafeCell::new([0; FRAME]));
    static RESULT: Single<[u8; 4 << 10]> = Single(UnsafeCell::new([0; 4 << 10]));
    static INPUT: Single<[u8; 1 << 10]> = Single(UnsafeCell::new([0; 1 << 10]));
    static OUTPUT: Single<[u8; 4 << 10]> = Single(UnsafeCell::new([0; 4 << 10]));
    // SAFETY: each buffer is used by its writer only.
    static MACHINE: Single<Machine> = Single(UnsafeCell::new(unsafe {
        Machine {
            host: Host::new(Writer::over(INPUT.0.get().cast(), 1 << 10), Writer::over(OUTPUT.0.get().cast(), 4 << 10)),
            result: Result::new(Writer::over(RESULT.0.get().cast(), 4 << 10)),
            frame: FIRST.0.get().cast(),
            capacity: FRAME,
        }
    }));

    /// Where the module's plugin is.
    pub struct Slot<P>(Single<Option<P>>);

    impl<P: Plugin + Default> Slot<P> {
        #[allow(clippy::new_without_default)]
        pub const fn new() -> Slot<P> {
            Slot(Single(UnsafeCell::new(None)))
        }

        /// Makes the plugin and tells where frames go.
        pub fn start(&self) -> i64 {
            begin();
            #[cfg(feature = "std")]
            std::panic::set_hook(std::boxed::Box::new(|info| crate::log(crate::Level::Error, format_args!("{info}"))));
            // SAFETY: the gateway's calls do not overlap, so nothing else has the plugin.
            unsafe { *self.0 .0.get() = Some(P::default()) };
            buffer()
        }

        pub fn configure(&self, length: usize) -> i64 {
            self.on(length)
        }

        pub fn on(&self, length: usize) -> i64 {
            // SAFETY: the gateway's calls do not overlap, so nothing else has plugin, machine and frame. The gateway wrote
            // the frame, so all of it has a value.
            unsafe {
                let machine = &mut *MACHINE.0.get();
                let Some(plugin) = &mut *self.0 .0.get() else {
                    return (Action::Error as i64) << 56;
                };
                let frame = (length <= machine.capacity).then(|| core::slice::from_raw_parts(machine.frame as *const u8, length));
                run(plugin, &mut machine.host, &mut machine.result, frame);
                let operations = machine.result.operations.octets();
                (machine.result.action as i64) << 56 | (operations.len() as i64) << 32 | operations.as_ptr() as i64
            }
        }

        /// Makes the frame buffer hold at least capacity octets; what was in it is lost. Where it can not, the old one stays.
        pub fn grow(&self, capacity: usize) -> i64 {
            // SAFETY: as in on; the old buffer's memory goes back to the heap if it came from there.
            unsafe {
                let machine = &mut *MACHINE.0.get();
                if capacity > machine.capacity && capacity <= MOST_FRAME {
                    if machine.frame != FIRST.0.get().cast() {
                        less(machine.frame, machine.capacity);
                        (machine.frame, machine.capacity) = (FIRST.0.get().cast(), FRAME);
                    }
                    let larger = more(capacity);
                    if !larger.is_null() {
                        (machine.frame, machine.capacity) = (larger, capacity);
                    }
                }
            }
            buffer()
        }
    }

    fn buffer() -> i64 {
        // SAFETY: as in Slot::on.
        let machine = unsafe { &*MACHINE.0.get() };
        (machine.frame as i64) << 32 | machine.capacity as i64
    }

    /// Gives the heap what is left of the memory that the module began with.
    fn begin() {
        extern "C" {
            static __heap_base: u8;
        }
        // SAFETY: the linker's symbol says where the data ends; with std, its own allocator takes pages, not this.
        unsafe {
            let from = core::ptr::addr_of!(__heap_base) as usize;
            (*HEAP.0.get()).begin(from, core::arch::wasm32::memory_size(0) << 16);
        }
    }

    pub(crate) fn more(size: usize) -> *mut u8 {
        // SAFETY: there is one thread, and the heap calls nobody.
        unsafe { (*HEAP.0.get()).alloc(layout(size)) }
    }

    pub(crate) unsafe fn less(address: *mut u8, size: usize) {
        (*HEAP.0.get()).free(address, layout(size));
    }

    fn layout(size: usize) -> Layout {
        // SAFETY: one is an alignment, and no buffer is as large as half the memory.
        unsafe { Layout::from_size_align_unchecked(size, 1) }
    }

    #[cfg(all(feature = "alloc", not(feature = "std")))]
    mod global {
        use core::alloc::{GlobalAlloc, Layout};

        struct Global;

        // SAFETY: the heap gives a block to one at a time, aligned and as large as was asked.
        unsafe impl GlobalAlloc for Global {
            unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
                (*super::HEAP.0.get()).alloc(layout)
            }

            unsafe fn dealloc(&self, address: *mut u8, layout: Layout) {
                (*super::HEAP.0.get()).free(address, layout);
            }

            unsafe fn realloc(&self, address: *mut u8, layout: Layout, size: usize) -> *mut u8 {
                (*super::HEAP.0.get()).resize(address, layout, size)
            }
        }

        #[global_allocator]
        static GLOBAL: Global = Global;
    }

    /// A panic becomes a line in the log, with its place, and a trap.
    #[cfg(not(feature = "std"))]
    #[panic_handler]
    fn panic(info: &core::panic::PanicInfo) -> ! {
        crate::log(crate::Level::Error, format_args!("{info}"));
        core::arch::wasm32::unreachable()
    }
}

#[cfg(target_arch = "wasm32")]
pub use wasm::Slot;
#[cfg(target_arch = "wasm32")]
pub(crate) use wasm::{less, more};

/// One plugin behind the ABI, outside a module: it takes frames and gives results. For tests.
#[cfg(not(target_arch = "wasm32"))]
pub struct Instance<P> {
    plugin: P,
    host: Host,
    result: Result,
}

#[cfg(not(target_arch = "wasm32"))]
struct Nobody;

#[cfg(not(target_arch = "wasm32"))]
impl crate::Backend for Nobody {
    fn op(&mut self, _: u32, _: &[u8], _: &mut [u8]) -> i64 {
        crate::Error::Unavailable as i64
    }
}

#[cfg(not(target_arch = "wasm32"))]
impl<P: Plugin> Instance<P> {
    /// An instance whose host answers every operation with [`crate::Error::Unavailable`].
    pub fn new_default() -> Self
    where
        P: Default,
    {
        Self::new(P::default(), std::boxed::Box::new(Nobody))
    }

    /// An instance of a plugin that asks backend.
    pub fn new(plugin: P, backend: std::boxed::Box<dyn crate::Backend>) -> Self {
        Instance { plugin, host: Host::new(backend), result: Result::new(crate::writer::Writer::new()) }
    }

    /// Hands a frame to the plugin and returns what it decided: the action, and the operations as `sdk/ABI.md` lays them out.
    pub fn on(&mut self, frame: &[u8]) -> (Action, &[u8]) {
        run(&mut self.plugin, &mut self.host, &mut self.result, (frame.len() <= MOST_FRAME).then_some(frame));
        (self.result.action, self.result.operations.octets())
    }

    /// The plugin.
    pub fn plugin(&mut self) -> &mut P {
        &mut self.plugin
    }
}

#[cfg(not(target_arch = "wasm32"))]
pub(crate) fn more(size: usize) -> *mut u8 {
    match Layout::array::<u8>(size) {
        // SAFETY: a buffer's size is not 0.
        Ok(layout) => unsafe { std::alloc::alloc(layout) },
        Err(_) => core::ptr::null_mut(),
    }
}

#[cfg(not(target_arch = "wasm32"))]
pub(crate) unsafe fn less(address: *mut u8, size: usize) {
    if let Ok(layout) = Layout::array::<u8>(size) {
        std::alloc::dealloc(address, layout);
    }
}
