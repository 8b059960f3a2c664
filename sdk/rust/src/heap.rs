//! The module's memory: blocks from `memory.grow`, given out and taken back. Small blocks are powers of two with a free list
//! for each size; large ones are whole pages, first fit, joined again with free neighbours. What was freed is used again
//! before memory grows, so that memory stays flat.

use core::alloc::Layout;
use core::ptr::null_mut;

/// A page of WebAssembly memory.
const PAGE: usize = 64 << 10;
/// The smallest and the largest small block; their sizes are powers of two.
const LEAST: usize = 16;
const MOST: usize = 16 << 10;
const CLASSES: usize = (MOST.trailing_zeros() - LEAST.trailing_zeros() + 1) as usize;

/// Where pages come from: `memory.grow`, or a test's own memory.
pub(crate) trait Pages {
    /// The address of `count` new pages in a row, aligned to a page; null when there are no more.
    fn more(&mut self, count: usize) -> *mut u8;
}

/// A free run of pages. It is written at the run's own beginning.
struct Run {
    next: *mut Run,
    pages: usize,
}

/// A free small block, written in the block itself.
struct Block {
    next: *mut Block,
}

pub(crate) struct Heap<P> {
    pages: P,
    blocks: [*mut Block; CLASSES],
    /// What is left of the page that small blocks are cut from.
    from: usize,
    to: usize,
    /// Free runs, by ascending address, never two that touch.
    runs: *mut Run,
}

impl<P: Pages> Heap<P> {
    pub(crate) const fn new(pages: P) -> Self {
        Heap { pages, blocks: [null_mut(); CLASSES], from: 0, to: 0, runs: null_mut() }
    }

    /// The index of the small size that holds `layout`; None: it takes whole pages.
    fn class(layout: &Layout) -> Option<usize> {
        if layout.size() > MOST || layout.align() > LEAST {
            return None;
        }
        let size = layout.size().max(LEAST).next_power_of_two();
        Some((size.trailing_zeros() - LEAST.trailing_zeros()) as usize)
    }

    /// Memory for `layout`, whose size is not 0; null when there is none.
    pub(crate) fn alloc(&mut self, layout: Layout) -> *mut u8 {
        let Some(class) = Self::class(&layout) else {
            if layout.align() > PAGE || layout.size() > isize::MAX as usize - PAGE {
                return null_mut();
            }
            return self.take(layout.size().div_ceil(PAGE));
        };
        let block = self.blocks[class];
        if !block.is_null() {
            // SAFETY: a block on the list is free and holds its own link.
            self.blocks[class] = unsafe { (*block).next };
            return block.cast();
        }
        let size = LEAST << class;
        if self.to - self.from < size {
            self.leave();
            let page = self.take(1) as usize;
            if page == 0 {
                return null_mut();
            }
            (self.from, self.to) = (page, page + PAGE);
        }
        self.from += size;
        (self.from - size) as *mut u8
    }

    /// Takes back what alloc gave for the same layout.
    ///
    /// # Safety
    /// `address` came from `alloc` with this layout and is not used any more.
    pub(crate) unsafe fn free(&mut self, address: *mut u8, layout: Layout) {
        match Self::class(&layout) {
            Some(class) => self.put(class, address),
            None => self.give(address.cast(), layout.size().div_ceil(PAGE)),
        }
    }

    /// Memory for `size` octets that holds what `address` held.
    ///
    /// # Safety
    /// As free; `size` is not 0.
    #[cfg_attr(any(not(feature = "alloc"), feature = "std"), allow(dead_code))]
    pub(crate) unsafe fn resize(&mut self, address: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        let Ok(wanted) = Layout::from_size_align(size, layout.align()) else {
            return null_mut();
        };
        let same = match (Self::class(&layout), Self::class(&wanted)) {
            (Some(a), Some(b)) => a == b,
            (None, None) => layout.size().div_ceil(PAGE) == size.div_ceil(PAGE),
            _ => false,
        };
        if same {
            return address;
        }
        let to = self.alloc(wanted);
        if !to.is_null() {
            core::ptr::copy_nonoverlapping(address, to, size.min(layout.size()));
            self.free(address, layout);
        }
        to
    }

    /// Lets small blocks be cut from memory that is there already, between two addresses.
    ///
    /// # Safety
    /// Nothing else uses it.
    #[cfg_attr(test, allow(dead_code))]
    pub(crate) unsafe fn begin(&mut self, from: usize, to: usize) {
        self.from = from.next_multiple_of(LEAST).min(to);
        self.to = to;
    }

    /// Puts what is left of the page in use on the lists.
    fn leave(&mut self) {
        for class in (0..CLASSES).rev() {
            let size = LEAST << class;
            while self.to - self.from >= size {
                let block = self.from as *mut u8;
                self.from += size;
                // SAFETY: nothing was cut from there.
                unsafe { self.put(class, block) };
            }
        }
    }

    unsafe fn put(&mut self, class: usize, address: *mut u8) {
        let block: *mut Block = address.cast();
        (*block).next = self.blocks[class];
        self.blocks[class] = block;
    }

