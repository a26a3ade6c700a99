//! Calls a decoder and sees two things that its answer does not say: a panic, and how much memory it held.
//!
//! **Invariant**: a panic of a decoder never leaves here; it becomes a broken property with its place.
//! Memory is counted for the calling thread, by Rust's allocator: what a C library takes for itself is not seen.

use std::cell::{Cell, RefCell};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Once;

use crate::Broken;

thread_local! {
    static WATCHING: Cell<bool> = const { Cell::new(false) };
    static PLACE: RefCell<String> = const { RefCell::new(String::new()) };
}

static HOOK: Once = Once::new();

/// Notes the place of a panic while a decoder is being called; other panics are reported as ever.
fn install() {
    HOOK.call_once(|| {
        let usual = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if WATCHING.get() {
                PLACE.with_borrow_mut(|place| *place = info.to_string().replace('\n', " "));
            } else {
                usual(info);
            }
        }));
    });
}

/// Calls `decode`, which may hold at most `bytes_max` at once.
///
/// # Errors
/// [`Broken`] when it panicked, or held more.
pub fn call<T>(bytes_max: usize, decode: impl FnOnce() -> T) -> Result<T, Broken> {
    install();
    let mut outcome = None;
    let measured = allocation_counter::measure(|| {
        WATCHING.set(true);
        outcome = Some(catch_unwind(AssertUnwindSafe(decode)));
        WATCHING.set(false);
    });
    let Some(Ok(value)) = outcome else {
        return Err(Broken(format!("it panicked: {}", PLACE.with_borrow(String::clone))));
    };
    let bytes_max = u64::try_from(bytes_max).unwrap_or(u64::MAX);
    if measured.bytes_max > bytes_max {
        return Err(Broken(format!("it held {} bytes at once, {bytes_max} are allowed", measured.bytes_max)));
    }
    Ok(value)
}
