//! Turns panics of libraries, and of the interpreter of chat templates, on untrusted files into errors, without
//! printing the panic's message.

use std::any::Any;
use std::cell::Cell;
use std::panic::{self, AssertUnwindSafe};
use std::sync::Once;

thread_local! {
    /// How many nested calls of [`caught`] the thread is in.
    static INSIDE: Cell<u32> = const { Cell::new(0) };
}

static HOOK: Once = Once::new();

/// Runs `call`; if it panics, returns the panic's message. What `call` was changing when it panicked must not be
/// used any more.
pub fn caught<T>(call: impl FnOnce() -> T) -> Result<T, String> {
    // The hook stays installed and checks the panicking thread's counter, so that messages of other threads are
    // still printed.
    HOOK.call_once(|| {
        let previous = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            if INSIDE.get() == 0 {
                previous(info);
            }
        }));
    });
    INSIDE.set(INSIDE.get() + 1);
    let outcome = panic::catch_unwind(AssertUnwindSafe(call));
    INSIDE.set(INSIDE.get() - 1);
    outcome.map_err(|panic| message(&*panic))
}

/// The first line of a panic's message.
fn message(panic: &(dyn Any + Send)) -> String {
    let text = match (panic.downcast_ref::<&str>(), panic.downcast_ref::<String>()) {
        (Some(text), _) => text,
        (_, Some(text)) => text.as_str(),
        _ => "a panic without a message",
    };
    text.lines().next().unwrap_or_default().chars().take(300).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Catches a panic that is passed on, one whose message is lost, and a guard that stays active after a panic.
    #[test]
    fn a_panic_becomes_its_message() {
        assert_eq!(caught(|| 5), Ok(5));
        let number = 7;
        assert_eq!(caught(|| panic!("no {number}\nmore")), Err::<(), _>("no 7".to_owned()));
        assert_eq!(caught(|| caught(|| panic!("inner")).is_err()), Ok(true));
        assert_eq!(INSIDE.get(), 0);
    }
}