    /// A run of pages: the first free one that is large enough, or new ones.
    fn take(&mut self, pages: usize) -> *mut u8 {
        let mut link: *mut *mut Run = &mut self.runs;
        // SAFETY: the list is of free runs, which hold their own links.
        unsafe {
            while !(*link).is_null() {
                let run = *link;
                if (*run).pages >= pages {
                    // The run's end is given, so that its beginning can stay on the list.
                    (*run).pages -= pages;
                    if (*run).pages == 0 {
                        *link = (*run).next;
                    }
                    return run.cast::<u8>().add((*run).pages * PAGE);
                }
                link = &mut (*run).next;
            }
        }
        self.pages.more(pages)
    }

    unsafe fn give(&mut self, run: *mut Run, pages: usize) {
        let mut before: *mut Run = null_mut();
        let mut after = self.runs;
        while !after.is_null() && after < run {
            before = after;
            after = (*after).next;
        }
        *run = Run { next: after, pages };
        if !after.is_null() && run as usize + pages * PAGE == after as usize {
            *run = Run { next: (*after).next, pages: pages + (*after).pages };
        }
        if before.is_null() {
            self.runs = run;
        } else if before as usize + (*before).pages * PAGE == run as usize {
            (*before).pages += (*run).pages;
            (*before).next = (*run).next;
        } else {
            (*before).next = run;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::alloc::Layout;
    use std::vec::Vec;

    use super::{Heap, Pages, PAGE};

    /// Pages from memory of this process, of which there are so many.
    struct Some {
        memory: *mut u8,
        used: usize,
        most: usize,
    }

    impl Some {
        fn new(most: usize) -> Self {
            // SAFETY: the size is not 0; a test's memory is left to the end of the process.
            let memory = unsafe { std::alloc::alloc(Layout::from_size_align(most * PAGE, PAGE).unwrap()) };
            Some { memory, used: 0, most }
        }
    }

    impl Pages for Some {
        fn more(&mut self, count: usize) -> *mut u8 {
            if count > self.most - self.used {
                return std::ptr::null_mut();
            }
            self.used += count;
            // SAFETY: it is within the memory.
            unsafe { self.memory.add((self.used - count) * PAGE) }
        }
    }

    /// Numbers that are the same at each run.
    fn random(state: &mut u64) -> usize {
        *state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (*state >> 33) as usize
    }

    #[test]
    fn blocks_are_their_owners() {
        let (mut heap, mut state) = (Heap::new(Some::new(2_000)), 7);
        let mut held: Vec<(*mut u8, Layout, u8)> = Vec::new();
        for round in 0..20_000 {
            if !held.is_empty() && (held.len() > 200 || random(&mut state) % 3 == 0) {
                let (address, layout, mark) = held.swap_remove(random(&mut state) % held.len());
                // SAFETY: the block is held, and was filled.
                unsafe {
                    let block = std::slice::from_raw_parts(address, layout.size());
                    assert!(block.iter().all(|c| *c == mark), "a block of {} was written over", layout.size());
                    if random(&mut state) % 4 == 0 {
                        let size = 1 + random(&mut state) % (4 * layout.size());
                        let moved = heap.resize(address, layout, size);
                        let kept = std::slice::from_raw_parts(moved, size.min(layout.size()));
                        assert!(kept.iter().all(|c| *c == mark));
                        heap.free(moved, Layout::from_size_align(size, layout.align()).unwrap());
                    } else {
                        heap.free(address, layout);
                    }
                }
                continue;
            }
            let size = match random(&mut state) % 20 {
                0 => 1 + random(&mut state) % (10 * PAGE),
                1..=4 => 1 + random(&mut state) % (40 << 10),
                _ => 1 + random(&mut state) % 300,
            };
            let layout = Layout::from_size_align(size, 1 << (random(&mut state) % 8)).unwrap();
            let address = heap.alloc(layout);
            assert!(!address.is_null(), "out of memory in round {round}, with {} blocks held", held.len());
            assert_eq!(address as usize % layout.align(), 0);
            // SAFETY: the block is this test's now.
            unsafe { address.write_bytes(round as u8, size) };
            held.push((address, layout, round as u8));
        }
    }

    #[test]
    fn what_is_freed_is_used_again() {
        for size in [1, 16, 100, 5_000, 16 << 10, PAGE, 3 * PAGE + 1] {
            let (mut heap, layout) = (Heap::new(Some::new(64)), Layout::from_size_align(size, 1).unwrap());
            for _ in 0..10_000 {
                let (a, b) = (heap.alloc(layout), heap.alloc(layout));
                assert!(!a.is_null() && !b.is_null(), "{size}");
                // SAFETY: they came from there.
                unsafe {
                    heap.free(a, layout);
                    heap.free(b, layout);
                }
            }
        }
    }

    #[test]
    fn free_pages_are_joined() {
        let mut heap = Heap::new(Some::new(16));
        let layout = |pages| Layout::from_size_align(pages * PAGE, 1).unwrap();
        let runs: Vec<_> = (0..8).map(|_| heap.alloc(layout(2))).collect();
        assert!(heap.alloc(layout(1)).is_null());
        for i in [0, 3, 1, 2, 7, 5, 6, 4] {
            // SAFETY: it came from there.
            unsafe { heap.free(runs[i], layout(2)) };
        }
        assert!(!heap.alloc(layout(16)).is_null());
        assert!(heap.alloc(Layout::from_size_align(1, 2 * PAGE).unwrap()).is_null());
    }
}
